"""Adds up what workers report, over slots and over workers that are no more: pure.

Workers report totals since their start. Counters of a dead worker stay in the sums, so that no
total ever goes down while the agent lives; its gauges leave with it.
"""

import math
from collections.abc import Iterable

from penstock.contract.metrics import WORKER_METRICS, Metric
from penstock.contract.node import HistogramSample, Stats

MAX_SERIES = 1_000
"""Series of one metric; what comes later is added to one series with this label everywhere:"""
OTHER = "other"

Labels = tuple[str, ...]
WorkerKey = tuple[int, int]
"""Slot and epoch."""


class Totals:
    """Sums of samples and histograms of the metrics that exist.

    Samples that cannot be (unknown name, wrong number of labels or buckets, not a number,
    negative) are left out: a worker of another version must not break the node's figures.
    """

    def __init__(self, metrics: Iterable[Metric] = WORKER_METRICS) -> None:
        """Start at nothing."""
        self.metrics = {metric.name: metric for metric in metrics}
        self.values: dict[str, dict[Labels, float]] = {name: {} for name in self.metrics}
        self.histograms: dict[str, dict[Labels, HistogramSample]] = {
            name: {} for name in self.metrics
        }

    def add(self, stats: Stats, admitted: "Series", *, with_gauges: bool) -> None:
        """Add a worker's totals.

        Args:
            stats: What it reported last.
            admitted: Decides which labels have a series of their own.
            with_gauges: Whether its gauges count, too.
        """
        for sample in stats.samples:
            metric = self.metrics.get(sample.name)
            if metric is None or metric.kind == "histogram" or not _is_sane(sample.value):
                continue
            if len(sample.labels) != len(metric.labels):
                continue
            if metric.kind == "gauge" and not with_gauges:
                continue
            labels = admitted.labels_for(sample.name, sample.labels)
            series = self.values[sample.name]
            series[labels] = series.get(labels, 0.0) + sample.value
        for histogram in stats.histograms:
            self._add_histogram(histogram, admitted)

    def _add_histogram(self, added: HistogramSample, admitted: "Series") -> None:
        metric = self.metrics.get(added.name)
        if metric is None or metric.kind != "histogram" or not _is_sane(added.sum):
            return
        has_form = len(added.labels) == len(metric.labels)
        has_form = has_form and len(added.counts) == len(metric.buckets) + 1
        if not has_form or min(added.counts) < 0:
            return
        labels = admitted.labels_for(added.name, added.labels)
        series = self.histograms[added.name]
        before = series.get(labels)
        if before is None:
            series[labels] = HistogramSample(added.name, labels, added.counts, added.sum)
        else:
            counts = tuple(map(int.__add__, before.counts, added.counts))
            series[labels] = HistogramSample(added.name, labels, counts, before.sum + added.sum)


class Series:
    """Which labels have a series of their own: the first that came, and they stay."""

    def __init__(self, limit: int = MAX_SERIES) -> None:
        """Start with none.

        Args:
            limit: Series of one metric.
        """
        self._limit = limit
        self._admitted: dict[str, set[Labels]] = {}

    def labels_for(self, name: str, labels: Labels) -> Labels:
        """Return the labels to count under: the same, or `other` everywhere."""
        admitted = self._admitted.setdefault(name, set())
        if labels in admitted:
            return labels
        if len(admitted) < self._limit:
            admitted.add(labels)
            return labels
        return (OTHER,) * len(labels)


class StatsBook:
    """The last report of every living worker, and the sums of the dead."""

    def __init__(self, series: Series | None = None) -> None:
        """Start with no worker."""
        self._series = series or Series()
        self._living: dict[WorkerKey, Stats] = {}
        self._dead = Totals()
        self._retired: set[WorkerKey] = set()

    def report(self, worker: WorkerKey, stats: Stats) -> None:
        """Take a worker's report, which replaces its last one; of a dead worker, nothing."""
        if worker not in self._retired:
            self._living[worker] = stats

    def retire(self, worker: WorkerKey) -> None:
        """Keep a dead worker's counters for ever and forget its gauges."""
        self._retired.add(worker)
        stats = self._living.pop(worker, None)
        if stats is not None:
            self._dead.add(stats, self._series, with_gauges=False)

    @property
    def ready_count(self) -> int:
        """How many workers take requests, as they said themselves."""
        return sum(stats.is_ready for stats in self._living.values())

    def totals(self) -> Totals:
        """Return the sums of now."""
        totals = Totals()
        for name, series in self._dead.values.items():
            totals.values[name].update(series)
        for name, histograms in self._dead.histograms.items():
            totals.histograms[name].update(histograms)
        for stats in self._living.values():
            totals.add(stats, self._series, with_gauges=True)
        return totals


def _is_sane(value: float) -> bool:
    return math.isfinite(value) and value >= 0
