"""One admitted message by gRPC: what an engine is sent, and what of its answer the caller sees."""

from typing import TYPE_CHECKING, Final

from penstock.gateway.admit import Admission
from penstock.gateway.dialects.errors import REFUSED_BY_ENGINE
from penstock.gateway.dialects.grpc import Status, as_http, fields_of, read_words, write_timeout
from penstock.gateway.dispatch import Dispatch
from penstock.gateway.errors import (
    BAD_ANSWER,
    CLOSED_EARLY,
    CONNECT_FAILED,
    CONNECTION_FULL,
    FAILED,
    TOTAL_TIMEOUT,
)
from penstock.gateway.failure import PASSED_STATUSES, status_failure
from penstock.gateway.form_grpc import GrpcForm
from penstock.gateway.grpc.reply import GrpcReply
from penstock.gateway.http2.fields import Fields, encode_fields
from penstock.gateway.http2.frames import ErrorCode
from penstock.gateway.http2.stream import Stream
from penstock.gateway.limits import ANSWER_BYTES
from penstock.gateway.request import Request
from penstock.gateway.runtime import Principal
from penstock.gateway.tap_grpc import GrpcTap
from penstock.kit.errors import Refusal
from penstock.kit.protobuf import MalformedError

if TYPE_CHECKING:
    from penstock.gateway.grpc.call import Call
    from penstock.gateway.http2.client import Http2Pool
    from penstock.gateway.worker import Worker

_OK: Final = b"200"
_FORM: Final = GrpcForm()


