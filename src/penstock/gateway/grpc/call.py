"""One call of a caller, from its head to its status: its messages are served one after the other.

Each message of a stream is a request of its own, admitted, limited, recorded and sent on a call of
its own, whose end says that its answer is complete (ADR 40). Those behind it wait; what may
wait is what the stream's window lets come.
"""

from time import perf_counter
from typing import TYPE_CHECKING, Final, cast

from penstock.gateway.admit_grpc import admit_message
from penstock.gateway.answer import error_lines
from penstock.gateway.authenticate import identify
from penstock.gateway.dialects.errors import MESSAGE_MALFORMED
from penstock.gateway.dialects.grpc import (
    PREFIX_BYTES,
    FrameReader,
    Status,
    fields_of,
    frame,
    may_be_waited_for,
    read_timeout_s,
    status_of,
    write_words,
)
from penstock.gateway.errors import (
    BODY_TIMEOUT,
    CALLER_STALLED,
    CONNECTION_FULL,
    DRAINING,
    ENCODING_UNSUPPORTED,
    NOT_FOUND,
    TOTAL_TIMEOUT,
)
from penstock.gateway.grpc.exchange import GrpcExchange
from penstock.gateway.grpc.health import Watch, check, read_service
from penstock.gateway.grpc.methods import Method, find_method, own_message
from penstock.gateway.grpc.reply import GrpcReply
from penstock.gateway.http2.fields import Fields, encode_fields
from penstock.gateway.http2.frames import ErrorCode
from penstock.gateway.http2.stream import Stream
from penstock.gateway.limits import (
    BODY_BYTES,
    BODY_IDLE_S,
    GRPC_HELD_BYTES,
    GRPC_SILENCE_S,
    GRPC_WATCHES,
    RETRY_AFTER_S,
)
from penstock.gateway.request import Request
from penstock.kit.errors import Refusal

if TYPE_CHECKING:
    from penstock.gateway.worker import Worker

_NEVER: Final = float("inf")
_HEAD: Final = encode_fields(((b":status", b"200"), (b"content-type", b"application/grpc")))
_WELL: Final = encode_fields(((b"grpc-status", b"0"),))
_BUG: Final = encode_fields(((b"grpc-status", b"%d" % Status.INTERNAL),))
_NO_GRPC: Final = encode_fields(((b":status", b"415"),))
_CONTENT_TYPE: Final = b"application/grpc"


