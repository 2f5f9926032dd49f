"""The caller's side: connections, HTTP framing, and the order of answers."""

import asyncio
from collections import deque
from functools import partial
from time import perf_counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final, cast

import httptools

from penstock.gateway.admit_any import admit_request
from penstock.gateway.admit_form import admit_form
from penstock.gateway.alone import answer_alone
from penstock.gateway.answer import CONTINUE, connection_line, error_answer
from penstock.gateway.authenticate import identify
from penstock.gateway.errors import (
    BODY_TIMEOUT,
    BODY_TOO_LARGE,
    CALLER_STALLED,
    CONNECTIONS_EXHAUSTED,
    FORM_INVALID,
    FORM_TOO_LARGE,
    HEADER_TIMEOUT,
    HEADER_TOO_LARGE,
    HOST_INVALID,
    MALFORMED,
    TARGET_TOO_LONG,
    VERSION_UNSUPPORTED,
)
from penstock.gateway.exchange import Exchange
from penstock.gateway.exchange_form import FormExchange
from penstock.gateway.labels import add_metadata
from penstock.gateway.limits import (
    ARRIVAL_S,
    BODY_BYTES,
    BODY_IDLE_S,
    DRAINED_BODY_BYTES,
    HEADER_BYTES,
    HEADER_DEADLINE_S,
    HEADER_FIELDS,
    KEEP_ALIVE_S,
    LINGER_S,
    PIPELINE_DEPTH,
    TARGET_BYTES,
    WRITE_BUFFER_BYTES,
    WRITE_STALL_S,
)
from penstock.gateway.multipart import find_boundary
from penstock.gateway.record import RequestRecord
from penstock.gateway.request import Request
from penstock.gateway.upload import Upload
from penstock.kit.errors import Refusal

if TYPE_CHECKING:
    from penstock.gateway.worker import Worker

_NEVER: Final = float("inf")
_UNTRUSTWORTHY: Final = frozenset(
    {MALFORMED, HOST_INVALID, VERSION_UNSUPPORTED, HEADER_TOO_LARGE, TARGET_TOO_LONG}
)
"""Refusals after which it is not certain where the next request begins."""