class GrpcExchange(Dispatch):
    """One admitted message by gRPC; see `RequestRecord` for its arguments.

    Args:
        deadline_s: When its caller waits no longer, by the loop's clock.
    """

    __slots__ = ("_body", "_stream", "_unconsumed")

    _make_reply = GrpcReply
    _reply: GrpcReply
    _downstream: "Call"
    _pool: "Http2Pool | None"
    _tap: GrpcTap | None

    def __init__(
        self,
        worker: "Worker",
        downstream: "Call",
        request: Request,
        principal: Principal,
        admission: Admission,
        *,
        deadline_s: float,
    ) -> None:
        """See the class."""
        super().__init__(worker, downstream, request, principal, admission)
        self._total_deadline_s = deadline_s
        self._stream: Stream | None = None
        self._body: list[bytes] = []
        self._unconsumed = 0
        """Bytes of the answer that the engine was not told are taken: the caller is slower."""

    @property
    def limit_lines(self) -> bytes:
        """Header lines that tell of limits."""
        return self._reply.lines

    def connected(self, stream: Stream) -> None:
        """Send the message, on its stream."""
        pool = self._pool
        assert pool is not None  # noqa: S101 - it is who calls
        self._stream = stream
        stream.receiver = self
        self._sent()
        admission = self._admission
        if admission.is_stream:
            self._tap = _FORM.make_tap(admission, self._cap)
        head, message = _FORM.put_message(admission, pool)
        stream.send_headers(head + self._fields(admission))
        stream.send_data(message, is_end=True)

    def _fields(self, admission: Admission) -> bytes:
        target = admission.target
        passed = self._request.passed_lines(target.upstream, self._traceparent())
        lines = target.authorization + passed
        left_s = self._total_deadline_s - self._worker.now_s()
        return encode_fields(
            [
                (b"x-request-id", self.request_id.encode("ascii")),
                (b"grpc-timeout", write_timeout(left_s)),
                *fields_of(lines),
            ]
        )

    # What the engine's connection calls

    def on_headers(self, fields: Fields, *, is_end: bool) -> None:
        """Take the head of the answer, which may be all of it."""
        self._began()
        self._has_read()
        head = dict(fields)
        self._header_id = head.get(b"x-request-id")
        if is_end or head[b":status"] != _OK:
            self._ended(head)
        elif head.get(b"grpc-encoding", b"identity") != b"identity":
            self._fail(Refusal(BAD_ANSWER))

    def on_data(self, data: bytes, *, is_end: bool) -> None:
        """Relay a piece of a stream; keep a piece of a single message."""
        self._is_touched = True
        if self._tap is not None:
            self._relay(self._tap, data)
        else:
            self._keep(data)
        if self.is_settled or self._stream is None:
            return
        if is_end:  # and how it ended is not said
            self._fail(Refusal(CLOSED_EARLY))
        elif self._downstream.is_paused:
            self._unconsumed += len(data)
        else:
            self._stream.consume(len(data))

    def _keep(self, data: bytes) -> None:
        self._answer_bytes += len(data)
        self._body.append(data)
        if self._answer_bytes > ANSWER_BYTES:
            self._fail(Refusal(BAD_ANSWER))
        elif not self._downstream.hold(len(data)):
            self._fail(Refusal(CONNECTION_FULL))

    def on_trailers(self, fields: Fields) -> None:
        """End as they say."""
        self._ended(dict(fields))

    def on_reset(self, code: ErrorCode | None) -> None:
        """End an answer that broke off; try elsewhere what was surely not begun with."""
        pool = self._pool
        if self.is_settled or pool is None:
            return
        if code is ErrorCode.REFUSED_STREAM and not self._reply.is_begun:
            refusal = Refusal(CONNECT_FAILED)
            if not self._try_another(pool, refusal):
                self._fail(self._attempts.verdict(refusal))
            return
        self._fail(Refusal(CLOSED_EARLY))

    # What it means

    def _relay(self, tap: GrpcTap, data: bytes) -> None:
        shown = tap.feed(data)
        if shown:
            self._reply.relay(shown)
        if tap.error is not None:
            # Nobody is blamed: it may be the caller's mistake, and no code says so.
            refusal = self._redacted(Refusal(FAILED, tap.error.decode()))
            self._reply.end_in_error(refusal, is_inside_frame=False)
            self._first_byte_ns = None
            self._settle("upstream_error", FAILED)
        elif tap.is_malformed:
            self._fail(Refusal(BAD_ANSWER))

    def _ended(self, fields: dict[bytes, bytes]) -> None:
        """End well, or as the status says."""
        if self.is_settled:
            return
        code, http = fields.get(b"grpc-status", b""), fields.get(b":status", _OK)
        if code == b"0":
            self._end_well()
        elif code.isdigit() and len(code) < 3:  # noqa: PLR2004 - there are 17 codes
            self._end_badly(int(code), read_words(fields.get(b"grpc-message", b"")))
        elif http.isdigit() and http != _OK:
            status = int(http)
            self._fail_by(status, status_failure(status, b"", fields.get(b"retry-after")))
        else:
            self._fail(Refusal(BAD_ANSWER))

    def _end_badly(self, code: int, words: str) -> None:
        if code == Status.DEADLINE_EXCEEDED:
            self._fail(Refusal(TOTAL_TIMEOUT), outcome="timeout")
        else:
            self._fail_by(as_http(code), _FORM.ended(self._admission, code, words))

    def _fail_by(self, status: int, refusal: Refusal) -> None:
        if not self._reply.is_begun:
            refusal = self._too_long(refusal)
            if self._sent_elsewhere(status, refusal):
                return
        is_passed = refusal.error is REFUSED_BY_ENGINE and status in PASSED_STATUSES
        self._fail(self._attempts.verdict(refusal), status=status if is_passed else None)

    def _end_well(self) -> None:
        if self._tap is not None:
            if self._tap.is_whole:
                self._reply.end_stream()
                self._settle("ok", None)
            else:
                self._fail(Refusal(CLOSED_EARLY))
            return
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        try:
            answer = _FORM.read_message(self._admission, body)
        except (MalformedError, UnicodeDecodeError):
            self._fail(Refusal(BAD_ANSWER))
            return
        self._says = answer.reading
        if answer.reading.text_bytes is not None:
            self._answer_bytes = answer.reading.text_bytes
        self._reply.end_plain(answer.body)
        self._settle("ok", None)

    def _blame_engine(self) -> None:
        if self._stream is not None:
            self._stream.is_failure = True

    # What the caller's side calls

    def pause(self) -> None:
        """Take nothing more from the engine: what comes is not said to be taken."""

    def resume(self) -> None:
        """Take more from the engine."""
        if self._stream is not None:
            unconsumed, self._unconsumed = self._unconsumed, 0
            self._stream.consume(unconsumed)

    def closed(self) -> None:
        """Send the last message and how it ended: the usage is on disk."""
        self._downstream.ended(self, self._reply)

    def _let_go(self) -> None:
        """Give up what is still under way with an engine."""
        pool, stream = self._pool, self._stream
        self._pool = self._stream = None
        self._body = []
        self._unconsumed = 0
        if pool is None:
            return
        self._leave(pool)
        if stream is None:
            pool.give_up(self)
        else:
            stream.reset()
