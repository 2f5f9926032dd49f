"""One admitted request from OPEN to CLOSE: the steps select, forward, stream, tap and journal.

Whatever happens, `_settle` runs exactly once: it is the only place that ends an exchange, and it
hands the usage event to the journal before the last byte is released.
"""

import contextlib
from collections.abc import Iterator
from time import perf_counter
from typing import TYPE_CHECKING, Final

import msgspec

from penstock.contract.journal import Open
from penstock.contract.money import HoldUse
from penstock.contract.usage import Attempt, Outcome, UsageEvent
from penstock.gateway.admit import Admission
from penstock.gateway.claim import Claim, Denial, cap_line
from penstock.gateway.dialects.openai import Reading
from penstock.gateway.dialects.openai_usage import Usage
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
from penstock.gateway.failure import PASSED_STATUSES, error_in_answer, given_up, redacted
from penstock.gateway.form import form_of
from penstock.gateway.forward import Pool, UpstreamConnection
from penstock.gateway.limits import ANSWER_BYTES, CONNECT_ATTEMPTS
from penstock.gateway.measure import Measure, engines_names, measure_plain, measure_stream
from penstock.gateway.offer import Target
from penstock.gateway.reply import Reply
from penstock.gateway.request import Request
from penstock.gateway.runtime import Principal
from penstock.gateway.select import cooling_last, rank, select
from penstock.gateway.tap import Tap
from penstock.gateway.till import Till
from penstock.kit.errors import ErrorCode, Refusal, Source

if TYPE_CHECKING:
    from penstock.gateway.server import Downstream
    from penstock.gateway.worker import Worker

_OK: Final = 200
_EVENT_STREAM: Final = b"text/event-stream"
_PLAIN_ENCODINGS: Final = frozenset({b"", b"identity"})
_NEVER: Final = float("inf")
_NO_USAGE: Final = Usage(0, 0)
_NOTHING_ELSE: Final[Iterator[Target]] = iter(())


