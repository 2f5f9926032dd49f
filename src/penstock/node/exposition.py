"""Shows totals in Prometheus' text form."""

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from penstock.contract.metrics import Metric
from penstock.node.stats import Totals

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


class NodeCollector(Collector):
    """Everything that a node shows, read anew at every scrape.

    Args:
        totals: Returns what the workers report, added up.
        own: Returns the agent's own figures, all without labels.
        labelled: Returns those of its figures that have a series for each of something.
    """

    def __init__(
        self,
        totals: Callable[[], Totals],
        own: Callable[[], Iterable[tuple[Metric, float]]],
        labelled: Callable[[], Iterable[tuple[Metric, dict[tuple[str, ...], float]]]],
    ) -> None:
        """See the class."""
        self._totals = totals
        self._own = own
        self._labelled = labelled

    def collect(self) -> Iterator[Family]:
        """Yield every metric once."""
        totals = self._totals()
        for metric in totals.metrics.values():
            yield (
                _histogram(metric, totals)
                if metric.kind == "histogram"
                else _family(metric, totals.values[metric.name])
            )
        for metric, value in self._own():
            yield _family(metric, {(): value})
        for metric, series in self._labelled():
            yield _family(metric, series)


def render(collector: NodeCollector) -> bytes:
    """Return the page of a scrape."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return generate_latest(registry)


def _family(
    metric: Metric, series: dict[tuple[str, ...], float]
) -> CounterMetricFamily | GaugeMetricFamily:
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    # A metric without labels is there from the start, so that 0 and "not there" differ.
    for labels, value in (series or ({} if metric.labels else {(): 0.0})).items():
        family.add_metric(labels, value)
    return family


def _histogram(metric: Metric, totals: Totals) -> HistogramMetricFamily:
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    bounds = [*map(str, metric.buckets), "+Inf"]
    for labels, sample in totals.histograms[metric.name].items():
        counts = accumulate(sample.counts)
        family.add_metric(labels, list(zip(bounds, counts, strict=True)), sample.sum)
    return family
