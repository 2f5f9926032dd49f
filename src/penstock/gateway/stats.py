"""Counters of one worker: plain numbers on the hot path, samples once a second."""

from bisect import bisect_left
from collections import defaultdict

from penstock.contract import metrics
from penstock.contract.limits import Limit
from penstock.contract.node import HistogramSample, Sample
from penstock.contract.usage import UsageEvent
from penstock.kit.errors import ErrorCode


class _Histogram:
    __slots__ = ("_buckets", "_counts", "_metric", "_sum")

    def __init__(self, metric: metrics.Metric) -> None:
        self._metric = metric
        self._buckets = metric.buckets
        self._counts = [0] * (len(metric.buckets) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(self._buckets, seconds)] += 1
        self._sum += seconds

    def sample(self) -> HistogramSample:
        return HistogramSample(self._metric.name, (), tuple(self._counts), self._sum)


class Stats:
    """What a worker counts since its start."""

    def __init__(self) -> None:
        """Start at zero."""
        self._requests: dict[tuple[str, ...], int] = defaultdict(int)
        self._input_tokens: dict[tuple[str, ...], int] = defaultdict(int)
        self._output_tokens: dict[tuple[str, ...], int] = defaultdict(int)
        self._errors: dict[str, int] = defaultdict(int)
        self._retries: dict[tuple[str, ...], int] = defaultdict(int)
        self._overhead = _Histogram(metrics.OVERHEAD)
        self._first_byte = _Histogram(metrics.FIRST_BYTE)
        self.overhead = self._overhead.observe
        """Takes the seconds between a request's last byte and its dispatch."""
        self._limit_refused: dict[tuple[str, ...], int] = defaultdict(int)
        self._limit_exceeded: dict[tuple[str, ...], int] = defaultdict(int)
        self._limit_unanswered: dict[tuple[str, ...], int] = defaultdict(int)
        self._limit_wait = _Histogram(metrics.LIMIT_WAIT)
        self.limit_waited = self._limit_wait.observe
        """Takes the seconds that a request waited to hear about its limits."""

    def refused(self, error: ErrorCode) -> None:
        """Count a request that was refused before it was dispatched."""
        self._errors[error.code] += 1

    def retried(self, upstream: str, reason: str) -> None:
        """Count an attempt that was given up for another endpoint."""
        self._retries[upstream, reason] += 1

    def limit_refused(self, organization: str, metric: str) -> None:
        """Count a request that a limit or a budget refused."""
        self._limit_refused[organization, metric] += 1

    def limit_exceeded(self, organization: str, limit: Limit) -> None:
        """Count a rule that was exceeded and stopped nobody."""
        self._limit_exceeded[organization, limit.metric, limit.enforcement] += 1

    def limit_unanswered(self, organization: str, limit: Limit) -> None:
        """Count a rule that nobody could be asked about, and that stopped nobody."""
        self._limit_unanswered[organization, limit.metric, limit.enforcement] += 1

    def ended(self, event: UsageEvent) -> None:
        """Count a request that ended, whatever way."""
        organization, model, source = event.organization, event.model, event.usage_source
        self._requests[organization, model, event.operation, event.outcome] += 1
        tokens = (organization, model, source)
        self._input_tokens[tokens] += event.input_tokens
        self._output_tokens[tokens] += event.output_tokens
        if event.error_code is not None:
            self._errors[event.error_code] += 1
        if event.first_byte_at_ns is not None:
            self._first_byte.observe((event.first_byte_at_ns - event.started_at_ns) / 1e9)

    def samples(self) -> list[Sample]:
        """Return every counter."""
        found = [
            Sample(metric.name, labels, value)
            for metric, values in (
                (metrics.REQUESTS, self._requests),
                (metrics.INPUT_TOKENS, self._input_tokens),
                (metrics.OUTPUT_TOKENS, self._output_tokens),
                (metrics.RETRIES, self._retries),
                (metrics.LIMIT_REFUSED, self._limit_refused),
                (metrics.LIMIT_EXCEEDED, self._limit_exceeded),
                (metrics.LIMIT_UNANSWERED, self._limit_unanswered),
            )
            for labels, value in values.items()
        ]
        found += [
            Sample(metrics.ERRORS.name, (code,), count) for code, count in self._errors.items()
        ]
        return found

    def histograms(self) -> list[HistogramSample]:
        """Return every histogram."""
        return [self._overhead.sample(), self._first_byte.sample(), self._limit_wait.sample()]
