"""One admitted request on its way to an engine: steps 4 and 5, deadlines, and how it ends.

Which protocol is spoken there is for those who inherit from it; what is recorded of it, and its
only end, is in `record`.
"""

from abc import abstractmethod
from time import perf_counter
from typing import TYPE_CHECKING, Final

from penstock.contract.usage import Outcome
from penstock.engines.adapters import lacks_adapter
from penstock.gateway.admit import Admission
from penstock.gateway.dialects.errors import MODEL_NOT_FOUND
from penstock.gateway.endpoint import AnyEndpoint
from penstock.gateway.errors import (
    ADAPTER_UNAVAILABLE,
    BUG,
    CALLER_GONE,
    CONNECT_TIMEOUT,
    FIRST_BYTE_TIMEOUT,
    IDLE_TIMEOUT,
    INTERRUPTED,
    OVERLOADED,
    TOTAL_TIMEOUT,
)
from penstock.gateway.failure import BROKEN, RETRIED_STATUSES, redacted, too_long
from penstock.gateway.limits import ADAPTER_WAIT_S, READING_MOST, READING_TOKENS
from penstock.gateway.offer import Target
from penstock.gateway.record import Caller, RequestRecord
from penstock.gateway.request import Request
from penstock.gateway.runtime import Principal
from penstock.gateway.trace import engine_traceparent
from penstock.kit.errors import ErrorCode, Refusal, Source

if TYPE_CHECKING:
    from penstock.gateway.worker import Worker

_TOO_MANY_REQUESTS: Final = 429
NEVER: Final = float("inf")


