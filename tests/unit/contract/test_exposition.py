"""Metrics as text that Prometheus reads."""

from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as read_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families

from penstock.contract.exposition import Family, wants_openmetrics, write_page
from penstock.contract.metrics import IN_FLIGHT, OVERHEAD, REQUESTS, WORKER_METRICS
from penstock.contract.node import HistogramSample

LABELS = ("dev", 'a"b\\c\nd', "chat", "ok")
COUNTS = (2, 1, *[0] * (len(OVERHEAD.buckets) - 2), 4)
FAMILIES = [
    Family(REQUESTS, {LABELS: 3}),
    Family(OVERHEAD, histograms={(): HistogramSample(OVERHEAD.name, (), COUNTS, 1.5)}),
    Family(IN_FLIGHT),
]


def test_every_metric_is_on_the_page_from_the_start() -> None:
    """Each metric has its help and type before the first request; one without labels is 0."""
    text = "".join(write_page(map(Family, WORKER_METRICS)))
    for metric in WORKER_METRICS:
        assert f"# TYPE {metric.name} {metric.kind}\n" in text
    assert "\npenstock_requests_in_flight 0.0\n" in text
    assert "\npenstock_requests_total" not in text


def test_the_page_reads_as_it_was_meant() -> None:
    """Prometheus' own parser finds counters, cumulative buckets, sum and count."""
    text = "".join(write_page(FAMILIES))
    families = {family.name: family for family in text_string_to_metric_families(text)}
    (sample,) = families["penstock_requests"].samples
    assert sample.value == 3
    assert sample.labels == dict(zip(REQUESTS.labels, LABELS, strict=True))
    overhead = families[OVERHEAD.name].samples
    buckets = {s.labels["le"]: s.value for s in overhead if s.name.endswith("_bucket")}
    assert (buckets["5e-05"], buckets["0.0001"], buckets["1.0"], buckets["+Inf"]) == (2, 3, 3, 7)
    figures = {s.name: s.value for s in overhead if not s.name.endswith("_bucket")}
    assert figures == {"penstock_overhead_seconds_count": 7, "penstock_overhead_seconds_sum": 1.5}


def test_both_forms_say_the_same() -> None:
    """OpenMetrics has the same samples, and its end."""
    plain = text_string_to_metric_families("".join(write_page(FAMILIES)))
    text = "".join(write_page(FAMILIES, is_openmetrics=True))
    assert text.endswith("\n# EOF\n")
    read = read_openmetrics(text)  # type: ignore[no-untyped-call]
    assert [f.samples for f in read] == [f.samples for f in plain]


def test_openmetrics_is_for_those_who_ask_for_it() -> None:
    """What Prometheus sends asks for it, a browser and curl do not."""
    assert wants_openmetrics("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.1")
    assert not wants_openmetrics("text/html,*/*;q=0.8")
    assert not wants_openmetrics("")
