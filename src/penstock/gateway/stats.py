"""Counters of one worker: plain numbers on the hot path, what changed of them once a second."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Any, Final

from penstock.contract import metrics
from penstock.contract.finished import Trace
from penstock.contract.limits import Limit
from penstock.contract.metrics import Metric
from penstock.contract.node import Sample
from penstock.contract.node import Stats as Report
from penstock.contract.series import OTHER, Count, Histogram, Names, SeriesBook
from penstock.contract.usage import UsageEvent
from penstock.gateway.kinds import (
    DURATION_NS,
    FIRST_NS,
    TOKEN_NS,
    TOKENS,
    Key,
    Kind,
    Traced,
)
from penstock.kit.errors import ErrorCode, Source

_SERIES: Final = 10_000
"""Of one metric."""
_KINDS: Final = 10_000
"""Of requests, each with what it counts on at hand."""
_AT_ONCE: Final = 200
"""Kinds, and series, that are reported at once: a report must not hold up requests for long."""
_SIDES: Final = {
    Source.DOWNSTREAM: "caller",
    Source.INTERNAL: "gateway",
    Source.UPSTREAM: "engine",
}


class Stats:
    """What a worker counts since its start.

    Args:
        organizations: How many have series of their own.
        models: The same.
        upstreams: The same.
    """

    def __init__(self, organizations: int = 100, models: int = 50, upstreams: int = 100) -> None:
        """Start at zero."""
        self._book = SeriesBook(_SERIES)
        self._organizations = Names(organizations)
        self._models = Names(models)
        self._in_flight: dict[str, int] = {}
        """Requests under way, by model; there is no 0 in it."""
        self._in_flight_told: dict[str, int] = {}
        self.upstreams = Names(upstreams)
        """Which upstreams are shown by their names."""
        self._kinds: dict[tuple[str | bool, ...], Kind] = {}
        self._changed: list[Kind] = []
        self._errors: dict[str, Count] = {}
        # Few and in constant use: told each time.
        self._always = [
            self._book.histogram(metric)
            for metric in (metrics.OVERHEAD, metrics.LIMIT_WAIT, metrics.JOURNAL_SYNC)
        ]
        self.overhead, self.limit_waited, self.journal_synced = (
            histogram.observe for histogram in self._always
        )
        """Take the seconds between a request's last byte and its dispatch, those that a request
        waited to hear about its limits, and those that a sync of the journal took."""

    # What is counted

    def began(self, model: str) -> None:
        """Count a request in that is under way from now on."""
        self._in_flight[model] = self._in_flight.get(model, 0) + 1

    def over(self, model: str) -> None:
        """Count it out."""
        count = self._in_flight.pop(model) - 1
        if count:
            self._in_flight[model] = count

    def count_models(self) -> dict[str, int]:
        """Return how many requests of each model are under way, 0 where some were before."""
        counts = self._in_flight_told = dict.fromkeys(self._in_flight_told, 0)
        for model, count in self._in_flight.items():
            name = self._models.shown(model)
            counts[name] = counts.get(name, 0) + count
        return counts

    def refused(self, error: ErrorCode) -> None:
        """Count an error answer, or a stream that ended in an error."""
        count = self._errors.get(error.code)
        if count is None:
            labels = error.code, error.code.split(":")[2], _SIDES[error.source]
            count = self._errors[error.code] = self._book.count(metrics.ERRORS, *labels)
        count.value += 1

    def retried(self, upstream: str, reason: str) -> None:
        """Count an attempt that was given up for another endpoint."""
        self._book.add(metrics.RETRIES, self.upstreams.shown(upstream), reason)

    def placed(self, upstream: str, choice: str) -> None:
        """Count a request whose prompt's beginning was looked for among endpoints."""
        self._book.add(metrics.PREFIX_CHOICES, self.upstreams.shown(upstream), choice)

    def cache_asked(self, upstream: str, answer: str) -> None:
        """Count a request that was to be told what engines' caches have of its prompt."""
        self._book.add(metrics.CACHE_ANSWERS, self.upstreams.shown(upstream), answer)

    def limit_refused(self, organization: str, metric: str) -> None:
        """Count a request that a limit or a budget refused."""
        self._add_for(metrics.LIMIT_REFUSED, organization, metric)

    def limit_exceeded(self, organization: str, limit: Limit) -> None:
        """Count a rule that was exceeded and stopped nobody."""
        self._add_for(metrics.LIMIT_EXCEEDED, organization, limit.metric, limit.enforcement)

    def limit_unanswered(self, organization: str, limit: Limit) -> None:
        """Count a rule that nobody could be asked about, and that stopped nobody."""
        self._add_for(metrics.LIMIT_UNANSWERED, organization, limit.metric, limit.enforcement)

    def _add_for(self, metric: Metric, organization: str, *labels: str) -> None:
        self._book.add(metric, self._organizations.shown(organization), *labels)

    def ended(
        self,
        event: UsageEvent,
        provider: str,
        error: ErrorCode | None,
        *,
        is_limited: bool,
        trace: Trace | None = None,
    ) -> None:
        """Count a request that ended, whatever way.

        Args:
            event: What is known of it.
            provider: The kind of server that it was sent to.
            error: What went wrong.
            is_limited: Whether limits or budgets apply to it.
            trace: Where it belongs.
        """
        key = (
            event.organization,
            event.model,
            event.upstream,
            event.operation,
            event.is_stream,
            event.outcome,
            event.usage_source,
            provider,
            is_limited,
        )
        kind = self._kinds.get(key) or self._find(*key)
        if not kind.has_changed:
            kind.has_changed = True
            self._changed.append(kind)
        if error is not None:
            self.refused(error)
        inputs, outputs = event.input_tokens, event.output_tokens
        tally = kind.inputs
        tally[bisect_left(TOKENS, inputs)] += 1
        tally[-1] += inputs
        tally = kind.outputs
        tally[bisect_left(TOKENS, outputs)] += 1
        tally[-1] += outputs
        if (
            event.cached_input_tokens
            or event.reasoning_output_tokens
            or event.cache_write_input_tokens
            or event.audio_input_tokens
            or event.audio_output_tokens
        ):
            kind.add_parts(event)
        started_ns, first_ns = event.started_at_ns, event.first_byte_at_ns
        taken_ns = event.finished_at_ns - started_ns
        tally = kind.durations
        tally[bisect_left(DURATION_NS, taken_ns)] += 1
        tally[-1] += taken_ns
        if first_ns is not None:
            first_ns -= started_ns
            tally = kind.firsts
            tally[bisect_left(FIRST_NS, first_ns)] += 1
            tally[-1] += first_ns
            if event.is_stream and outputs > 1 and error is None:
                token_ns = (taken_ns - first_ns) // (outputs - 1)
                tally = kind.token_times
                tally[bisect_left(TOKEN_NS, token_ns)] += 1
                tally[-1] += token_ns
        if trace is not None and trace.is_sampled:
            slowest = kind.slowest
            if slowest is None or taken_ns > slowest.duration_ns:
                kind.slowest = Traced(taken_ns, first_ns, trace.trace_id, event.finished_at_ns)

    def _find(self, organization: str, model: str, upstream: str, *rest: Any) -> Kind:
        """Return what requests count on that are not a kind of their own, or not yet."""
        key = Key(
            self._organizations.shown(organization),
            self._models.shown(model),
            self.upstreams.shown(upstream),
            *rest,
        )
        kind = self._kinds.get(key)
        if kind is None and len(self._kinds) >= _KINDS:
            key = Key(OTHER, OTHER, OTHER, *rest)
            kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = Kind(self._book, key)
        return kind

    # What the agent is told

    def tell_always(self, histograms: Iterable[Histogram]) -> None:
        """Have these in each report."""
        self._always += histograms

    def forget_told(self) -> None:
        """Tell everything anew: whom it was told to is gone."""
        self._book.note_all()

    def reports(self, gauges: Iterable[Sample], *, is_ready: bool) -> Iterator[Report]:
        """Yield what changed since it was asked last, in parts between which other work is done.

        Args:
            gauges: What is so now: all of it is in the first part.
            is_ready: Whether the worker takes requests.
        """
        self._book.note(self._errors.values())
        self._book.note(self._always)
        figures = tuple(gauges)
        has_gauges = True
        while changed := self._take_changed():
            samples = tuple(each.sample() for each in changed if isinstance(each, Count))
            histograms = tuple(each.sample() for each in changed if isinstance(each, Histogram))
            yield Report((*figures, *samples), histograms, is_ready, has_gauges)
            figures, has_gauges = (), False

    def _take_changed(self) -> list[Count | Histogram]:
        kinds = self._changed[:_AT_ONCE]
        del self._changed[:_AT_ONCE]
        for kind in kinds:
            self._book.note(kind.move())
        return self._book.take_changed(_AT_ONCE)
