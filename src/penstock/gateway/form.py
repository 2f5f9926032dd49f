"""In which form a request is put to an engine, and how its answer is read, by protocol."""

from typing import TYPE_CHECKING

import msgspec

from penstock.gateway.admit import Admission, readdress
from penstock.gateway.admit_oip import takes_call
from penstock.gateway.demand import cap_tail, write_cap
from penstock.gateway.dialects.oip import (
    GENERATE,
    GENERATE_STREAM,
    INFER,
    MODEL_METADATA,
    MODEL_READY,
    READS,
    model_path,
)
from penstock.gateway.dialects.oip_answers import named, read_generated, read_infer_answer
from penstock.gateway.dialects.openai import Reading, read_answer
from penstock.gateway.dialects.translate import (
    Voice,
    generate_body,
    most_tokens,
    say_whole,
)
from penstock.gateway.failure import oip_failure, status_failure
from penstock.gateway.offer import Target
from penstock.gateway.tap import Tap
from penstock.gateway.tap_oip import OipTap
from penstock.gateway.tap_translated import TranslatedTap
from penstock.kit.errors import Refusal

if TYPE_CHECKING:
    from penstock.gateway.forward import Pool, UpstreamConnection


_NOTHING_READ = Reading(None, None)
_JSON = "application/json"


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A whole plain answer."""

    reading: Reading
    body: bytes
    """What the caller gets."""
    lines: bytes = b""
    """Further lines of its head."""
    content_type: bytes = b""
    """"" for the engine's own."""


class Form:
    """OpenAI's: what is asked and answered passes as it is."""

    def put(self, admission: Admission, pool: "Pool", cap: int | None) -> tuple[bytes, bytes]:
        """Return the start of a request's head, and its body.

        Args:
            admission: What was admitted.
            pool: Of the endpoint.
            cap: Output tokens that it may have at most because of a budget; None without one.
        """
        body, demand = admission.body, admission.demand
        if cap is not None and demand is not None:
            body = body[:-1] + cap_tail(cap) if demand.names_nothing else write_cap(body, cap)
        return pool.head(admission.operation.path), body

    def readdress(self, admission: Admission, target: Target) -> Admission | None:
        """Return a request as it is sent to another target; None when that does not take it."""
        return readdress(admission, target)

    def make_tap(self, admission: Admission, cap: int | None) -> Tap:
        """Return what reads its stream."""
        del cap
        return Tap(hides_usage=admission.hides_usage, strips_usage=admission.strips_usage)

    def make_plain_tap(self, admission: Admission, connection: "UpstreamConnection") -> Tap | None:
        """Return what a plain answer is relayed through as it comes; None to keep and read it."""
        del admission, connection
        return None

    def read(
        self,
        admission: Admission,
        connection: "UpstreamConnection",
        body: bytes,
        cap: int | None,
    ) -> Answer:
        """Return what a whole plain answer says, and how the caller gets it.

        Raises:
            msgspec.DecodeError: It is none of this protocol.
        """
        del admission, connection, cap
        return Answer(read_answer(body), body)

    def failure(
        self, admission: Admission, connection: "UpstreamConnection", body: bytes
    ) -> Refusal:
        """Return what an answer other than 200 means."""
        del admission
        return status_failure(connection.status, body, connection.retry_after)


class OipForm(Form):
    """The Open Inference Protocol's: model and version stand in the path, bytes behind the JSON."""

    def put(self, admission: Admission, pool: "Pool", cap: int | None) -> tuple[bytes, bytes]:
        """Return the start of a request's head, and its body."""
        call, body, demand = admission.call, admission.body, admission.demand
        assert call is not None  # noqa: S101 - it is what makes it one of this form
        path = call.path(admission.target.deployment.model)
        if call.operation in READS:
            return pool.make_head("GET", path, _JSON), body
        if admission.json_bytes is not None:
            head = pool.make_head("POST", path, "application/octet-stream")
            return head + _length_line(b"%d" % admission.json_bytes), body
        if cap is not None and demand is not None and demand.can_be_capped:
            body = write_cap(body, cap)
        return pool.make_head("POST", path, _JSON), body

    def readdress(self, admission: Admission, target: Target) -> Admission | None:
        """Return a request as it is sent to another target; None when that does not take it."""
        if not takes_call(admission, target):
            return None
        return msgspec.structs.replace(admission, target=target)

    def make_tap(self, admission: Admission, cap: int | None) -> Tap:
        """Return what reads its stream."""
        del admission, cap
        return OipTap()

    def read(
        self,
        admission: Admission,
        connection: "UpstreamConnection",
        body: bytes,
        cap: int | None,
    ) -> Answer:
        """Return what a whole plain answer says, and how the caller gets it."""
        del cap
        operation = admission.operation
        if operation is MODEL_METADATA:
            return Answer(_NOTHING_READ, named(body, admission.target.alias))
        if operation is MODEL_READY:
            return Answer(_NOTHING_READ, body)
        if operation is not INFER:
            return Answer(read_generated(body), body)
        length = connection.json_length
        reading = read_infer_answer(body, length)
        return Answer(reading, body, b"" if length is None else _length_line(length))

    def failure(
        self, admission: Admission, connection: "UpstreamConnection", body: bytes
    ) -> Refusal:
        """Return what an answer other than 200 means."""
        has_version = admission.call is not None and bool(admission.call.version)
        return oip_failure(connection.status, body, connection.retry_after, has_version=has_version)


class TranslatedForm(Form):
    """OpenAI's towards the caller, Triton's `generate` towards the engine."""

    def put(self, admission: Admission, pool: "Pool", cap: int | None) -> tuple[bytes, bytes]:
        """Return the start of a request's head, and its body."""
        deployment = admission.target.deployment
        operation = GENERATE_STREAM if admission.is_stream else GENERATE
        head = pool.make_head("POST", model_path(deployment.model, operation), _JSON)
        most = most_tokens(admission.body, cap, deployment.max_output_tokens)
        body = generate_body(
            admission.body, admission.operation, is_stream=admission.is_stream, most=most
        )
        return head, body

    def make_tap(self, admission: Admission, cap: int | None) -> Tap:
        """Return what reads its stream."""
        return TranslatedTap(
            _voice(admission, cap),
            admission.estimated_input_tokens,
            tells_usage=not admission.hides_usage,
        )

    def read(
        self,
        admission: Admission,
        connection: "UpstreamConnection",
        body: bytes,
        cap: int | None,
    ) -> Answer:
        """Return what a whole plain answer says, and how the caller gets it."""
        del connection
        estimated = admission.estimated_input_tokens
        return Answer(*say_whole(body, _voice(admission, cap), estimated))

    def failure(
        self, admission: Admission, connection: "UpstreamConnection", body: bytes
    ) -> Refusal:
        """Return what an answer other than 200 means."""
        del admission
        return oip_failure(connection.status, body, connection.retry_after, has_version=False)


def _voice(admission: Admission, cap: int | None) -> Voice:
    target = admission.target
    most = most_tokens(admission.body, cap, target.deployment.max_output_tokens)
    return Voice(admission.operation, target.alias, most)


def _length_line(length: bytes) -> bytes:
    return b"inference-header-content-length: %b\r\n" % length