class Call:
    """One call.

    Args:
        worker: What it runs in.
        stream: What it runs on.
    """

    __slots__ = (
        "_deadline_s",
        "_exchange",
        "_frames",
        "_is_begun",
        "_is_complete",
        "_method",
        "_request",
        "_silent_until_s",
        "_stream",
        "_unconsumed",
        "_waiting",
        "_watch",
        "_worker",
        "is_paused",
    )

    def __init__(self, worker: "Worker", stream: Stream) -> None:
        """See the class."""
        self._worker = worker
        self._stream = stream
        stream.receiver = self
        self._request = Request()
        self._method = Method()
        self._frames = FrameReader(BODY_BYTES)
        self._waiting: list[bytes] = []
        """Messages whose turn has not come."""
        self._exchange: GrpcExchange | None = None
        """The message that is being answered by an engine."""
        self._watch: Watch | None = None
        self._is_begun = False
        """The head of the answer is sent."""
        self._is_complete = False
        """The caller sends no more."""
        self._deadline_s = _NEVER
        self._silent_until_s = worker.now_s() + BODY_IDLE_S
        self._unconsumed = 0
        """Bytes of which the caller was not told that they are taken: others wait before them."""
        self.is_paused = False
        """The caller takes the answer more slowly than it comes."""

    def begin(self, fields: Fields, *, is_end: bool) -> None:
        """Judge the head."""
        path = self._read_head(fields)
        request = self._request
        if not (request.content_type or b"").startswith(_CONTENT_TYPE):
            self._stream.send_headers(_NO_GRPC, is_end=True)
            return
        method = find_method(path)
        if isinstance(method, Refusal):
            request.refuse(method)
        elif request.refusal is None:
            self._method = method
            request.operation, request.target = method.operation, method.target
            request.method = b"GET" if method.operation is None else b"POST"
            peer = self._stream.peer
            assert peer is not None  # noqa: S101 - it is what the call came by
            refusal = identify(self._worker, request, peer)
            if refusal is not None:
                request.refuse(refusal)
        if request.refusal is not None:
            self._refuse(request.refusal)
        elif is_end:
            self._take(b"", is_end=True)

    def _read_head(self, fields: Fields) -> bytes:
        """Take the head's fields; return the path."""
        request, worker = self._request, self._worker
        path = b""
        for name, value in fields:
            if name == b":path":
                path = value
            elif name == b":method":
                if value != b"POST":
                    request.refuse(Refusal(NOT_FOUND))
            elif name == b"grpc-timeout":
                seconds = read_timeout_s(value)
                if seconds is None:
                    request.refuse(Refusal(MESSAGE_MALFORMED, "The grpc-timeout is none."))
                else:
                    self._deadline_s = worker.now_s() + seconds
            elif name == b"grpc-encoding":
                if value != b"identity":
                    request.refuse(Refusal(ENCODING_UNSUPPORTED))
            elif (
                name[:1] != b":" and not request.take_field(name, value) and worker.forwards_headers
            ):
                worker.keep_forwarded(request, name, value)
        return path

    # What its connection calls

    def on_headers(self, fields: Fields, *, is_end: bool) -> None:
        """Do nothing: only answers have a second head."""

    def on_data(self, data: bytes, *, is_end: bool) -> None:
        """Take a piece of the messages."""
        self._take(data, is_end=is_end)

    def on_trailers(self, fields: Fields) -> None:
        """Take the end; what else the caller says there means nothing."""
        del fields
        self._take(b"", is_end=True)

    def on_reset(self, code: ErrorCode | None) -> None:
        """Stop the engine: nobody waits for its answer any more."""
        del code
        self._waiting = []
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.caller_gone()

    def pause(self) -> None:
        """Slow the engine down to the caller's pace."""
        self.is_paused = True
        if self._exchange is not None:
            self._exchange.pause()

    def resume(self) -> None:
        """Let the engine go on."""
        self.is_paused = False
        if self._exchange is not None:
            self._exchange.resume()

    # Messages

    def _take(self, data: bytes, *, is_end: bool) -> None:
        stream = self._stream
        if stream.is_closed or self._is_complete:
            return
        if not self.hold(len(data)):
            self._refuse(Refusal(CONNECTION_FULL))
            return
        self._is_complete = is_end
        self._silent_until_s = self._worker.now_s() + BODY_IDLE_S
        found = self._frames.feed(data) if data else []
        if isinstance(found, Refusal):
            self._refuse(found)
            return
        self._waiting += found
        self._unconsumed += len(data)
        if is_end and (self._frames.held_bytes or not self._is_enough()):
            self._refuse(Refusal(MESSAGE_MALFORMED, "The call ends in a message, or has none."))
        elif not self._method.is_stream and len(self._waiting) > 1:
            self._refuse(Refusal(MESSAGE_MALFORMED, "This call takes one message."))
        elif self._exchange is None:
            self._next()

    def _is_enough(self) -> bool:
        return self._method.is_stream or bool(self._waiting)

    def _next(self) -> None:
        """Serve the message whose turn it is; a single one when it is known to be the only one."""
        if not self._waiting:
            self._consume()
            # Who watches has said all there is to say.
            if self._is_complete and self._exchange is None and self._watch is None:
                self._end(None)
            return
        if not self._method.is_stream and not self._is_complete:
            self._consume()
            return
        message = self._waiting.pop(0)
        if not self._waiting:
            self._consume()
        if self._method.operation is None:
            self._answer(message)
        else:
            self._serve(message)

    def _consume(self) -> None:
        unconsumed, self._unconsumed = self._unconsumed, 0
        self._stream.consume(unconsumed)

    def _serve(self, message: bytes) -> None:
        worker, request = self._worker, self._request
        request.received_s = perf_counter()
        request.body_bytes = len(message)
        operation, principal = request.operation, request.principal
        assert operation is not None  # noqa: S101 - checked by the caller
        assert principal is not None  # noqa: S101 - operations are authenticated
        admission = worker.refusal() or admit_message(worker.runtime, principal, operation, message)
        if isinstance(admission, Refusal):
            self._refuse(admission)
            return
        self._exchange = exchange = GrpcExchange(
            worker, self, request, principal, admission, deadline_s=self._deadline_s
        )
        exchange.start()

    def _answer(self, message: bytes) -> None:
        """Answer what no engine is asked for."""
        is_ready = self._worker.unreadiness() is None
        told: bytes | Refusal
        if not self._method.is_health:
            told = own_message(self._method, is_ready=is_ready)
        else:
            service = read_service(message, PREFIX_BYTES)
            if not isinstance(service, Refusal) and self._method.is_stream:
                calls = self._stream.connection.streams.values()
                if sum(cast("Call", one.receiver).is_watching for one in calls) >= GRPC_WATCHES:
                    self._refuse(Refusal(CONNECTION_FULL))
                    return
                self._watch = Watch(service)
                self._look()
                return
            told = service if isinstance(service, Refusal) else check(service, is_ready=is_ready)
        if isinstance(told, Refusal):
            self._refuse(told)
        else:
            self.write(frame(told))
            self._end(None)

    def _look(self) -> None:
        """Tell a watcher what changed."""
        assert self._watch is not None  # noqa: S101 - it is who watches
        told = self._watch.look(is_ready=self._worker.unreadiness() is None)
        if told:
            self.write(frame(told))

    # The answer

    def hold(self, size: int) -> bool:
        """Count bytes that are kept for it to its end; False when its connection has too many.

        Args:
            size: How many more they are, of its messages or of an answer that is not whole yet.
        """
        stream = self._stream
        stream.hold(stream.held_bytes + size)
        return stream.connection.held_bytes <= GRPC_HELD_BYTES

    def write(self, data: bytes) -> None:
        """Send whole messages, or pieces of them, at once."""
        if not self._is_begun:
            self._is_begun = True
            self._stream.send_headers(self._head())
        self._stream.send_data(data)

    def _head(self) -> bytes:
        exchange, request = self._exchange, self._request
        request_id = request.request_id or self._worker.event_ids.next()
        lines = b""
        if exchange is not None:
            request_id, lines = exchange.request_id, exchange.limit_lines
        named = (b"x-request-id", request_id.encode("ascii"))
        return _HEAD + encode_fields([named, *fields_of(lines)])

    def ended(self, exchange: GrpcExchange, reply: GrpcReply) -> None:
        """Send the last of an answer; go on with the next message unless it ended badly."""
        if self._exchange is not exchange:
            return
        if reply.last_bytes:
            self.write(reply.last_bytes)
        if reply.refusal is not None:
            self._end(reply.refusal, None if reply.is_begun else reply.status)
        elif not self._method.is_stream:
            self._end(None)
        else:
            self._exchange = None
            self._stream.hold(self._frames.held_bytes + sum(map(len, self._waiting)))
            self._silent_until_s = self._worker.now_s() + GRPC_SILENCE_S
            self._next()

    def _refuse(self, refusal: Refusal) -> None:
        """End a call of which nothing more is understood."""
        exchange = self._exchange
        if exchange is not None:
            self._exchange = None
            exchange.caller_gone()
        request = self._request
        request.request_id = request.request_id or self._worker.event_ids.next()
        self._worker.note_refusal(request, refusal)
        self._end(refusal)

    def _end(self, refusal: Refusal | None, http_status: int | None = None) -> None:
        """Send how it ended; by a bug of ours, if one keeps that from being told."""
        block = _BUG if self._is_begun else _HEAD + _BUG
        try:
            told = _WELL if refusal is None else self._told(refusal, http_status)
            block = told if self._is_begun else self._head() + told
        finally:  # else its caller would wait
            self._exchange = None
            self._waiting = []
            self._stream.send_headers(block, is_end=True)

    @staticmethod
    def _told(refusal: Refusal, http_status: int | None) -> bytes:
        """Return the fields that tell of a refusal."""
        status = status_of(refusal, http_status)
        fields = [
            (b"grpc-status", b"%d" % status),
            (b"grpc-message", write_words(refusal.message)),
            *fields_of(error_lines(refusal, http_status or refusal.error.status)),
        ]
        if status is Status.UNIMPLEMENTED and refusal.error is ENCODING_UNSUPPORTED:
            fields.append((b"grpc-accept-encoding", b"identity"))
        if may_be_waited_for(status) and refusal.error.retryable:
            wait_s = refusal.retry_after_s or RETRY_AFTER_S
            fields.append((b"grpc-retry-pushback-ms", b"%d" % (wait_s * 1000)))
        return encode_fields(fields)

    # What the worker calls

    def sweep(self, now_s: float) -> None:
        """Look at the deadlines."""
        exchange = self._exchange
        if self._stream.is_closed:
            return
        if self._stream.is_stalled(now_s):
            self._exchange = None
            if exchange is not None:
                exchange.caller_gone(CALLER_STALLED)
            self._stream.reset()
        elif exchange is not None:
            exchange.sweep(now_s)
        elif now_s >= self._deadline_s:
            self._refuse(Refusal(TOTAL_TIMEOUT))
        elif self._watch is not None:
            self._look()
            if self._worker.is_draining:
                self._refuse(Refusal(DRAINING))
        elif self._worker.is_draining and self._method.is_stream:
            self._refuse(Refusal(DRAINING))
        elif now_s >= self._silent_until_s:
            self._refuse(Refusal(BODY_TIMEOUT))

    @property
    def is_watching(self) -> bool:
        """Whether it only waits to be told how this server is."""
        return self._watch is not None

    @property
    def exchange(self) -> "GrpcExchange | None":
        """The message that is being answered by an engine."""
        return self._exchange

    def interrupt(self) -> None:
        """End: the worker ends."""
        if self._exchange is not None:
            self._exchange.interrupt()
        else:
            self._refuse(Refusal(DRAINING))
