"""What the caller of an exchange sees of its answer, as gRPC."""

from typing import TYPE_CHECKING

from penstock.gateway.dialects.grpc import frame
from penstock.gateway.dialects.oip_grpc import error_message
from penstock.gateway.errors import BUG
from penstock.gateway.reply import Reply
from penstock.kit.errors import Refusal

if TYPE_CHECKING:
    from penstock.gateway.record import Caller
    from penstock.gateway.request import Request
    from penstock.gateway.worker import Worker

_OK = 200


class GrpcReply(Reply):
    """One answer: messages at once, the last one and how it ended when told; see `Reply`.

    Its `status` is what HTTP would answer.
    """

    __slots__ = ("refusal",)

    def __init__(
        self, worker: "Worker", downstream: "Caller", request: "Request", request_id: bytes
    ) -> None:
        """See the class."""
        super().__init__(worker, downstream, request, request_id)
        self.refusal: Refusal | None = None
        """Why it ended badly, if it did."""

    def relay(self, shown: bytes) -> None:
        """Write whole messages, or pieces of them, to the caller at once."""
        self._begin()
        self.shown_bytes += len(shown)
        self._downstream.write(shown)

    def end_stream(self, rest: bytes = b"") -> None:
        """End a stream well, with the last piece of it."""
        self._begin()
        self.shown_bytes += len(rest)
        self.last_bytes = rest

    def end_in_error(self, refusal: Refusal, *, is_inside_frame: bool) -> None:
        """End the answers to one message of a stream, which goes on."""
        del is_inside_frame
        self.end_stream(frame(error_message(refusal.message)))

    def end_plain(self, body: bytes) -> None:
        """Answer with a message."""
        self.end_stream(body)

    def fail(self, refusal: Refusal, *, status: int, is_inside_frame: bool) -> None:
        """End with a status that is not OK."""
        del is_inside_frame
        self.refusal = refusal
        if not self.is_begun:
            self.status = status

    def break_off(self) -> None:
        """End with a bug of ours."""
        self.last_bytes = b""
        self.fail(Refusal(BUG), status=BUG.status, is_inside_frame=False)

    def _begin(self) -> None:
        self.is_begun = True
        self.status = _OK
