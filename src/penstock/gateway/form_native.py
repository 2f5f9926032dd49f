"""In which form engines that speak Anthropic's Messages or OpenAI's Responses are asked: as we are.

Nothing is translated: what is asked and answered passes as it is.
"""

from typing import TYPE_CHECKING

from penstock.gateway.admit import Admission
from penstock.gateway.admit_native import readdress_native, write_native_cap
from penstock.gateway.dialects.messages import read_message
from penstock.gateway.dialects.responses import RESPONSES, read_response
from penstock.gateway.form import Answer, Form
from penstock.gateway.offer import Target
from penstock.gateway.tap import Tap
from penstock.gateway.tap_events import MessagesTap, ResponsesTap

if TYPE_CHECKING:
    from penstock.gateway.forward import Pool, UpstreamConnection


class NativeForm(Form):
    """The caller's own protocol."""

    def put(self, admission: Admission, pool: "Pool", cap: int | None) -> tuple[bytes, bytes]:
        """Return the start of a request's head, and its body."""
        body, operation = admission.body, admission.operation
        if cap is not None and operation.cap_member:
            body = write_native_cap(body, operation, cap)
        return pool.head(operation.path), body

    def readdress(self, admission: Admission, target: Target) -> Admission | None:
        """Return a request as it is sent to another target; None when that does not take it."""
        return readdress_native(admission, target)

    def make_tap(self, admission: Admission, cap: int | None) -> Tap:
        """Return what reads its stream."""
        del cap
        if admission.operation is RESPONSES:
            return ResponsesTap()
        return MessagesTap(admission.estimated_input_tokens)

    def read(
        self,
        admission: Admission,
        connection: "UpstreamConnection",
        body: bytes,
        cap: int | None,
    ) -> Answer:
        """Return what a whole plain answer says, and how the caller gets it."""
        del connection, cap
        is_response = admission.operation is RESPONSES
        return Answer(read_response(body) if is_response else read_message(body), body)
