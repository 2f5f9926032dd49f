"""One admitted request from OPEN to CLOSE: the steps select, forward, stream and tap.

What is recorded of it, and its only end, is in `record`.
"""

from time import perf_counter
from typing import TYPE_CHECKING, Final

import msgspec

from penstock.contract.usage import Outcome
from penstock.gateway.admit import Admission
from penstock.gateway.dialects.openai import error_status, error_text
from penstock.gateway.errors import (
    BAD_ANSWER,
    CALLER_GONE,
    CLOSED_EARLY,
    CONNECT_TIMEOUT,
    FAILED,
    FIRST_BYTE_TIMEOUT,
    IDLE_TIMEOUT,
    INTERRUPTED,
    REFUSED_BY_ENGINE,
    TOTAL_TIMEOUT,
)
from penstock.gateway.failure import (
    PASSED_STATUSES,
    RETRIED_STATUSES,
    error_in_answer,
    redacted,
    too_long,
)
from penstock.gateway.form import Form
from penstock.gateway.forms import form_of
from penstock.gateway.forward import Pool, UpstreamConnection
from penstock.gateway.limits import ANSWER_BYTES
from penstock.gateway.offer import ServedUpstream
from penstock.gateway.record import RequestRecord
from penstock.gateway.request import Request
from penstock.gateway.runtime import Principal
from penstock.gateway.tap import Tap
from penstock.kit.errors import ErrorCode, Refusal, Source

if TYPE_CHECKING:
    from penstock.gateway.server import Downstream
    from penstock.gateway.worker import Worker

_OK: Final = 200
_TOO_MANY_REQUESTS: Final = 429
_EVENT_STREAM: Final = b"text/event-stream"
_PLAIN_ENCODINGS: Final = frozenset({b"", b"identity"})
_NEVER: Final = float("inf")
HEAD_LAYOUT: Final = b"%b%bx-request-id: %b\r\n%b"
"""Of what an engine is sent: its start, the credential, our name of the request, further lines."""


