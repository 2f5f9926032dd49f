"""The worker's counters, as the agent gets them."""

import tracemalloc
from collections.abc import Iterator

import msgspec
import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as read_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families

from penstock.contract import metrics
from penstock.contract.exposition import write_page
from penstock.contract.finished import Trace
from penstock.contract.journal import Open, interrupted_event
from penstock.contract.node import HistogramSample, Sample, encode_message
from penstock.contract.series import OTHER
from penstock.contract.usage import UsageEvent
from penstock.gateway.errors import CALLER_GONE, DRAINING, FAILED
from penstock.gateway.stats import Stats
from penstock.kit.errors import ErrorCode
from penstock.node.stats import StatsBook

SECOND_NS = 1_000_000_000
Found = dict[tuple[str, ...], float]


def _event(**changes: object) -> UsageEvent:
    opened = Open(
        "event-1", "request-1", "org-a", "project-a", "key-a", "model-a", "served", "engine",
        "chat", is_stream=True, started_at_ns=SECOND_NS, estimated_input_tokens=9,
    )  # fmt: skip
    usual: dict[str, object] = {"outcome": "ok", "error_code": None, "usage_source": "engine"}
    usual |= {"input_tokens": 3, "output_tokens": 4, "first_byte_at_ns": 1_020_000_000}
    return msgspec.structs.replace(interrupted_event(opened, 2 * SECOND_NS), **usual | changes)


def _end(stats: Stats, error: ErrorCode | None = None, /, **changes: object) -> None:
    event = _event(error_code=None if error is None else error.code, **changes)
    stats.ended(event, "vllm", error, is_limited=True)


def _told(stats: Stats) -> Iterator[Sample | HistogramSample]:
    for report in stats.reports((), is_ready=True):
        yield from report.samples
        yield from report.histograms


def _samples(stats: Stats) -> Found:
    return {(s.name, *s.labels): s.value for s in _told(stats) if isinstance(s, Sample)}


def _histograms(stats: Stats) -> dict[tuple[str, ...], HistogramSample]:
    found = [each for each in _told(stats) if isinstance(each, HistogramSample)]
    return {(each.name, *each.labels): each for each in found if sum(each.counts)}


def test_ended_requests_and_tokens_are_counted() -> None:
    """Each end counts one request and its tokens, under organization, model and source."""
    stats = Stats()
    _end(stats)
    _end(stats, output_tokens=6, cached_input_tokens=2, reasoning_output_tokens=5)
    _end(stats, CALLER_GONE, outcome="caller_gone", usage_source="counted")
    assert _samples(stats) == {
        (metrics.REQUESTS.name, "org-a", "model-a", "chat", "ok"): 2,
        (metrics.REQUESTS.name, "org-a", "model-a", "chat", "caller_gone"): 1,
        (metrics.UPSTREAM_REQUESTS.name, "engine", "ok"): 2,
        (metrics.UPSTREAM_REQUESTS.name, "engine", "caller_gone"): 1,
        (metrics.LIMIT_ALLOWED.name, "org-a"): 3,
        (metrics.INPUT_TOKENS.name, "org-a", "model-a", "engine"): 6,
        (metrics.INPUT_TOKENS.name, "org-a", "model-a", "counted"): 3,
        (metrics.OUTPUT_TOKENS.name, "org-a", "model-a", "engine"): 10,
        (metrics.OUTPUT_TOKENS.name, "org-a", "model-a", "counted"): 4,
        (metrics.TOKEN_PARTS.name, "org-a", "model-a", "cached_input"): 2,
        (metrics.TOKEN_PARTS.name, "org-a", "model-a", "reasoning_output"): 5,
        (metrics.ERRORS.name, CALLER_GONE.code, "downstream", "caller"): 1,
    }


