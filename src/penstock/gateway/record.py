"""What the journal is told of one admitted request: OPEN before it leaves, CLOSE behind its end.

And what it takes of limits meanwhile. `_settle` runs once, however the request ends: it is the only
place that ends it, and the last bytes of the answer wait until its usage event is written.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final, Protocol

from penstock.contract.finished import Course
from penstock.contract.journal import Open
from penstock.contract.money import HoldUse
from penstock.contract.usage import Outcome, UsageEvent
from penstock.gateway import log_events
from penstock.gateway.admit import Admission
from penstock.gateway.attempts import Attempts
from penstock.gateway.claim import Claim, Denial, cap_line
from penstock.gateway.dialects.openai import Reading
from penstock.gateway.dialects.openai_usage import Usage
from penstock.gateway.errors import INTERRUPTED
from penstock.gateway.measure import Measure, engines_names, measure_plain, measure_stream
from penstock.gateway.reply import Reply
from penstock.gateway.request import Request
from penstock.gateway.runtime import Principal
from penstock.gateway.tap import Tap
from penstock.gateway.till import Till
from penstock.kit.errors import ErrorCode, Refusal

if TYPE_CHECKING:
    from penstock.gateway.worker import Worker

_NO_USAGE: Final = Usage(0, 0)


class Caller(Protocol):
    """Who sees the answer, and how fast."""

    is_paused: bool
    """It takes the answer more slowly than it comes."""

    def write(self, data: bytes) -> None:
        """Send a piece of the answer at once."""


class RequestRecord(ABC):
    """One admitted request as it is recorded; an `Exchange` is what happens to it.

    A base class and no part of it, since each object that a request makes is paid for by all.

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
        "_cap",
        "_denial",
        "_dispatched_ns",
        "_downstream",
        "_dropped_reason",
        "_event_id",
        "_first_byte_ns",
        "_header_id",
        "_is_recorded",
        "_principal",
        "_received_ns",
        "_reply",
        "_request",
        "_says",
        "_started_ns",
        "_taken",
        "_tap",
        "_trace",
        "_was_sent",
        "_worker",
        "is_settled",
        "request_id",
        "reserved_bytes",
    )

    _make_reply: type[Reply] = Reply

    def __init__(
        self,
        worker: "Worker",
        downstream: Caller,
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
        self._reply = self._make_reply(worker, downstream, request, self.request_id.encode("ascii"))
        self._trace = worker.tracer.begin(request.traceparent)
        self._started_ns = worker.wall_ns()
        self._received_ns = self._dispatched_ns = 0
        self._first_byte_ns: int | None = None
        self._attempts = Attempts(worker, self._started_ns)
        self._header_id: bytes | None = None
        """What the head of the answer calls it."""
        self._dropped_reason = ""
        """In the word of who dropped it behind the upstream."""
        self._says: Reading | None = None
        """What a whole plain answer says."""
        self._taken: Claim | Till | None = None
        """What it takes of limits, or took of, if there are any; None once that is settled."""
        self._denial: Denial | None = None
        self._cap: int | None = None
        """The most output tokens to write into what is sent, because of a budget."""
        self._is_recorded = False
        """Its OPEN is on its way to the journal: a CLOSE has to follow."""
        self._answer_bytes = 0
        self._tap: Tap | None = None
        self._was_sent = False
        self.reserved_bytes = 0
        self.is_settled = False

    # What it takes of limits, and its OPEN

    def _claim_or_open(self) -> None:
        admission = self._admission
        demand, quota = admission.demand, self._principal.quota
        if demand is None or quota is None:
            self._open()
            return
        limiter = self._worker.limiter
        target, now_s = admission.target, self._started_ns / 1e9
        if self._taken is not None:  # for the target before
            if limiter.covers(self._taken, quota, target, demand, now_s):
                self._open()
                return
            limiter.settle(self._taken, demand, _NO_USAGE, was_sent=False, is_typical=False)
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
        self._denial = denial
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
                self._trace,
            ),
            self,
        )

    # Its end

    def _settle(self, outcome: Outcome, error: ErrorCode | None) -> None:
        """End the exchange: let go of the engine, record the usage, then release the last bytes."""
        if self.is_settled:
            return
        self.is_settled = True
        is_limited = self._taken is not None
        holds: tuple[HoldUse, ...] = ()
        try:
            self._worker.stats.over(self._admission.target.alias)
            self._let_go()
            measure = usage, source, _ = self._measure(outcome)
            if is_limited:
                is_typical = outcome == "ok" and source == "engine"
                holds = self._give_back(usage, is_typical=is_typical)
            self._tell_end(outcome, error, measure, holds, is_limited=is_limited)
        except Exception as bug:  # noqa: BLE001  # a bug must not keep what the request took
            self._end_broken(bug, holds, is_limited=is_limited)

    def _end_broken(self, bug: Exception, holds: tuple[HoldUse, ...], *, is_limited: bool) -> None:
        """Settle what a bug kept from being settled: as for one whose worker died.

        Args:
            bug: What was raised.
            holds: What of which hold was spent, if that was settled.
            is_limited: Whether limits or budgets apply to it.
        """
        self._log_bug(bug)
        self._tap = self._says = self._header_id = None  # it may be what the engine said
        measure = self._measure("interrupted")
        if self._taken is not None:
            holds = self._give_back(measure[0], is_typical=False)
        self._tell_end("interrupted", INTERRUPTED, measure, holds, is_limited=is_limited)

    def _log_bug(self, bug: Exception) -> None:
        log_events.REQUEST_FAILED.log(bug=bug, request_id=self.request_id, trace_id=self.trace_id)

    def _tell_end(
        self,
        outcome: Outcome,
        error: ErrorCode | None,
        measure: Measure,
        holds: tuple[HoldUse, ...],
        *,
        is_limited: bool,
    ) -> None:
        """Count and record the end; the last bytes leave behind that."""
        worker = self._worker
        if self._is_recorded:
            event = self._event(outcome, error, measure, holds)
            provider = self._admission.target.upstream.settings.provider
            worker.stats.ended(event, provider, error, is_limited=is_limited, trace=self._trace)
            worker.journal.close(event, self, self._course(error))
            return
        if error is not None:
            worker.stats.refused(error)
            if worker.refusals.take_another():
                event = self._event(outcome, error, measure, holds)
                worker.refusals.add(event, self._course(error))
        self.closed()

    def _event(
        self,
        outcome: Outcome,
        error: ErrorCode | None,
        measure: Measure,
        holds: tuple[HoldUse, ...],
    ) -> UsageEvent:
        usage, source, flags = measure
        admission, principal = self._admission, self._principal
        upstream = admission.target.upstream
        engines_id, service_tier = engines_names(
            self._tap, self._says, self._header_id, self.request_id
        )
        return UsageEvent(
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
            self._attempts.count,
            self._started_ns,
            self._first_byte_ns,
            self._worker.wall_ns(),
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
            usage.images,
            self._attempts.earlier,
            usage.audio_seconds,
            usage.characters,
        )

    def _course(self, error: ErrorCode | None) -> Course:
        return Course(
            self._trace,
            self._received_ns,
            self._dispatched_ns,
            self._attempts.endpoints,
            self._request.body_bytes,
            self._reply.shown_bytes,
            "" if error is None else error.source,
            None if self._denial is None else self._denial.by,
            self._admission.target.upstream.settings.provider,
            self._dropped_reason,
        )

    def _give_back(self, usage: Usage, *, is_typical: bool) -> tuple[HoldUse, ...]:
        """Settle what was taken of limits, once; return what of which hold was spent."""
        demand, taken = self._admission.demand, self._taken
        assert demand is not None  # noqa: S101 - it is why something was taken
        assert taken is not None  # noqa: S101 - checked by the caller
        self._taken = None
        return self._worker.limiter.settle(
            taken, demand, usage, was_sent=self._was_sent, is_typical=is_typical
        )

    def _measure(self, outcome: Outcome) -> Measure:
        estimated = self._admission.estimated_input_tokens
        tap = self._tap
        if tap is not None and (self._reply.is_begun or tap.usage is not None):
            return measure_stream(outcome, tap, estimated)
        return measure_plain(
            outcome,
            self._says,
            self._admission.operation,
            estimated_input_tokens=estimated,
            answer_bytes=self._answer_bytes,
            was_sent=self._was_sent,
        )

    @property
    def trace_id(self) -> str:
        """The trace that it belongs to; "" when there is none."""
        return "" if self._trace is None else self._trace.trace_id

    def describe(self, now_ns: int) -> dict[str, Any]:
        """Return what an operator may know of it while it is under way: no content, no key.

        Args:
            now_ns: Nanoseconds since the Unix epoch.
        """
        target, first_ns = self._admission.target, self._first_byte_ns
        return {
            "request_id": self.request_id,
            "event_id": self._event_id,
            "organization": self._principal.organization,
            "project": self._principal.project,
            "model": target.alias,
            "upstream": target.upstream.name,
            "attempts": self._attempts.count,
            "age_ms": (now_ns - self._started_ns) // 1_000_000,
            "first_byte_ms": None
            if first_ns is None
            else (first_ns - self._started_ns) // 1_000_000,
            "state": self._state(),
            "is_paused": self._downstream.is_paused,
        }

    def _state(self) -> str:
        """Return how far it is, in a word."""
        if self.is_settled:
            return "ending"
        if self._reply.is_begun:
            return "streaming"
        if self._was_sent:
            return "answering"
        return "connecting" if self._is_recorded else "limits"

    # What an exchange does

    @abstractmethod
    def closed(self) -> None:
        """Send the last bytes: the usage is on disk."""

    @abstractmethod
    def opened(self) -> None:
        """Send the request to an engine: its OPEN is written."""

    @abstractmethod
    def _let_go(self) -> None:
        """Give up what is still under way with an engine."""

    @abstractmethod
    def _fail(
        self, refusal: Refusal, *, outcome: Outcome | None = None, status: int | None = None
    ) -> None:
        """End with an error answer, or with an error event and an abnormal end."""
