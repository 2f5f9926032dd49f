"""The worker's counters, as the agent gets them."""

import msgspec
import pytest

from penstock.contract import metrics
from penstock.contract.journal import Open, interrupted_event
from penstock.contract.usage import UsageEvent
from penstock.gateway.errors import CALLER_GONE, DRAINING
from penstock.gateway.stats import Stats


def _event(**changes: object) -> UsageEvent:
    opened = Open(
        "event-1", "request-1", "org-a", "project-a", "key-a", "model-a", "served", "engine",
        "chat", is_stream=True, started_at_ns=1_000_000_000, estimated_input_tokens=9,
    )  # fmt: skip
    usual: dict[str, object] = {"outcome": "ok", "error_code": None, "usage_source": "engine"}
    usual |= {"input_tokens": 3, "output_tokens": 4, "first_byte_at_ns": 1_020_000_000}
    return msgspec.structs.replace(interrupted_event(opened, 2_000_000_000), **usual | changes)


def _samples(stats: Stats) -> dict[tuple[str, ...], float]:
    return {(sample.name, *sample.labels): sample.value for sample in stats.samples()}


def test_ended_requests_and_tokens_are_counted() -> None:
    """Each end counts one request and its tokens, under organization, model and source."""
    stats = Stats()
    stats.ended(_event())
    stats.ended(_event(output_tokens=6))
    gone = "err:gateway:downstream:caller_gone"
    stats.ended(_event(outcome="caller_gone", usage_source="counted", error_code=gone))
    assert _samples(stats) == {
        (metrics.REQUESTS.name, "org-a", "model-a", "chat", "ok"): 2,
        (metrics.REQUESTS.name, "org-a", "model-a", "chat", "caller_gone"): 1,
        (metrics.INPUT_TOKENS.name, "org-a", "model-a", "engine"): 6,
        (metrics.INPUT_TOKENS.name, "org-a", "model-a", "counted"): 3,
        (metrics.OUTPUT_TOKENS.name, "org-a", "model-a", "engine"): 10,
        (metrics.OUTPUT_TOKENS.name, "org-a", "model-a", "counted"): 4,
        (metrics.ERRORS.name, CALLER_GONE.code): 1,
    }


def test_refusals_are_counted_by_code() -> None:
    """A request that was refused before dispatch is an error, and no request to an engine."""
    stats = Stats()
    stats.refused(DRAINING)
    stats.refused(DRAINING)
    assert _samples(stats) == {(metrics.ERRORS.name, DRAINING.code): 2}


def test_labels_are_those_that_were_declared() -> None:
    """Every sample has as many labels as its metric declares, and names a declared metric."""
    stats = Stats()
    stats.ended(_event(error_code=CALLER_GONE.code))
    declared = {metric.name: metric for metric in metrics.WORKER_METRICS}
    for sample in stats.samples():
        assert len(sample.labels) == len(declared[sample.name].labels)
    for histogram in stats.histograms():
        assert len(histogram.counts) == len(declared[histogram.name].buckets) + 1


@pytest.mark.parametrize(("seconds", "bucket"), [(0.0, 0), (0.00005, 0), (0.00006, 1), (9.0, -1)])
def test_overhead_falls_into_its_bucket(seconds: float, bucket: int) -> None:
    """A time on a bucket's bound belongs to it; what is over all of them to the last."""
    stats = Stats()
    stats.overhead(seconds)
    overhead = stats.histograms()[0]
    assert overhead.counts[bucket] == sum(overhead.counts) == 1
    assert overhead.sum == seconds


def test_the_first_byte_is_timed_if_there_was_one() -> None:
    """Time to the first byte is counted for requests that got one."""
    stats = Stats()
    stats.ended(_event())
    stats.ended(_event(first_byte_at_ns=None))
    first_byte = stats.histograms()[1]
    assert sum(first_byte.counts) == 1
    assert first_byte.sum == pytest.approx(0.02)