def test_errors_are_counted_by_whose_fault_they_are() -> None:
    """A request that was refused before dispatch is an error, and no request to an engine."""
    stats = Stats()
    stats.refused(DRAINING)
    stats.refused(DRAINING)
    stats.refused(FAILED)
    assert _samples(stats) == {
        (metrics.ERRORS.name, DRAINING.code, DRAINING.code.split(":")[2], "gateway"): 2,
        (metrics.ERRORS.name, FAILED.code, "upstream", "engine"): 1,
    }


def test_times_are_counted_for_model_organization_and_upstream() -> None:
    """A stream counts its first event, its tokens behind that, and its end; each where it must."""
    stats = Stats()
    _end(stats)
    _end(stats, is_stream=False)
    _end(stats, FAILED, outcome="upstream_error", first_byte_at_ns=None)
    found = _histograms(stats)
    gen_ai = ("chat", "vllm", "model-a")
    totals = {key: (sum(each.counts), round(each.sum, 6)) for key, each in found.items()}
    assert totals == {
        (metrics.DURATION.name, *gen_ai, ""): (2, 2.0),
        (metrics.DURATION.name, *gen_ai, "upstream_error"): (1, 1.0),
        (metrics.ORGANIZATION_DURATION.name, "org-a"): (3, 3.0),
        (metrics.UPSTREAM_DURATION.name, "engine"): (3, 3.0),
        (metrics.FIRST_BYTE.name, "engine"): (2, 0.04),
        (metrics.FIRST_TOKEN.name, *gen_ai): (1, 0.02),
        (metrics.ORGANIZATION_FIRST_TOKEN.name, "org-a"): (1, 0.02),
        (metrics.TOKEN_TIME.name, *gen_ai): (1, round(0.98 / 3, 6)),
        (metrics.TOKEN_USAGE.name, *gen_ai, "input"): (3, 9),
        (metrics.TOKEN_USAGE.name, *gen_ai, "output"): (3, 12),
    }
    duration = found[metrics.DURATION.name, *gen_ai, ""]
    assert duration.counts[metrics.DURATION.buckets.index(1.28)] == 2


@pytest.mark.parametrize(
    ("changes", "metric"),
    [
        ({"operation": "completions"}, metrics.FIRST_TOKEN),
        ({"finished_at_ns": SECOND_NS - 5}, metrics.DURATION),
    ],
)
def test_odd_requests(changes: dict[str, object], metric: metrics.Metric) -> None:
    """OpenTelemetry's word stands for ours, and no clock that is set back lowers a sum."""
    stats = Stats()
    _end(stats, None, **changes)
    ((_, operation, *_), found) = next(
        item for item in _histograms(stats).items() if item[0][0] == metric.name
    )
    assert operation == ("text_completion" if "operation" in changes else "chat")
    assert found.sum >= 0


def test_the_slowest_that_is_traced_stands_for_its_bucket() -> None:
    """Buckets of times have the trace of a request that is kept, for those who read OpenMetrics."""
    stats, book, ids = Stats(), StatsBook(), ("a" * 32, "b" * 32, "c" * 32)
    for took_s, trace in (
        (0.5, Trace(ids[0], is_sampled=True)),
        (4.0, Trace(ids[1], is_sampled=True)),
        (9.0, Trace(ids[2])),
        (30.0, None),
    ):
        event = _event(finished_at_ns=SECOND_NS + int(took_s * SECOND_NS))
        stats.ended(event, "vllm", None, is_limited=False, trace=trace)
        for report in stats.reports((), is_ready=True):
            book.report((0, 1), report)
    page = "".join(write_page(book.families(), is_openmetrics=True))
    found = {}
    for family in read_openmetrics(page):  # type: ignore[no-untyped-call]
        for sample in family.samples:
            if sample.exemplar:
                found[sample.name, sample.labels["le"]] = sample.exemplar
    name = f"{metrics.DURATION.name}_bucket"
    traces = {key: each.labels["trace_id"] for key, each in found.items() if key[0] == name}
    assert traces == {(name, "0.64"): ids[0], (name, "5.12"): ids[1]}
    assert found[name, "5.12"].value == 4.0
    assert float(found[name, "5.12"].timestamp) == 5.0
    assert (f"{metrics.FIRST_TOKEN.name}_bucket", "0.02") in found
    assert "trace_id" not in "".join(write_page(book.families()))