class Downstream(asyncio.Protocol):
    """One connection of a caller: requests come in, answers go out in the same order.

    While an answer is under way, later requests of the connection wait; past `PIPELINE_DEPTH` of
    them the connection is not read (a caller that leaves then is noticed when it is written to).
    """

    __slots__ = (
        "_deadline_s",
        "_exchange",
        "_header_bytes",
        "_is_deaf",
        "_is_new",
        "_is_reading",
        "_parser",
        "_request",
        "_sending",
        "_stalled_at_s",
        "_unsent_bytes",
        "_waiting",
        "_worker",
        "is_paused",
        "transport",
    )

    def __init__(self, worker: "Worker") -> None:
        """Make the protocol of one connection."""
        self._worker = worker
        self._parser = httptools.HttpRequestParser(self)
        self._request: Request | None = None
        """The request that is arriving."""
        self._exchange: Exchange | None = None
        """The request that is being answered by an engine."""
        self._sending: FormExchange | None = None
        """The same, of the request that is arriving: a form that is sent on meanwhile."""
        self._waiting: deque[Request] | None = None
        self._header_bytes = 0
        self._is_deaf = False
        """Nothing more is understood on this connection: it ends after the answers under way."""
        self._is_new = True
        """No request has begun on it."""
        self._is_reading = True
        self._deadline_s = worker.now_s() + HEADER_DEADLINE_S
        self._stalled_at_s = _NEVER
        self._unsent_bytes = 0
        """What the last sweep found unsent."""
        self.is_paused = False
        """The caller takes the answer more slowly than it comes."""

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Join the worker's connections, or be told that there are too many."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        if not self._worker.join(self):
            self._is_deaf = True
            self._refuse_connection()

    def _refuse_connection(self) -> None:
        refusal = Refusal(CONNECTIONS_EXHAUSTED)
        request = Request()
        request.request_id = request_id = self._worker.event_ids.next()
        self._worker.note_refusal(request, refusal)
        line = connection_line(keep_alive=False, version="1.1")
        self.transport.write(error_answer(refusal, request_id.encode("ascii"), line))
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Parse what came in."""
        if self._is_deaf:
            return
        self._header_bytes += len(data)
        try:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                self._decline_upgrade(data[offer.args[0] :])
        except httptools.HttpParserCallbackError:
            raise  # a bug of ours, not of the caller
        except httptools.HttpParserError:
            if not self._is_deaf:
                self._broken()
        request = self._request
        if request is not None and request.is_header_done:
            self._deadline_s = self._worker.now_s() + BODY_IDLE_S
        if self._header_bytes > HEADER_BYTES and not self._is_deaf:
            self._too_large()

    def eof_received(self) -> bool:
        """Take a half-closed connection for a closed one: the caller has left.

        What is unsent may take long to flush, or for ever: the engine is stopped now.
        """
        exchange, self._exchange = self._exchange, None
        self._waiting = None
        if exchange is not None:
            exchange.caller_gone()
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Stop what was under way for the caller."""
        self._worker.leave(self)
        self._is_deaf = True
        self._waiting = None
        exchange = self._exchange
        if exchange is not None:
            exchange.caller_gone()

    def pause_writing(self) -> None:
        """Slow the engine down to the caller's pace."""
        self.is_paused = True
        self._stalled_at_s = _NEVER  # from now on only the caller changes what is unsent
        if self._exchange is not None:
            self._exchange.pause()

    def resume_writing(self) -> None:
        """Let the engine go on."""
        self.is_paused = False
        if self._exchange is not None:
            self._exchange.resume()
        else:
            self._next()

    # What the parser calls

    def on_message_begin(self) -> None:
        """Begin a request, unless what follows on this connection is not to be understood."""
        if self._is_deaf:
            return
        self._request = Request()
        self._is_new = False
        self._deadline_s = self._worker.now_s() + HEADER_DEADLINE_S

    def on_url(self, url: bytes) -> None:
        """Take a piece of the target."""
        request = self._request
        if request is not None and len(request.target) <= TARGET_BYTES:
            request.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header field; those behind the body count, but say nothing."""
        request = self._request
        if request is None:
            return
        if request.is_header_done:
            request.field_count += 1
            if request.field_count > HEADER_FIELDS:
                request.refuse(Refusal(HEADER_TOO_LARGE))
            return
        if not request.take_field(name, value) and self._worker.forwards_headers:
            self._worker.keep_forwarded(request, name, value)

    def on_headers_complete(self) -> None:
        """Judge the header, before any of the body is taken."""
        request = self._request
        if request is None:
            return
        self._header_bytes = 0
        request.keep_alive = self._parser.should_keep_alive() and not request.offers_upgrade
        request.check_header(self._parser.get_method(), self._parser.get_http_version())
        if request.refusal is None:
            refusal = identify(self._worker, request, self.transport)
            if refusal is not None:
                request.refuse(refusal)
        if request.refusal is None and request.operation is not None and request.operation.is_form:
            self._expect_form(request)
        if request.refusal is not None:
            self._refuse_early(request)
        elif request.expects_continue and not self._is_busy():
            self._invite_body(request)

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body, unless nobody wants it or it grows too large."""
        self._header_bytes = 0
        request = self._request
        if request is None:
            return
        request.body_bytes += len(body)
        if request.upload is not None and request.refusal is None:
            self._take_form(request, request.upload, body)
        elif request.refusal is None and request.operation is not None:
            request.body.append(body)
            if request.body_bytes > BODY_BYTES:
                request.refuse(Refusal(BODY_TOO_LARGE))
                self._end_with(request)
        elif request.body_bytes > DRAINED_BODY_BYTES:
            self._end_with(request)

    def on_message_complete(self) -> None:
        """Serve the request, now or when it is its turn."""
        request = self._request
        if request is None:
            return
        if request.offers_upgrade and self._parser.should_upgrade():
            return  # the parser passes over the body; see `_decline_upgrade`
        self._header_bytes = 0
        if request.upload is not None and not self._end_form(request, request.upload):
            return
        self._request = None
        if not request.keep_alive:
            self._is_deaf = True
        request.received_s = perf_counter()
        self._deadline_s = self._worker.now_s() + KEEP_ALIVE_S
        self._enqueue(request)

    # Forms

    def _expect_form(self, request: Request) -> None:
        """Make ready for a form, unless there is none or it is too large."""
        principal, worker = request.principal, self._worker
        assert principal is not None  # noqa: S101 - operations are authenticated
        boundary, most = find_boundary(request.content_type), worker.form_bytes
        if boundary is None:
            request.refuse(Refusal(FORM_INVALID))
        elif request.content_length is not None and request.content_length > most:
            request.refuse(Refusal(FORM_TOO_LARGE, f"The form is larger than {most} bytes."))
        else:
            pseudonym = partial(worker.runtime.pseudonym, principal.organization)
            request.upload = Upload(boundary, most, pseudonym)

    def _take_form(self, request: Request, upload: Upload, data: bytes) -> None:
        """Take a piece of a form; begin to send it when it is large and its turn."""
        sending = self._sending
        if sending is not None and sending.is_settled:
            return
        refusal = upload.feed(data)
        if refusal is not None:
            self._give_up_form(request, refusal)
        elif sending is None and upload.is_large:
            self.read_no_more()
            if not self._is_busy():
                self._send_form(request, upload)

    def _send_form(self, request: Request, upload: Upload) -> None:
        """Admit a form that is still arriving, and send it on."""
        worker, principal, operation = self._worker, request.principal, request.operation
        assert operation is not None  # noqa: S101 - it has a form
        assert principal is not None  # noqa: S101 - operations are authenticated
        request.received_s = perf_counter()
        request.keep_alive = False  # until all of it is there
        size = request.content_length or worker.form_bytes
        admission = worker.refusal() or admit_form(
            worker.runtime, principal, operation, upload, size
        )
        if isinstance(admission, Refusal):
            self._give_up_form(request, admission)
            return
        exchange = FormExchange(worker, self, request, principal, admission)
        self._exchange = self._sending = exchange
        self._deadline_s = _NEVER
        exchange.start()

    def _give_up_form(self, request: Request, refusal: Refusal) -> None:
        """Answer a form that is not taken; nothing more of its connection is understood."""
        if self._sending is not None:
            self._sending.upload_failed(refusal)
            return
        request.refuse(refusal)
        self._end_with(request)

    def _end_form(self, request: Request, upload: Upload) -> bool:
        """Take note of a form's end; return whether it is to be served as it is there."""
        sending = self._sending
        if request.refusal is not None:
            return True
        if sending is None or not sending.is_settled:
            refusal = upload.finish()
            if refusal is not None:
                self._give_up_form(request, refusal)
                return False
        if sending is None:
            return True
        self._request = self._sending = None
        keep_alive = self._parser.should_keep_alive()
        self._is_deaf = self._is_deaf or not keep_alive
        sending.upload_ended(keep_alive=keep_alive)
        return False

    def read_no_more(self) -> None:
        """Stop reading from the caller."""
        if self._is_reading:
            self._is_reading = False
            self.transport.pause_reading()

    def read_on(self) -> None:
        """Read from the caller again."""
        if not self._is_reading and not self.transport.is_closing():
            self._is_reading = True
            self.transport.resume_reading()

    # Requests that cannot be served

    def _refuse_early(self, request: Request) -> None:
        """Answer before the body: wait for a small one, end the connection for others."""
        length = request.content_length or 0
        if (
            request.is_chunked
            or length > DRAINED_BODY_BYTES
            or request.expects_continue
            or request.method == b"CONNECT"
            or (request.refusal is not None and request.refusal.error in _UNTRUSTWORTHY)
        ):
            self._end_with(request)

    def _end_with(self, request: Request) -> None:
        """Answer this request last: the rest of what it sends is not understood."""
        self._is_deaf = True
        self._request = None
        request.keep_alive = False
        request.received_s = perf_counter()
        self._enqueue(request)

    def _decline_upgrade(self, rest: bytes) -> None:
        """Stay with HTTP/1.1 when another protocol is offered (RFC 9110, 7.8).

        The parser stops behind the header of such a request: another one takes its body. Nothing
        more is understood after it.
        """
        request = self._request
        if request is None:  # refused at its header
            return
        request.offers_upgrade = False
        framing = b"connection: close\r\ncontent-length: %d" % (request.content_length or 0)
        if request.is_chunked:
            framing = b"connection: close\r\ntransfer-encoding: chunked"
        self._parser = httptools.HttpRequestParser(
            SimpleNamespace(on_body=self.on_body, on_message_complete=self.on_message_complete)
        )
        self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n%b" % (framing, rest))

    def _invite_body(self, request: Request) -> None:
        """Tell a caller that waits for it that the header was accepted."""
        if request.version == "1.1" and request.body_bytes == 0:
            self.transport.write(CONTINUE)
        request.expects_continue = False

    def _broken(self) -> None:
        """Answer framing that breaks the rules; nothing after it can be trusted."""
        request = self._request
        if request is None:
            if self._is_busy():
                self._is_deaf = True
                self._hurry_end()
                return
            request = Request()
        if not request.is_header_done and len(request.target) > TARGET_BYTES:
            request.refuse(Refusal(TARGET_TOO_LONG))
        request.refuse(Refusal(MALFORMED))
        self._end_with(request)

    def _too_large(self) -> None:
        request = self._request or Request()
        is_target = len(request.target) > TARGET_BYTES
        request.refuse(Refusal(TARGET_TOO_LONG if is_target else HEADER_TOO_LARGE))
        self._end_with(request)

    def _hurry_end(self) -> None:
        """Close once nothing is under way any more."""
        if not self._is_busy():
            self._linger()

    def _linger(self) -> None:
        """Close the writing side; read and drop for a moment, so that the answer is seen."""
        self._is_deaf = True
        if self.transport.is_closing():
            return
        if not self.transport.can_write_eof():
            self.transport.close()
            return
        self.read_on()
        self.transport.write_eof()
        self._deadline_s = self._worker.now_s() + LINGER_S

    # The order of answers

    @property
    def exchange(self) -> Exchange | None:
        """The request that is being answered by an engine."""
        return self._exchange

    def _is_busy(self) -> bool:
        return self._exchange is not None or bool(self._waiting)

    def _enqueue(self, request: Request) -> None:
        if self._exchange is None and not self._waiting and not self.is_paused:
            self._serve(request)
            return
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(request)
        is_large = request.body_bytes > DRAINED_BODY_BYTES
        if is_large or len(self._waiting) >= PIPELINE_DEPTH:
            self.read_no_more()

    def _next(self) -> None:
        """Serve the requests that waited, as far as one after another can be answered."""
        while self._waiting and self._exchange is None and not self.is_paused:
            self._serve(self._waiting.popleft())
        if not self._waiting:
            self.read_on()
        if self._is_busy():
            return
        if self._is_deaf:
            self._linger()
        elif self._request is not None:
            self._await(self._request)

    def _await(self, request: Request) -> None:
        """Give the request that was arriving behind the last answer its time."""
        now = self._worker.now_s()
        if not request.is_header_done:
            self._deadline_s = now + HEADER_DEADLINE_S
            return
        self._deadline_s = now + BODY_IDLE_S
        if request.expects_continue and request.refusal is None:
            self._invite_body(request)

    def _serve(self, request: Request) -> None:
        worker = self._worker
        if request.refusal is None and request.operation is not None:
            self._serve_operation(request)
            return
        answer = answer_alone(worker, request)
        if request.refusal is not None:
            worker.note_refusal(request, request.refusal)
        self.transport.write(answer)
        self._after_answer(keep_alive=request.keep_alive and not worker.is_draining)

    def _serve_operation(self, request: Request) -> None:
        worker, operation, principal = self._worker, request.operation, request.principal
        assert operation is not None  # noqa: S101 - checked by the caller
        assert principal is not None  # noqa: S101 - operations are authenticated
        body = request.body[0] if len(request.body) == 1 else b"".join(request.body)
        request.body = []
        admission = worker.refusal() or admit_request(worker.runtime, request, body)
        if isinstance(admission, Refusal):
            request.refusal = admission
            self._serve(request)
            return
        if worker.metadata_labels and admission.metadata is not None:
            allowed = worker.metadata_labels
            request.labels = add_metadata(request.labels, admission.metadata, allowed)
        self._exchange = exchange = Exchange(worker, self, request, principal, admission)
        self._deadline_s = _NEVER
        exchange.start()

    def _after_answer(self, *, keep_alive: bool) -> None:
        if not keep_alive:
            self._waiting = None
            self._linger()

    # What the exchange calls

    def write(self, data: bytes) -> None:
        """Send a piece of the answer at once."""
        if not self.transport.is_closing():
            self.transport.write(data)

    def end_exchange(self, exchange: RequestRecord, data: bytes, *, keep_alive: bool) -> None:
        """Send the last bytes of an answer and go on with the next request."""
        if self._exchange is not exchange:
            return
        self._exchange = None
        if self._sending is not None:  # answered before its end
            self._request = self._sending = None
        if self.transport.is_closing():
            return
        if data:
            self.transport.write(data)
        self._deadline_s = self._worker.now_s() + KEEP_ALIVE_S
        if not keep_alive:
            self._after_answer(keep_alive=False)
        elif self._waiting or self._is_deaf or self._request is not None:
            self._next()

    # What the worker calls

    def sweep(self, now_s: float) -> None:
        """Look at the deadlines; those of an idle connection count once all is sent."""
        unsent = self.transport.get_write_buffer_size()
        if unsent == 0:
            self._stalled_at_s = _NEVER
        elif unsent < self._unsent_bytes or self._stalled_at_s == _NEVER:
            self._stalled_at_s = now_s + WRITE_STALL_S  # it takes some, if slowly
        elif now_s >= self._stalled_at_s and (self.is_paused or self._exchange is None):
            if self._exchange is not None:
                self._exchange.caller_gone(CALLER_STALLED)
            self.transport.abort()
            return
        self._unsent_bytes = unsent
        if self._exchange is not None:
            self._exchange.sweep(now_s)
        elif now_s >= self._deadline_s and unsent == 0 and not self.is_paused:
            self._late()

    def _late(self) -> None:
        request = self._request
        if request is None or self._is_deaf or self._is_busy():
            self.transport.abort() if self._is_deaf else self.transport.close()
            return
        request.refuse(Refusal(BODY_TIMEOUT if request.is_header_done else HEADER_TIMEOUT))
        self._end_with(request)

    def drain(self) -> None:
        """Close if idle; otherwise the answer under way, or to come, is the last."""
        if self._exchange is not None or self._request is not None or self._waiting:
            return
        if self._is_new:
            arrives_until_s = self._worker.now_s() + ARRIVAL_S
            self._deadline_s = min(self._deadline_s, arrives_until_s)
        else:
            self.transport.close()

    def interrupt(self) -> None:
        """End what is under way: the worker ends."""
        if self._exchange is not None:
            self._exchange.interrupt()
        else:
            self.transport.close()