class Exchange:
    """One admitted request.

    Args:
        worker: What it runs in.
        downstream: The caller's connection.
        request: The request; its body is not needed any more.
        principal: Who asks.
        admission: What was admitted.
    """

    __slots__ = (
        "_admission",
        "_answer_bytes",
        "_attempts",
        "_body",
        "_cap",
        "_connection",
        "_deadline_s",
        "_downstream",
        "_earlier",
        "_event_id",
        "_first_byte_ns",
        "_header_id",
        "_is_recorded",
        "_is_touched",
        "_late_error",
        "_pool",
        "_principal",
        "_ranked",
        "_reply",
        "_request",
        "_says",
        "_started_ns",
        "_taken",
        "_tap",
        "_total_deadline_s",
        "_tried",
        "_was_sent",
        "_worker",
        "is_settled",
        "request_id",
        "reserved_bytes",
    )

    def __init__(
        self,
        worker: "Worker",
        downstream: "Downstream",
        request: Request,
        principal: Principal,
        admission: Admission,
    ) -> None:
        """See the class."""
        self._worker = worker
        self._downstream = downstream
        self._request = request
        self._principal = principal
        self._admission = admission
        self._event_id = worker.event_ids.next()
        self.request_id = request.request_id or self._event_id
        self._reply = Reply(worker, downstream, request, self.request_id.encode("ascii"))
        self._started_ns = worker.wall_ns()
        self._first_byte_ns: int | None = None
        self._attempts = 0
        self._tried: tuple[Pool, ...] = ()
        self._earlier: tuple[Attempt, ...] = ()
        """What was given up for another endpoint."""
        self._header_id: bytes | None = None
        """What the head of the answer calls it."""
        self._says: Reading | None = None
        """What a whole plain answer says."""
        self._ranked: Iterator[Target] = _NOTHING_ELSE
        """Targets that may be tried yet, where there is a choice."""
        self._taken: Claim | Till | None = None
        """What it takes of limits, or took of, if there are any."""
        self._cap: int | None = None
        """The most output tokens to write into what is sent, because of a budget."""
        self._is_recorded = False
        """Its OPEN is on its way to the journal: a CLOSE has to follow."""
        self._pool: Pool | None = None
        self._connection: UpstreamConnection | None = None
        self._body: list[bytes] = []
        self._answer_bytes = 0
        self._tap: Tap | None = None
        self._is_touched = False
        self._was_sent = False
        self._late_error = CONNECT_TIMEOUT
        """What a missed deadline means in the phase that the exchange is in."""
        self._deadline_s = _NEVER
        self._total_deadline_s = _NEVER
        self.reserved_bytes = 0
        self.is_settled = False

    # Steps 4 and 5: select a target and an endpoint, forward the request

    def start(self) -> None:
        """Take what limits give; record the request as open; it is sent once that is written."""
        offer = self._admission.offer
        if offer.has_choice:
            ranked = rank(offer.tiers, self._admission.turn)
            self._ranked = cooling_last(ranked, self._worker.pools_of, self._worker.now_s)
            self._change_target()
        self._claim_or_open()

    def _claim_or_open(self) -> None:
        admission = self._admission
        demand, quota = admission.demand, self._principal.quota
        if demand is None or quota is None:
            self._open()
            return
        limiter = self._worker.limiter
        if self._taken is not None:  # of the target before
            limiter.settle(self._taken, demand, _NO_USAGE, was_sent=False, is_typical=False)
        target, now_s = admission.target, self._started_ns / 1e9
        till = limiter.draw(quota, target, demand, now_s)
        if till is None:
            self._taken = claim = limiter.claim(self, quota, target, demand, now_s)
            limiter.admit(claim)
            return
        self._taken, self._cap, self._reply.lines = till, till.cap, till.lines
        self._open()

    def let_in(self) -> None:
        """Go on: all that limits are asked for is taken."""
        claim = self._taken
        assert isinstance(claim, Claim)  # noqa: S101 - it is what is let in
        if claim.has_waited and not self._is_recorded:
            refusal = self._worker.refusal()
            if refusal is not None:  # it was another moment when it was admitted
                self._fail(refusal, outcome="refused")
                return
        self._reply.lines = claim.limit_lines()
        self._cap = cap = claim.written_cap
        if cap is not None:
            self._reply.lines += cap_line(cap)
        self._open()

    def turn_away(self, denial: Denial) -> None:
        """End: a limit or a budget says no."""
        if isinstance(self._taken, Claim):
            self._reply.lines = self._taken.limit_lines() + denial.lines
        self._fail(denial.refusal, outcome="refused", status=denial.status)

    def _open(self) -> None:
        admission = self._admission
        self._is_recorded = True
        target = admission.target
        self._worker.journal.open(
            Open(
                self._event_id,
                self.request_id,
                self._principal.organization,
                self._principal.project,
                self._principal.key_id,
                target.alias,
                target.deployment.model,
                target.upstream.name,
                admission.operation.name,
                admission.is_stream,
                self._started_ns,
                admission.estimated_input_tokens,
                () if self._taken is None else self._taken.hold_uses,
                self._request.labels,
                target.upstream.data_class,
                target.upstream.region,
            ),
            self,
        )

    def opened(self) -> None:
        """Send the request to an engine: its OPEN is written."""
        if self.is_settled:  # the caller left meanwhile
            return
        timeouts = self._admission.target.upstream.timeouts
        self._total_deadline_s = self._worker.now_s() + timeouts.total_ms / 1000
        if not self._attempts:
            self._worker.stats.overhead(perf_counter() - self._request.received_s)
        pool = self._select(self._admission.target)
        if pool is not None:
            self._acquire(pool)

    def _select(self, target: Target) -> Pool | None:
        worker = self._worker
        return select(worker.pools_of(target.upstream), self._tried, worker.now_s())

    def _change_target(self) -> bool:
        """Turn to the next target that has an endpoint to try; False when there is none."""
        for target in self._ranked:
            if self._select(target) is None:
                continue
            if target is self._admission.target:
                return True
            readdressed = form_of(self._admission).readdress(self._admission, target)
            if readdressed is not None:
                self._admission = readdressed
                return True
        return False

    def _acquire(self, pool: Pool) -> None:
        self._pool = pool
        self._attempts += 1
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
        upstream = self._admission.target.upstream
        self._deadline_s = self._worker.now_s() + upstream.timeouts.first_byte_ms / 1000
        head, body = form_of(self._admission).put(self._admission, pool, self._cap)
        self._was_sent = True
        connection.send(
            self,
            b"%b%bx-request-id: %b\r\n%bcontent-length: %d\r\n\r\n%b"
            % (
                head,
                self._admission.target.authorization,
                self.request_id.encode("ascii"),
                self._request.passed_lines(upstream),
                len(body),
                body,
            ),
        )
        if self._downstream.is_paused:
            connection.transport.pause_reading()

    def connect_failed(self, pool: Pool, refusal: Refusal) -> None:
        """Try another endpoint or target: nothing was sent yet, so nothing can happen twice."""
        if self.is_settled:
            return
        pool.in_flight -= 1
        self._pool = None
        self._tried = (*self._tried, pool)
        if refusal.error.retryable and len(self._tried) < CONNECT_ATTEMPTS:
            left_s = self._deadline_s - self._worker.now_s()
            attempt = given_up(pool.upstream, refusal, left_s, self._worker.wall_ns())
            another = self._select(self._admission.target)
            if another is not None:
                self._earlier = (*self._earlier, attempt)
                self._acquire(another)
                return
            # One more record is written: not into the room of others' CLOSE.
            if self._worker.journal.can_admit and self._change_target():
                self._earlier = (*self._earlier, attempt)
                self._deadline_s = _NEVER
                self._claim_or_open()
                return
        self._fail(refusal, outcome="timeout" if refusal.error is CONNECT_TIMEOUT else None)

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
        if (
            connection.status == _OK
            and connection.content_type[: len(_EVENT_STREAM)].lower() == _EVENT_STREAM
            and connection.content_encoding in _PLAIN_ENCODINGS
        ):
            self._tap = form_of(self._admission).make_tap(self._admission)

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
        if tap.error is not None and not self._reply.is_begun:
            self._fail(error_in_answer(tap.error))
            return
        if shown:
            self._reply.relay(shown)

    def answer_complete(self) -> None:
        """End well, or as what the engine's answer turned out to be."""
        connection = self._connection
        assert connection is not None  # noqa: S101 - it is who calls
        if self._tap is not None:
            self._end_stream(self._tap, connection)
        elif connection.status != _OK:
            form = form_of(self._admission)
            refusal = form.failure(self._admission, connection, b"".join(self._body))
            is_engines = refusal.error is REFUSED_BY_ENGINE
            is_passed = is_engines and connection.status in PASSED_STATUSES
            self._fail(refusal, status=connection.status if is_passed else None)
        else:
            self._end_plain(connection)

    def _end_stream(self, tap: Tap, connection: UpstreamConnection) -> None:
        rest = tap.finish()
        if not connection.has_length and not tap.is_done:
            self._fail(Refusal(CLOSED_EARLY))
            return
        if tap.error is not None and not self._reply.is_begun:
            self._fail(error_in_answer(tap.error))
            return
        if tap.is_empty:
            self._fail(Refusal(BAD_ANSWER))
            return
        self._reply.end_stream(rest)
        if tap.error is None:
            self._settle("ok", None)
        else:
            self._settle("upstream_error", FAILED)

    def _end_plain(self, connection: UpstreamConnection) -> None:
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        answer = None
        if connection.content_encoding in _PLAIN_ENCODINGS:
            with contextlib.suppress(msgspec.DecodeError, RecursionError, UnicodeDecodeError):
                form = form_of(self._admission)
                answer = form.read(self._admission, connection, body)
        if answer is None:
            self._fail(Refusal(BAD_ANSWER))
            return
        reading = answer.reading
        if reading.error is not None:
            self._fail(error_in_answer(reading.error))
            return
        self._reply.lines += answer.lines
        self._reply.end_plain(answer.body)
        self._says = reading
        if reading.text_bytes is not None:
            self._answer_bytes = reading.text_bytes
        self._settle("ok", None, (reading.usage, reading.flags))

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

    def _fail(
        self, refusal: Refusal, *, outcome: Outcome | None = None, status: int | None = None
    ) -> None:
        """End with an error answer, or with an error event and an abnormal end."""
        if self.is_settled:
            return
        error = refusal.error
        target = self._admission.target
        refusal = redacted(refusal, target.authorization, target.upstream.hosts)
        tap = self._tap
        self._reply.fail(
            refusal,
            status=status or error.status,
            is_inside_frame=tap is not None and tap.is_inside_frame,
        )
        if outcome is None:
            outcome = "refused" if error.source is Source.DOWNSTREAM else "upstream_error"
        self._settle(outcome, error)

    # Step 8: journal

    def _settle(
        self,
        outcome: Outcome,
        error: ErrorCode | None,
        reading: tuple[Usage | None, tuple[str, ...]] | None = None,
    ) -> None:
        """End the exchange: let go of the engine, record the usage, then release the last bytes."""
        if self.is_settled:
            return
        self.is_settled = True
        self._let_go()
        usage, source, flags = self._measure(outcome, reading)
        holds: tuple[HoldUse, ...] = ()
        taken, demand = self._taken, self._admission.demand
        if taken is not None and demand is not None:
            holds = self._worker.limiter.settle(
                taken,
                demand,
                usage,
                was_sent=self._was_sent,
                is_typical=outcome == "ok" and source == "engine",
            )
        if not self._is_recorded:
            if error is not None:
                self._worker.stats.refused(error)
            self.closed()
            return
        admission, principal, worker = self._admission, self._principal, self._worker
        upstream = admission.target.upstream
        engines_id, service_tier = engines_names(
            self._tap, self._says, self._header_id, self.request_id
        )
        event = UsageEvent(
            self._event_id,
            self.request_id,
            principal.organization,
            principal.project,
            principal.key_id,
            admission.target.alias,
            admission.target.deployment.model,
            upstream.name,
            admission.operation.name,
            admission.is_stream,
            outcome,
            self._reply.status,
            None if error is None else error.code,
            source,
            usage.input_tokens,
            usage.output_tokens,
            usage.cached_input_tokens,
            usage.reasoning_output_tokens,
            self._attempts,
            self._started_ns,
            self._first_byte_ns,
            worker.wall_ns(),
            flags,
            principal.secret_id,
            holds,
            self._request.labels,
            upstream.data_class if self._was_sent else "",
            upstream.region if self._was_sent else "",
            service_tier,
            engines_id,
            usage.cache_write_input_tokens,
            usage.audio_input_tokens,
            usage.audio_output_tokens,
            0,
            self._earlier,
        )
        worker.stats.ended(event)
        worker.journal.close(event, self)

    def _let_go(self) -> None:
        """Give up what is still under way with an engine."""
        pool, connection = self._pool, self._connection
        self._connection = None
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

    def _measure(
        self, outcome: Outcome, reading: tuple[Usage | None, tuple[str, ...]] | None
    ) -> Measure:
        estimated = self._admission.estimated_input_tokens
        tap = self._tap
        if tap is not None and (self._reply.is_begun or tap.usage is not None):
            return measure_stream(outcome, tap, estimated)
        return measure_plain(
            outcome,
            reading,
            self._admission.operation,
            estimated_input_tokens=estimated,
            answer_bytes=self._answer_bytes,
            was_sent=self._was_sent,
        )

    def closed(self) -> None:
        """Send the last bytes: the usage is on disk."""
        reply = self._reply
        self._downstream.end_exchange(self, reply.last_bytes, keep_alive=reply.keeps_alive)