def test_only_what_changed_is_told_and_all_of_it_to_a_new_agent() -> None:
    """A report has what changed since the last; after a greeting it has everything."""
    stats = Stats()
    _end(stats)
    first = _samples(stats)
    assert _samples(stats) == {}
    _end(stats, organization="org-b")
    assert (metrics.REQUESTS.name, "org-a", "model-a", "chat", "ok") not in _samples(stats)
    stats.forget_told()
    everything = _samples(stats)
    assert first.keys() < everything.keys()
    assert everything[metrics.UPSTREAM_REQUESTS.name, "engine", "ok"] == 2


def test_labels_are_those_that_were_declared() -> None:
    """Every sample has as many labels as its metric declares, and names a declared metric."""
    stats = Stats()
    _end(stats, CALLER_GONE, cached_input_tokens=1)
    stats.retried("engine", "timeout")
    declared = {metric.name: metric for metric in metrics.WORKER_METRICS}
    for sample in _told(stats):
        metric = declared[sample.name]
        assert len(sample.labels) == len(metric.labels)
        if isinstance(sample, HistogramSample):
            assert len(sample.counts) == len(metric.buckets) + 1


@pytest.mark.parametrize(("seconds", "bucket"), [(0.0, 0), (0.00005, 0), (0.00006, 1), (9.0, -1)])
def test_overhead_falls_into_its_bucket(seconds: float, bucket: int) -> None:
    """A time on a bucket's bound belongs to it; what is over all of them to the last."""
    stats = Stats()
    stats.overhead(seconds)
    overhead = _histograms(stats)[metrics.OVERHEAD.name,]
    assert overhead.counts[bucket] == sum(overhead.counts) == 1
    assert overhead.sum == seconds


def test_requests_under_way_are_told_by_model() -> None:
    """Each by its number, also when that is 0 again, and those that are not shown as one."""
    stats = Stats(models=2)
    for model in ("a", "a", "b", "c"):
        stats.began(model)
    assert stats.count_models() == {"a": 2, OTHER: 2}
    stats.over("a")
    stats.over("c")
    assert stats.count_models() == {"a": 1, OTHER: 1}
    stats.over("a")
    stats.over("b")
    assert stats.count_models() == {"a": 0, OTHER: 0}


def test_a_hundred_thousand_hostile_names_are_a_few_series() -> None:
    """Series, reports and memory stay bounded, the page is valid, and no request is lost."""
    stats = Stats(organizations=10, models=5, upstreams=5)
    event, book, count = _event(), StatsBook(), 100_000

    def report() -> None:
        for each in stats.reports((), is_ready=True):
            assert len(encode_message(each)) < 100_000
            book.report((0, 1), each)

    def end(number: int) -> None:
        hostile = msgspec.structs.replace(
            event,
            organization=f'o"{number}\n',
            model=f"\x1b[31m{number}\u2028\\",
            upstream=f"{number}\ud800" + "x" * 300,
        )
        stats.ended(hostile, "vllm", None, is_limited=True)

    for number in range(count - 5_000):
        end(number)
    report()
    tracemalloc.start()
    for number in range(count - 5_000, count):
        end(number)
    report()
    grown_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown_bytes < 200_000
    pages = ["".join(write_page(book.families(), is_openmetrics=form)) for form in (False, True)]
    assert all(page.count("\n") < 3_000 for page in pages)
    assert not any(character in page for page in pages for character in "\x1b\u2028\ufffd")
    families = {each.name: each for each in text_string_to_metric_families(pages[0])}
    requests = families["penstock_requests"].samples
    assert sum(sample.value for sample in requests) == count
    assert len({sample.labels["organization"] for sample in requests}) <= 11
    assert len({sample.labels["model"] for sample in requests}) <= 6
    assert any(sample.labels["model"] == OTHER for sample in requests)
