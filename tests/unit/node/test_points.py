"""Metrics as a collector reads them: kinds, names, units, and since when they count."""

from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.semconv.attributes import error_attributes
from tests.fakes.collector import attributes_of

from penstock.contract import metrics
from penstock.contract.exposition import Family
from penstock.contract.node import Exemplar, HistogramSample
from penstock.contract.series import Labels
from penstock.node.metrics import AGENT_METRICS, LIMITS_LEASE, LIMITS_WAIT
from penstock.node.telemetry import points
from penstock.node.telemetry.points import STANDARD, STANDARD_LABELS, Starts, write_family

BEGAN, FIRST, SECOND, THIRD = 1_000, 2_000, 3_000, 4_000
CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE


def _read(family: Family, starts: Starts) -> list[Metric]:
    return [Metric.FromString(content) for content, _ in write_family(family, starts)]


def _histogram(labels: Labels, counts: dict[int, int], *exemplars: Exemplar) -> Family:
    metric = metrics.DURATION
    each = tuple(counts.get(bucket, 0) for bucket in range(len(metric.buckets) + 1))
    sample = HistogramSample(metric.name, labels, each, 1.5, exemplars)
    return Family(metric, histograms={labels: sample})


def test_a_counter_is_a_sum() -> None:
    """It grows from a start on, and has its labels, but for empty ones."""
    starts = Starts(BEGAN)
    starts.look(FIRST)
    labels = ("acme", "llama", "", "ok")
    (metric,) = _read(Family(metrics.REQUESTS, {labels: 7.0}), starts)
    assert (metric.name, metric.unit) == ("penstock_requests_total", "")
    assert metric.description == metrics.REQUESTS.help
    assert (metric.sum.is_monotonic, metric.sum.aggregation_temporality) == (True, CUMULATIVE)
    (point,) = metric.sum.data_points
    assert (point.start_time_unix_nano, point.time_unix_nano, point.as_double) == (BEGAN, FIRST, 7)
    assert attributes_of(point) == {"organization": "acme", "model": "llama", "outcome": "ok"}


def test_a_gauge_is_a_gauge() -> None:
    """It has no start; without labels it is there before anything was counted."""
    starts = Starts(BEGAN)
    starts.look(FIRST)
    (metric,) = _read(Family(metrics.JOURNAL_WAITING), starts)
    (point,) = metric.gauge.data_points
    assert (point.start_time_unix_nano, point.time_unix_nano, point.as_double) == (0, FIRST, 0)
    assert metric.unit == "By"
    assert _read(Family(metrics.PROCESS_MEMORY), starts) == []


def test_a_histogram_has_buckets_and_exemplars() -> None:
    """Bounds are those of `/metrics`; an exemplar that cannot be is left out, and nothing else."""
    starts = Starts(BEGAN)
    starts.look(FIRST)
    good = Exemplar(1, "ab" * 16, 0.015, 12.5)
    odd = (
        Exemplar(2, "zz", 0.03, 12.5),
        Exemplar(2, "ab", 0.03, 12.5),
        Exemplar(2, "ab" * 16, 0.03, float("nan")),
    )
    family = _histogram(("chat", "vllm", "llama", "timeout"), {1: 2, 14: 1}, good, *odd)
    (metric,) = _read(family, starts)
    assert metric.histogram.aggregation_temporality == CUMULATIVE
    (point,) = metric.histogram.data_points
    assert (point.start_time_unix_nano, point.time_unix_nano) == (BEGAN, FIRST)
    assert (point.count, point.sum) == (3, 1.5)
    assert tuple(point.explicit_bounds) == metrics.DURATION.buckets
    assert list(point.bucket_counts) == [0, 2, *[0] * 12, 1]
    (exemplar,) = point.exemplars
    assert (exemplar.trace_id.hex(), exemplar.as_double) == ("ab" * 16, 0.015)
    assert exemplar.time_unix_nano == 12_500_000_000
    assert attributes_of(point) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "llama",
        "error.type": "timeout",
    }


def test_names_are_those_of_the_conventions() -> None:
    """Those with a standard name have it, with its unit; the others have ours."""
    named = {
        getattr(gen_ai_metrics, name) for name in dir(gen_ai_metrics) if name.startswith("GEN_AI_")
    }
    ours = [*metrics.WORKER_METRICS, *metrics.PROCESS_METRICS, *AGENT_METRICS]
    assert {each.name for each in ours if each.name.startswith("gen_ai")} == set(STANDARD)
    assert {name for name, _ in STANDARD.values()} <= named
    for name, unit in STANDARD.values():
        assert unit == ("{token}" if name.endswith("usage") else "s")
    known = {
        getattr(module, name)
        for module in (gen_ai_attributes, error_attributes)
        for name in dir(module)
        if name.isupper()
    }
    assert set(STANDARD_LABELS.values()) <= known
    labels = {label for each in ours if each.name in STANDARD for label in each.labels}
    assert labels == set(STANDARD_LABELS)


def test_units_are_those_of_the_name() -> None:
    """Times, sizes and shares have theirs."""
    starts = Starts(BEGAN)
    (waited,) = _read(Family(LIMITS_WAIT), starts)
    assert waited.unit == "s"
    sample = HistogramSample(LIMITS_LEASE.name, (), (0,) * (len(LIMITS_LEASE.buckets) + 1), 0.0)
    (leased,) = _read(Family(LIMITS_LEASE, histograms={(): sample}), starts)
    assert leased.unit == "1"


def test_a_series_that_fell_began_anew() -> None:
    """The processor time of a new worker in a slot starts where the old one was seen last."""
    starts = Starts(BEGAN)

    def start_of(process: str, value: float) -> int:
        family = Family(metrics.PROCESS_CPU, {(process,): value})
        return int(_read(family, starts)[0].sum.data_points[0].start_time_unix_nano)

    starts.look(FIRST)
    assert start_of("worker-0", 5.0) == BEGAN
    starts.look(SECOND)
    assert start_of("worker-0", 6.0) == BEGAN
    assert start_of("worker-1", 1.0) == FIRST
    starts.look(THIRD)
    assert start_of("worker-0", 2.0) == SECOND
    assert start_of("worker-1", 1.0) == FIRST
    starts.look(BEGAN)
    assert starts.now_ns == THIRD
    assert start_of("worker-0", 3.0) == SECOND


def test_a_metric_with_many_series_is_in_parts() -> None:
    """Each has as many points as it says; all series are as they were at the beginning."""
    values: dict[Labels, float] = {(str(number),): 1.0 for number in range(points.POINTS + 1)}
    parts = write_family(Family(metrics.LIMIT_ALLOWED, values), Starts(BEGAN))
    counted = []
    for content, count in parts:
        values.clear()  # as if somebody changed it in between
        assert len(Metric.FromString(content).sum.data_points) == count
        counted.append(count)
    assert counted == [points.POINTS, 1]