class Dispatch(RequestRecord):
    """One admitted request on its way; see `RequestRecord` for its arguments."""

    __slots__ = (
        "_deadline_s",
        "_is_touched",
        "_late_error",
        "_pool",
        "_reading",
        "_total_deadline_s",
    )

    def __init__(
        self,
        worker: "Worker",
        downstream: Caller,
        request: Request,
        principal: Principal,
        admission: Admission,
    ) -> None:
        """See the class."""
        super().__init__(worker, downstream, request, principal, admission)
        self._pool: AnyEndpoint | None = None
        self._reading = 0
        """For how many requests more its prompt counts at its endpoint, while that reads it."""
        self._is_touched = False
        self._late_error = CONNECT_TIMEOUT
        """What a missed deadline means in the phase that the exchange is in."""
        self._deadline_s = NEVER
        self._total_deadline_s = NEVER

    # Steps 4 and 5: select a target and an endpoint, forward the request

    def start(self) -> None:
        """Take what limits give; record the request as open; it is sent once that is written."""
        self._worker.stats.began(self._admission.target.alias)
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
        if not target.is_told_of or not self._attempts.ask(self._admission, self._place):
            self._place()

    def _place(self) -> None:
        """Send the request to one of its target's endpoints."""
        if self.is_settled:  # the caller left while somebody was asked
            return
        target = self._admission.target
        pool = self._attempts.place(self._admission)
        if pool is None:
            self._await_adapter(target)
            return
        if not self._attempts.count:
            overhead_s = perf_counter() - self._request.received_s
            if self._late_error is not ADAPTER_UNAVAILABLE:  # it did not wait for an engine
                self._worker.stats.overhead(overhead_s)
            self._dispatched_ns = self._worker.wall_ns()
            self._received_ns = self._dispatched_ns - int(overhead_s * 1e9)
            pool.retries.requests += 1
        self._acquire(pool)

    def _await_adapter(self, target: Target) -> None:
        """Wait until an endpoint has the target's adapter, or go to another: no endpoint has it."""
        worker, attempts = self._worker, self._attempts
        if attempts.can_come(target):
            if self._late_error is not ADAPTER_UNAVAILABLE:
                self._late_error = ADAPTER_UNAVAILABLE
                self._deadline_s = worker.now_s() + ADAPTER_WAIT_S
            if worker.adapters.wait(self, target):
                return
        another = attempts.next_target(self._admission) if worker.journal.can_admit else None
        if another is not None:
            self._admission = another
            self._claim_or_open()
        elif target.deployment.adapter_path is None:
            self._fail(Refusal(MODEL_NOT_FOUND, param="model"))
        else:
            self._fail(Refusal(ADAPTER_UNAVAILABLE))

    def _acquire(self, pool: AnyEndpoint) -> None:
        self._pool = pool
        self._attempts.begun(pool)
        units = self._admission.estimated_input_tokens // READING_TOKENS
        self._reading = min(units, READING_MOST)
        pool.take(self._reading)
        self._late_error = CONNECT_TIMEOUT
        connect_ms = self._admission.target.upstream.timeouts.connect_ms
        self._deadline_s = self._worker.now_s() + connect_ms / 1000
        pool.acquire(self)

    def _traceparent(self) -> bytes | None:
        """Return what the engine is told of the trace that the request belongs to."""
        trace = self._trace
        if trace is None or not trace.span_id:
            return self._request.traceparent
        return engine_traceparent(trace, self._attempts.count)

    def _sent(self) -> None:
        """Take note that an engine is sent the request: it has to answer in time."""
        self._was_sent = True
        self._late_error = FIRST_BYTE_TIMEOUT
        self._deadline_s = self._worker.now_s() + self._first_byte_s

    @property
    def _first_byte_s(self) -> float:
        """How long the engine may take to answer."""
        admission = self._admission
        timeouts = admission.target.upstream.timeouts
        per_1k_ms = timeouts.first_byte_ms_per_1k_tokens
        prefill_ms = per_1k_ms and per_1k_ms * admission.estimated_input_tokens / 1000
        return (timeouts.first_byte_ms + prefill_ms) / 1000

    def _began(self) -> None:
        """Take note that the answer has begun."""
        self._first_byte_ns = self._worker.wall_ns()
        self._late_error = IDLE_TIMEOUT
        self._is_touched = True
        self._deadline_s = NEVER

    def _has_read(self) -> None:
        """Take note that the engine is through with the prompt: it writes."""
        if self._reading and self._pool is not None:
            self._pool.reading -= self._reading
            self._reading = 0

    def _leave(self, pool: AnyEndpoint) -> None:
        """Count the request out of its endpoint."""
        pool.free(self._reading)
        self._reading = 0

    def connect_failed(self, pool: AnyEndpoint, refusal: Refusal) -> None:
        """Try another endpoint or target: nothing was sent yet, so nothing can happen twice."""
        if self.is_settled:
            return
        self._leave(pool)
        self._pool = None
        if refusal.error.retryable and self._try_another(pool, refusal):
            return
        refusal = self._attempts.verdict(refusal)
        self._fail(refusal, outcome="timeout" if refusal.error is CONNECT_TIMEOUT else None)

    def _try_another(self, pool: AnyEndpoint, refusal: Refusal) -> bool:
        """Give an endpoint up for another, of this target or the next; False when there is none."""
        attempts, worker = self._attempts, self._worker
        if not attempts.failed(pool, refusal) or worker.now_s() >= self._total_deadline_s:
            return False
        admission = self._admission
        another = attempts.place(admission)
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
        self._deadline_s = NEVER

    def _adapter_gone(self, status: int | None, refusal: Refusal) -> Refusal:
        """Return what an answer means when the engine says that it lacks the adapter by now."""
        target, pool = self._admission.target, self._pool
        if not target.is_adapter or not lacks_adapter(status, refusal.detail or ""):
            return refusal
        assert pool is not None  # noqa: S101 - it is who answered
        if pool.adapters is not None:  # of others there nothing is known as before
            pool.adapters -= {target.deployment.model}
        return Refusal(ADAPTER_UNAVAILABLE)

    def _sent_elsewhere(self, status: int | None, refusal: Refusal) -> bool:
        """Send what an engine had no room for to another; False when there is none, or no budget.

        Args:
            status: What it answered; nothing of that was shown to the caller.
            refusal: What that means.
        """
        pool = self._pool
        assert pool is not None  # noqa: S101 - it is who answered
        if refusal.error in BROKEN:
            self._blame_engine()
        if status not in RETRIED_STATUSES and refusal.error is not ADAPTER_UNAVAILABLE:
            return False
        if refusal.retry_after_s and status != _TOO_MANY_REQUESTS:  # which may be its owner's
            pool.rest(refusal.retry_after_s)
        if not pool.retries.is_left or not self._try_another(pool, self._redacted(refusal)):
            return False
        pool.retries.take()
        return True

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
        if pool is None or self._was_sent:
            if pool is not None and self._late_error is FIRST_BYTE_TIMEOUT:
                pool.health.failed()
            self._fail(Refusal(self._late_error), outcome="timeout")
            return
        pool.too_slow(self)
        self.connect_failed(pool, Refusal(CONNECT_TIMEOUT))

    def _too_long(self, refusal: Refusal) -> Refusal:
        """Return what an engine's failure is when the request was too long for its model."""
        admission = self._admission
        place = admission.target.upstream.name, admission.target.deployment.base_model
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
        error = refusal.error
        if not self._reply.is_begun:
            self._first_byte_ns = None  # of an answer that nobody got: it is not paid for
        if outcome is None:
            outcome = "refused" if error.source is Source.DOWNSTREAM else "upstream_error"
        try:
            self._tell_failure(refusal, status)
        except Exception as bug:  # noqa: BLE001  # its caller would wait until it leaves
            self._log_bug(bug)
            error = BUG
            self._reply.break_off()
        finally:
            self._settle(outcome, error)

    def _tell_failure(self, refusal: Refusal, status: int | None) -> None:
        """Make what the caller is told, and tell who else has to know."""
        error, tap = refusal.error, self._tap
        if error in BROKEN:
            self._blame_engine()
        self._dropped_reason = refusal.reason
        if error is OVERLOADED:
            status = self._worker.overloaded_status
        self._reply.fail(
            self._redacted(refusal),
            status=status or error.status,
            is_inside_frame=tap is not None and tap.is_inside_frame,
        )

    # What an exchange of each protocol does

    @abstractmethod
    def _blame_engine(self) -> None:
        """Count against its endpoint that an answer says that the engine is broken; once."""

    @abstractmethod
    def pause(self) -> None:
        """Stop reading from the engine: the caller is slower."""

    @abstractmethod
    def resume(self) -> None:
        """Read from the engine again."""
