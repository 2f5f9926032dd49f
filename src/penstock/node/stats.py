"""Adds up what workers report, over slots and over workers that are no more: pure.

Workers report totals since their start, as far as they changed. Counters of a dead worker stay in
the sums, so that no total ever goes down while the agent lives; its gauges leave with it.
"""

import math
from collections.abc import Iterable, Iterator

from penstock.contract.exposition import Family
from penstock.contract.metrics import WORKER_METRICS, Metric
from penstock.contract.node import HistogramSample, Sample, Stats
from penstock.contract.series import Labels, Places

MAX_SERIES = 10_000
"""Series of one metric."""

WorkerKey = tuple[int, int]
"""Slot and epoch."""
AGENT: WorkerKey = (-1, 0)
"""The agent itself, which has some of these metrics, too."""
_Place = tuple[str, Labels]
"""A metric's name and labels."""


class _Told:
    """What a living worker told last."""

    __slots__ = ("counters", "gauges", "histograms", "is_ready")

    def __init__(self) -> None:
        self.counters: dict[_Place, float] = {}
        self.histograms: dict[_Place, HistogramSample] = {}
        self.gauges: dict[_Place, float] = {}
        self.is_ready = False


class StatsBook:
    """The sums over all workers, living and dead, of the metrics that exist.

    Samples that cannot be (unknown name, wrong number of labels or buckets, not a number,
    negative) are left out: a worker of another version must not break the node's figures.

    Args:
        most: Series of one metric; what comes later is added to one that is called `other`.
        metrics: Those that exist.
    """

    def __init__(self, most: int = MAX_SERIES, metrics: Iterable[Metric] = WORKER_METRICS) -> None:
        """See the class."""
        self._metrics = {metric.name: metric for metric in metrics}
        self._places = Places(most)
        self._counters: dict[str, dict[Labels, float]] = {name: {} for name in self._metrics}
        self._histograms: dict[str, dict[Labels, HistogramSample]] = {
            name: {} for name in self._metrics
        }
        self._living: dict[WorkerKey, _Told] = {}
        self._retired: set[WorkerKey] = set()

    def report(self, worker: WorkerKey, stats: Stats) -> None:
        """Take a worker's report, which replaces what it said before; of a dead worker, nothing."""
        if worker in self._retired:
            return
        told = self._living.setdefault(worker, _Told())
        told.is_ready = stats.is_ready
        if stats.has_gauges:
            told.gauges.clear()
        for sample in stats.samples:
            self._add_sample(told, sample)
        for histogram in stats.histograms:
            self._add_histogram(told, histogram)

    def _add_sample(self, told: _Told, sample: Sample) -> None:
        metric, value = self._metrics.get(sample.name), sample.value
        if metric is None or metric.kind == "histogram" or not _is_sane(value):
            return
        if len(sample.labels) != len(metric.labels):
            return
        place = sample.name, sample.labels
        labels = self._places.labels_for(*place)
        if metric.kind == "gauge":
            place = sample.name, labels
            told.gauges[place] = told.gauges.get(place, 0.0) + value
            return
        more = value - told.counters.get(place, 0.0)
        if more >= 0:
            told.counters[place] = value
            series = self._counters[sample.name]
            series[labels] = series.get(labels, 0.0) + more

    def _add_histogram(self, told: _Told, added: HistogramSample) -> None:
        metric = self._metrics.get(added.name)
        if metric is None or metric.kind != "histogram" or not _is_sane(added.sum):
            return
        has_form = len(added.labels) == len(metric.labels)
        has_form = has_form and len(added.counts) == len(metric.buckets) + 1
        if not has_form or min(added.counts) < 0:
            return
        place = added.name, added.labels
        before = told.histograms.get(place)
        if before is not None and sum(added.counts) < sum(before.counts):
            return
        told.histograms[place] = added
        labels = self._places.labels_for(*place)
        series = self._histograms[added.name]
        total = series.get(labels)
        if total is None:
            total = HistogramSample(added.name, labels, (0,) * len(added.counts), 0.0)
        counts, more = map(int.__add__, total.counts, added.counts), added.sum
        exemplars = {one.bucket: one for one in (*total.exemplars, *added.exemplars)}
        if before is not None:
            counts, more = map(int.__sub__, counts, before.counts), more - before.sum
        series[labels] = HistogramSample(
            added.name, labels, tuple(counts), total.sum + more, tuple(exemplars.values())
        )

    def retire(self, worker: WorkerKey) -> None:
        """Keep a dead worker's counters for ever and forget its gauges."""
        self._retired.add(worker)
        self._living.pop(worker, None)

    @property
    def ready_count(self) -> int:
        """How many workers take requests, as they said themselves."""
        return sum(told.is_ready for told in self._living.values())

    def families(self) -> Iterator[Family]:
        """Yield each metric, with the sums of the moment in which it is asked for."""
        for name, metric in self._metrics.items():
            values = self._gauges(name) if metric.kind == "gauge" else self._counters[name]
            yield Family(metric, values, self._histograms[name])

    def _gauges(self, name: str) -> dict[Labels, float]:
        sums: dict[Labels, float] = {}
        for told in self._living.values():
            for (metric, labels), value in told.gauges.items():
                if metric == name:
                    sums[labels] = sums.get(labels, 0.0) + value
        return sums


def _is_sane(value: float) -> bool:
    return math.isfinite(value) and value >= 0
