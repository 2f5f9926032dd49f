"""What the caller of an exchange sees of its answer, as HTTP."""

from typing import TYPE_CHECKING

from penstock.gateway.answer import (
    LAST_CHUNK,
    connection_line,
    error_answer,
    plain_head,
    stream_head,
)
from penstock.gateway.errors import BUG
from penstock.gateway.request import Request
from penstock.kit.errors import Refusal

if TYPE_CHECKING:
    from penstock.gateway.record import Caller
    from penstock.gateway.worker import Worker

_OK = 200
_EVENT_STREAM = b"text/event-stream"
_COMMENT = b": keep-alive\n\n"


class Reply:
    """One answer: its head with the first piece, further pieces at once, its last bytes when told.

    Args:
        worker: What it runs in.
        downstream: The caller's connection.
        request: What is answered.
        request_id: Value of `x-request-id`.
    """

    __slots__ = (
        "_downstream",
        "_request",
        "_request_id",
        "_worker",
        "content_type",
        "is_begun",
        "is_binary",
        "is_held",
        "last_bytes",
        "lines",
        "shown_bytes",
        "status",
    )

    def __init__(
        self, worker: "Worker", downstream: "Caller", request: Request, request_id: bytes
    ) -> None:
        """See the class."""
        self._worker = worker
        self._downstream = downstream
        self._request = request
        self._request_id = request_id
        self.content_type = b""
        """The engine's."""
        self.is_binary = False
        """What is relayed is no stream of events."""
        self.is_begun = False
        """Something of an answer is shown, or is among the last bytes."""
        self.is_held = False
        """The head of a stream is out, before anything is known of an answer."""
        self.status = 0
        self.last_bytes = b""
        """Held back until the usage is on disk."""
        self.lines = b""
        """Further lines of the head."""
        self.shown_bytes = 0
        """Of the engine's answer."""

    @property
    def keeps_alive(self) -> bool:
        """Whether the connection stays open behind it."""
        return self._request.keep_alive and not self._worker.is_draining

    @property
    def _last_chunk(self) -> bytes:
        return LAST_CHUNK if self._request.version == "1.1" else b""

    def relay(self, shown: bytes) -> None:
        """Write a piece of a stream to the caller at once."""
        self.shown_bytes += len(shown)
        if self._request.version == "1.1":
            shown = b"%x\r\n%b\r\n" % (len(shown), shown)
        if not self.is_begun:
            shown = self._lead() + shown
        self._downstream.write(shown)

    def keep_alive(self) -> None:
        """Tell the caller by a comment that its stream is still worked on; see ADR 41."""
        comment = self._framed(_COMMENT)
        if not self.is_begun and not self.is_held:
            self.content_type = _EVENT_STREAM  # an answer that was given up had another
            self.status = _OK
            comment = self._stream_head() + comment
            self.is_held = True
        self._downstream.write(comment)

    def end_stream(self, rest: bytes = b"") -> None:
        """End a stream well, with the last piece of it."""
        if rest:
            self.relay(rest)
        if not self.is_begun:
            self.last_bytes = self._lead()
        self.last_bytes += self._last_chunk

    def end_in_error(self, refusal: Refusal, *, is_inside_frame: bool) -> None:
        """End a stream well formed, with an error event.

        Args:
            refusal: What went wrong.
            is_inside_frame: It happened in the middle of a frame.
        """
        event = self._error_event(refusal, is_inside_frame=is_inside_frame)
        self.end_stream(event + self._request.telling.stream_end)

    def end_plain(self, body: bytes) -> None:
        """Answer with a body."""
        self.shown_bytes = len(body)
        self.status = _OK
        self.is_begun = True
        content_type = self.content_type or b"application/json"
        self.last_bytes = (
            plain_head(self._request_id, content_type, len(body), self._connection_line()) + body
        )

    def fail(self, refusal: Refusal, *, status: int, is_inside_frame: bool) -> None:
        """End with an error answer, or with an error event and an abnormal end.

        Args:
            refusal: What went wrong.
            status: HTTP status, when there is an error answer.
            is_inside_frame: A stream broke off in the middle of a frame.
        """
        if self.is_begun:
            self._request.keep_alive = False
            if not self.is_binary:  # else nothing can be told but that it breaks off
                event = self._error_event(refusal, is_inside_frame=is_inside_frame)
                self.last_bytes = self._framed(event)
        elif self.is_held:  # nothing of an answer was shown, so it is not begun by this
            event = self._error_event(refusal, is_inside_frame=False)
            event += self._request.telling.stream_end
            self.last_bytes = self._framed(event) + self._last_chunk
        else:
            self.status = status
            self.last_bytes = error_answer(
                refusal,
                self._request_id,
                self._connection_line(),
                status=status,
                body=self._request.telling.body(refusal, self._request_id),
            )

    def break_off(self) -> None:
        """End in a bug of ours that came of `fail`: plainly, or by closing what has begun."""
        self._request.keep_alive = False
        self.last_bytes = self.lines = b""
        if not self.is_begun and not self.is_held:
            self.fail(Refusal(BUG), status=BUG.status, is_inside_frame=False)

    def _error_event(self, refusal: Refusal, *, is_inside_frame: bool) -> bytes:
        event = self._request.telling.event(refusal, self._request_id)
        # The first ends the frame that nothing more comes of.
        return b"\n\n" + event if is_inside_frame else event

    def _framed(self, shown: bytes) -> bytes:
        if self._request.version == "1.1":
            return b"%x\r\n%b\r\n" % (len(shown), shown)
        return shown

    def _lead(self) -> bytes:
        """Show an answer from now on; return the head of its stream, unless that is out."""
        self.is_begun = True
        self.status = _OK
        return b"" if self.is_held else self._stream_head()

    def _stream_head(self) -> bytes:
        request = self._request
        is_chunked = request.version == "1.1"
        request.keep_alive = request.keep_alive and is_chunked
        return stream_head(
            self._request_id, self.content_type, self._connection_line(), is_chunked=is_chunked
        )

    def _connection_line(self) -> bytes:
        """Return the line about the connection, and further ones."""
        line = connection_line(keep_alive=self.keeps_alive, version=self._request.version)
        return self.lines + line