class Exchange(RequestRecord):
    """One admitted request on its way; see `RequestRecord` for its arguments."""

    __slots__ = (
        "_body",
        "_connection",
        "_deadline_s",
        "_form",
        "_is_touched",
        "_late_error",
        "_pool",
        "_total_deadline_s",
    )

    _layout = HEAD_LAYOUT + b"content-length: %d\r\n\r\n%b"
    """Behind the head: the length of the body, and the body."""
    _form: Form
    """Of what an engine was sent."""

    def __init__(
        self,
        worker: "Worker",
        downstream: "Downstream",
        request: Request,
        principal: Principal,
        admission: Admission,
    ) -> None:
        """See the class."""
        super().__init__(worker, downstream, request, principal, admission)
        self._pool: Pool | None = None
        self._connection: UpstreamConnection | None = None
        self._body: list[bytes] = []
        self._is_touched = False
        self._late_error = CONNECT_TIMEOUT
        """What a missed deadline means in the phase that the exchange is in."""
        self._deadline_s = _NEVER
        self._total_deadline_s = _NEVER

    # Steps 4 and 5: select a target and an endpoint, forward the request

    def start(self) -> None:
        """Take what limits give; record the request as open; it is sent once that is written."""
        if self._admission.offer.has_choice:
            self._admission = self._attempts.choose(self._admission)
        self._claim_or_open()

    def opened(self) -> None:
        """Send the request to an engine: its OPEN is written."""
        if self.is_settled:  # the caller left meanwhile
            return
        target = self._admission.target
        deadline_s = self._worker.now_s() + target.upstream.timeouts.total_ms / 1000
        # Another target never gives it more time than the first.
        self._total_deadline_s = min(self._total_deadline_s, deadline_s)
        pool = self._attempts.select(target)
        if pool is None:
            return
        if not self._attempts.count:
            self._worker.stats.overhead(perf_counter() - self._request.received_s)
            pool.retries.requests += 1
        self._acquire(pool)

    def _acquire(self, pool: Pool) -> None:
        self._pool = pool
        self._attempts.count += 1
        pool.in_flight += 1
        self._late_error = CONNECT_TIMEOUT
        connect_ms = self._admission.target.upstream.timeouts.connect_ms
        self._deadline_s = self._worker.now_s() + connect_ms / 1000
        pool.acquire(self)

    def connected(self, connection: UpstreamConnection) -> None:
        """Send the request on its connection."""
        pool = self._pool
        assert pool is not None  # noqa: S101 - it is who calls
        self._connection = connection
        self._late_error = FIRST_BYTE_TIMEOUT
        admission, request = self._admission, self._request
        target = admission.target
        upstream = target.upstream
        self._deadline_s = self._worker.now_s() + upstream.timeouts.first_byte_ms / 1000
        self._form = form = form_of(admission)
        head, body = form.put(admission, pool, self._cap)
        lines = request.passed_lines(upstream)
        if request.session_id is not None:
            lines += self._session_line(request.session_id, lines, upstream)
        self._was_sent = True
        name = self.request_id.encode("ascii")
        connection.send(
            self, self._layout % (head, target.authorization, name, lines, len(body), body)
        )
        if self._downstream.is_paused:
            connection.transport.pause_reading()

    def _session_line(self, session_id: bytes, passed: bytes, upstream: ServedUpstream) -> bytes:
        """Return the line that names the caller's session to an engine, by a pseudonym."""
        header = upstream.engine.session_header
        if header is None or b"x-session-id" in passed:
            return b""
        session = b"session\0" + session_id
        name = self._worker.runtime.pseudonym(self._principal.organization, session)
        return b"%b: %b\r\n" % (header.encode("ascii"), name)

    def connect_failed(self, pool: Pool, refusal: Refusal) -> None:
        """Try another endpoint or target: nothing was sent yet, so nothing can happen twice."""
        if self.is_settled:
            return
        pool.in_flight -= 1
        self._pool = None
        if refusal.error.retryable and self._try_another(pool, refusal):
            return
        refusal = self._attempts.verdict(refusal)
        self._fail(refusal, outcome="timeout" if refusal.error is CONNECT_TIMEOUT else None)

    def _try_another(self, pool: Pool, refusal: Refusal) -> bool:
        """Give an endpoint up for another, of this target or the next; False when there is none."""
        attempts, worker = self._attempts, self._worker
        if not attempts.failed(pool, refusal) or worker.now_s() >= self._total_deadline_s:
            return False
        admission = self._admission
        another = attempts.select(admission.target)
        if another is None:
            # One more record is written: not into the room of others' CLOSE.
            readdressed = attempts.next_target(admission) if worker.journal.can_admit else None
            if readdressed is None:
                return False
            admission = readdressed
        attempts.go_on(pool, refusal)
        self._forget_answer()
        if another is not None:
            self._acquire(another)
        else:
            self._admission = admission
            self._claim_or_open()
        return True

    def _forget_answer(self) -> None:
        """Be as before the request was sent: what came of it counts for nothing."""
        self._let_go()
        self._was_sent = self._is_touched = False
        self._first_byte_ns = self._header_id = self._tap = None
        self._answer_bytes = 0
        self._deadline_s = _NEVER

    def _sent_elsewhere(self, status: int | None, refusal: Refusal) -> bool:
        """Send what an engine had no room for to another; False when there is none, or no budget.

        Args:
            status: What it answered; nothing of that was shown to the caller.
            refusal: What that means.
        """
        pool = self._pool
        assert pool is not None  # noqa: S101 - it is who answered
        if status not in RETRIED_STATUSES:
            return False
        if refusal.retry_after_s and status != _TOO_MANY_REQUESTS:  # which may be its owner's
            pool.rest(refusal.retry_after_s)
        if not pool.retries.is_left or not self._try_another(pool, self._redacted(refusal)):
            return False
        pool.retries.take()
        return True

    # Steps 6 and 7: stream the answer, tap its usage

    def answer_begun(self) -> None:
        """Decide from the head of the answer how it is relayed."""
        connection = self._connection
        assert connection is not None  # noqa: S101 - it is who calls
        self._first_byte_ns = self._worker.wall_ns()
        self._late_error = IDLE_TIMEOUT
        self._is_touched = True
        self._deadline_s = _NEVER
        self._reply.content_type = connection.content_type
        self._header_id = connection.answer_id
        if connection.status == _OK and connection.content_encoding in _PLAIN_ENCODINGS:
            if connection.content_type[: len(_EVENT_STREAM)].lower() == _EVENT_STREAM:
                self._tap = self._form.make_tap(self._admission, self._cap)
            else:
                self._tap = self._form.make_plain_tap(self._admission, connection)
                self._reply.is_binary = self._tap is not None

    def answer_body(self, data: bytes) -> None:
        """Relay a piece of a stream; keep a piece of a plain answer."""
        self._is_touched = True
        tap = self._tap
        if tap is None:
            self._answer_bytes += len(data)
            self._body.append(data)
            if self._answer_bytes > ANSWER_BYTES:
                self._fail(Refusal(BAD_ANSWER))
            return
        shown = tap.feed(data)
        if tap.error is not None:
            self._fail_in_stream(tap, tap.error, shown)
        elif shown:
            self._reply.relay(shown)

    def answer_complete(self) -> None:
        """End well, or as what the engine's answer turned out to be."""
        connection = self._connection
        assert connection is not None  # noqa: S101 - it is who calls
        if self._tap is not None:
            self._end_stream(self._tap, connection)
        elif connection.status != _OK:
            self._fail_by_status(connection)
        else:
            self._end_plain(connection)

    def _fail_by_status(self, connection: UpstreamConnection) -> None:
        status = connection.status
        refusal = self._form.failure(self._admission, connection, b"".join(self._body))
        refusal = self._too_long(refusal)
        if self._sent_elsewhere(status, refusal):
            return
        is_passed = refusal.error is REFUSED_BY_ENGINE and status in PASSED_STATUSES
        self._fail(self._attempts.verdict(refusal), status=status if is_passed else None)

    def _fail_under_200(self, error: bytes) -> None:
        refusal = self._too_long(error_in_answer(error))
        if not self._sent_elsewhere(error_status(error), refusal):
            self._fail(self._attempts.verdict(refusal))

    def _fail_in_stream(self, tap: Tap, error: bytes, shown: bytes) -> None:
        """End as the engine's error event says: the stream well formed, and paid for by nobody."""
        reply = self._reply
        if not reply.is_begun:
            self._fail_under_200(error)
            return
        if shown:
            reply.relay(shown)
        refusal = self._redacted(Refusal(FAILED, error_text(error)))
        reply.end_in_error(refusal, self._form.stream_end, is_inside_frame=tap.is_inside_frame)
        self._first_byte_ns = None
        self._settle("upstream_error", FAILED)

    def _end_stream(self, tap: Tap, connection: UpstreamConnection) -> None:
        rest = tap.finish()
        if tap.error is not None:
            self._fail_in_stream(tap, tap.error, rest)
            return
        if not connection.has_length and not tap.is_done:
            self._fail(Refusal(CLOSED_EARLY))
            return
        if tap.is_empty:
            self._fail(Refusal(BAD_ANSWER))
            return
        self._reply.end_stream(rest)
        self._settle("ok", None)

    def _end_plain(self, connection: UpstreamConnection) -> None:
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        if connection.content_encoding not in _PLAIN_ENCODINGS:
            self._fail(Refusal(BAD_ANSWER))
            return
        try:
            answer = self._form.read(self._admission, connection, body, self._cap)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            self._fail(Refusal(BAD_ANSWER))
            return
        reading = answer.reading
        if reading.error is not None:
            self._fail_under_200(reading.error)
            return
        self._reply.lines += answer.lines
        self._reply.content_type = answer.content_type or self._reply.content_type
        self._reply.end_plain(answer.body)
        self._says = reading
        if reading.text_bytes is not None:
            self._answer_bytes = reading.text_bytes
        self._settle("ok", None)

    def answer_failed(self, refusal: Refusal) -> None:
        """End an answer that broke off or makes no sense."""
        tap = self._tap
        if tap is not None and tap.is_done and tap.usage is not None:
            # All of it came; only the formal end is missing.
            self._reply.end_stream()
            self._settle("ok", None)
            return
        self._fail(refusal)

    # How it can end otherwise

    def caller_gone(self, error: ErrorCode = CALLER_GONE) -> None:
        """Stop the engine: nobody reads its answer any more."""
        if self.is_settled:
            return
        tap = self._tap
        if tap is not None and tap.is_done and tap.error is None:
            self._settle("ok", None)  # the caller left after the last event, as SDKs do
        else:
            self._settle("caller_gone", error)

    def interrupt(self) -> None:
        """End since the worker ends."""
        if not self.is_settled:
            self._fail(Refusal(INTERRUPTED), outcome="interrupted")

    def sweep(self, now_s: float) -> None:
        """Look at the deadlines; called every `limits.SWEEP_S`."""
        if self.is_settled:
            return
        if now_s >= self._total_deadline_s:
            self._fail(Refusal(TOTAL_TIMEOUT), outcome="timeout")
        elif self._is_touched or self._downstream.is_paused:
            self._is_touched = False
            if self._first_byte_ns is not None:
                idle_ms = self._admission.target.upstream.timeouts.idle_ms
                self._deadline_s = now_s + idle_ms / 1000
        elif now_s >= self._deadline_s:
            self._late()

    def _late(self) -> None:
        """End since an engine took too long; while nothing was sent, try another first."""
        pool = self._pool
        if pool is None or self._connection is not None:
            if pool is not None and self._late_error is FIRST_BYTE_TIMEOUT:
                pool.health.failed()
            self._fail(Refusal(self._late_error), outcome="timeout")
            return
        pool.too_slow(self)
        self.connect_failed(pool, Refusal(CONNECT_TIMEOUT))

    def pause(self) -> None:
        """Stop reading from the engine: the caller is slower."""
        connection = self._connection
        if connection is not None and not connection.transport.is_closing():
            connection.transport.pause_reading()

    def resume(self) -> None:
        """Read from the engine again."""
        connection = self._connection
        if connection is not None and not connection.transport.is_closing():
            connection.transport.resume_reading()

    def _too_long(self, refusal: Refusal) -> Refusal:
        admission = self._admission
        place = admission.target.upstream.name, admission.target.deployment.model
        most_tokens = self._worker.contexts.get(place)
        return too_long(refusal, most_tokens, admission.estimated_input_tokens)

    def _redacted(self, refusal: Refusal) -> Refusal:
        target = self._admission.target
        return redacted(refusal, target.authorization, target.upstream.hosts)

    def _fail(
        self, refusal: Refusal, *, outcome: Outcome | None = None, status: int | None = None
    ) -> None:
        """End with an error answer, or with an error event and an abnormal end."""
        if self.is_settled:
            return
        error, tap = refusal.error, self._tap
        refusal = self._redacted(refusal)
        self._reply.fail(
            refusal,
            status=status or error.status,
            is_inside_frame=tap is not None and tap.is_inside_frame,
        )
        if outcome is None:
            outcome = "refused" if error.source is Source.DOWNSTREAM else "upstream_error"
        self._settle(outcome, error)

    def _let_go(self) -> None:
        """Give up what is still under way with an engine."""
        pool, connection = self._pool, self._connection
        self._pool = self._connection = None
        self._body = []
        if pool is None:
            return
        pool.in_flight -= 1
        if connection is None:
            pool.give_up(self)
        elif connection.serves(self):
            connection.abort()
        elif self._downstream.is_paused and not connection.transport.is_closing():
            connection.transport.resume_reading()
