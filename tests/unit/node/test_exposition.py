"""The page that Prometheus reads."""

from prometheus_client.parser import text_string_to_metric_families

from penstock.contract.metrics import OVERHEAD, REQUESTS, WORKER_METRICS, Metric
from penstock.contract.node import HistogramSample, Sample, Stats
from penstock.node.exposition import NodeCollector, render
from penstock.node.metrics import AGENT_METRICS, ENDPOINT_READY, WORKERS
from penstock.node.stats import StatsBook


def page(*reports: Stats) -> str:
    """Return the page after these workers' reports."""
    book = StatsBook()
    for slot, report in enumerate(reports):
        book.report((slot, 1), report)
    own = [(metric, 1.0) for metric in AGENT_METRICS if not metric.labels]
    labelled: dict[Metric, dict[tuple[str, ...], float]]
    labelled = {metric: {} for metric in AGENT_METRICS if metric.labels}
    labelled[ENDPOINT_READY] = {("gpu", "http://10.0.0.1:8000"): 0.0}
    return render(NodeCollector(book.totals, lambda: own, labelled.items)).decode()


def test_every_metric_is_on_the_page_from_the_start() -> None:
    """Each declared metric has its help and type before the first request."""
    text = page()
    for metric in (*WORKER_METRICS, *AGENT_METRICS):
        assert f"# TYPE {metric.name} {metric.kind}" in text
    assert "penstock_requests_in_flight 0.0" in text
    assert f"{WORKERS.name} 1.0" in text
    assert f'{ENDPOINT_READY.name}{{endpoint="http://10.0.0.1:8000",upstream="gpu"}} 0.0' in text


def test_the_page_reads_as_it_was_meant() -> None:
    """Prometheus' own parser finds counters, cumulative buckets, sum and count."""
    labels = ("dev", 'a"b\\c\nd', "chat", "ok")
    counts = (2, 1, *[0] * (len(OVERHEAD.buckets) - 2), 4)
    text = page(
        Stats(
            (Sample(REQUESTS.name, labels, 3),),
            (HistogramSample(OVERHEAD.name, (), counts, 1.5),),
            is_ready=True,
        )
    )
    families = {family.name: family for family in text_string_to_metric_families(text)}
    (sample,) = families["penstock_requests"].samples
    assert sample.value == 3
    assert sample.labels == dict(zip(REQUESTS.labels, labels, strict=True))
    overhead = families[OVERHEAD.name].samples
    buckets = {s.labels["le"]: s.value for s in overhead if s.name.endswith("_bucket")}
    assert (buckets["5e-05"], buckets["0.0001"], buckets["1.0"], buckets["+Inf"]) == (2, 3, 3, 7)
    figures = {s.name: s.value for s in overhead if not s.name.endswith("_bucket")}
    assert figures == {"penstock_overhead_seconds_count": 7, "penstock_overhead_seconds_sum": 1.5}
