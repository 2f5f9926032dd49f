"""Points of data as messages of OTLP: what `/metrics` shows, for a collector.

Names are those of `/metrics`, but where OpenTelemetry has one: the same dashboards fit both.
"""

import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final, TypeAlias

from penstock.contract import metrics
from penstock.contract.exposition import Family
from penstock.contract.metrics import Metric
from penstock.contract.node import Exemplar, HistogramSample
from penstock.contract.series import Labels
from penstock.kit.protobuf import length_field
from penstock.node.telemetry.messages import write_attributes

POINTS: Final = 500
"""Points of a metric that are one part of a message."""
STANDARD: Final = {
    metrics.FIRST_TOKEN.name: ("gen_ai.server.time_to_first_token", "s"),
    metrics.TOKEN_TIME.name: ("gen_ai.server.time_per_output_token", "s"),
    metrics.DURATION.name: ("gen_ai.server.request.duration", "s"),
    metrics.TOKEN_USAGE.name: ("gen_ai.client.token.usage", "{token}"),
}
"""What OpenTelemetry calls our metrics, and their units."""
STANDARD_LABELS: Final = {
    "gen_ai_operation_name": "gen_ai.operation.name",
    "gen_ai_provider_name": "gen_ai.provider.name",
    "gen_ai_request_model": "gen_ai.request.model",
    "gen_ai_token_type": "gen_ai.token.type",
    "error_type": "error.type",
}
"""The same of labels."""
_UNITS: Final = {"seconds": "s", "bytes": "By", "ratio": "1"}
_CUMULATIVE: Final = b"\x10\x02"
_MONOTONIC: Final = b"\x18\x01"
_KINDS: Final = {
    "gauge": (5, b""),
    "counter": (7, _CUMULATIVE + _MONOTONIC),
    "histogram": (9, _CUMULATIVE),
}
"""Field of a metric for its points, and what is said behind them."""
_NUMBER_ATTRIBUTE, _HISTOGRAM_ATTRIBUTE = 7, 9
_START, _TIME, _FOURTH, _SUM = (number << 3 | 1 for number in (2, 3, 4, 5))
_NUMBER: Final = struct.Struct("<BQBQBd")
_HISTOGRAM: Final = struct.Struct("<BQBQBQBd")
_EXEMPLAR: Final = struct.Struct("<BQBd")
_TRACE_ID_BYTES: Final = 16
_Series: TypeAlias = tuple[Labels, float | HistogramSample]


class Starts:
    """Since when series count: a series that is new or lower than before began anew.

    Args:
        now_ns: When counting began, since the Unix epoch.
    """

    def __init__(self, now_ns: int) -> None:
        """See the class."""
        self._before_ns = self.now_ns = now_ns
        self._known: dict[tuple[str, Labels], tuple[int, float]] = {}

    def look(self, now_ns: int) -> None:
        """Begin to look at all series; time does not go back, whatever the clock says."""
        self._before_ns, self.now_ns = self.now_ns, max(now_ns, self.now_ns)

    def since_ns(self, name: str, labels: Labels, total: float) -> int:
        """Return since when a series counts, as far as it was looked at."""
        start_ns, before = self._known.get((name, labels), (self._before_ns, 0.0))
        if total < before:
            start_ns = self._before_ns
        self._known[name, labels] = start_ns, total
        return start_ns


def write_family(family: Family, starts: Starts) -> Iterator[tuple[bytes, int]]:
    """Yield a metric as messages, and how many points are in each; other work may go between.

    Args:
        family: As it is when the first message is asked for.
        starts: Looks at all series just now.
    """
    metric = family.metric
    series: list[_Series]
    if metric.kind == "histogram":
        series = list(family.histograms.items())
    else:
        series = list(family.shown.items())
    for start in range(0, len(series), POINTS):
        part = series[start : start + POINTS]
        yield (
            _write_metric(metric, [_write_point(metric, *each, starts) for each in part]),
            len(part),
        )


def _write_metric(metric: Metric, points: Sequence[bytes]) -> bytes:
    name, unit = STANDARD.get(metric.name) or (metric.name, _unit_of(metric.name))
    number, behind = _KINDS[metric.kind]
    head = (name, metric.help, unit)
    return b"".join(
        [
            *(length_field(field, text.encode()) for field, text in enumerate(head, 1)),
            length_field(number, b"".join(length_field(1, point) for point in points) + behind),
        ]
    )


def _unit_of(name: str) -> str:
    return _UNITS.get(name.removesuffix("_total").rpartition("_")[2], "")


def _write_point(
    metric: Metric, labels: Labels, seen: float | HistogramSample, starts: Starts
) -> bytes:
    if isinstance(seen, HistogramSample):
        return _write_histogram(metric, labels, seen, starts)
    since_ns = 0 if metric.kind == "gauge" else starts.since_ns(metric.name, labels, seen)
    return b"".join(
        [
            _NUMBER.pack(_START, since_ns, _TIME, starts.now_ns, _FOURTH, seen),
            *_write_labels(metric, labels, _NUMBER_ATTRIBUTE),
        ]
    )


def _write_histogram(
    metric: Metric, labels: Labels, sample: HistogramSample, starts: Starts
) -> bytes:
    count = sum(sample.counts)
    since_ns = starts.since_ns(metric.name, labels, count)
    return b"".join(
        [
            _HISTOGRAM.pack(
                _START, since_ns, _TIME, starts.now_ns, _FOURTH, count, _SUM, sample.sum
            ),
            length_field(6, struct.pack(f"<{len(sample.counts)}Q", *sample.counts)),
            _write_bounds(metric.buckets),
            *map(_write_exemplar, sample.exemplars),
            *_write_labels(metric, labels, _HISTOGRAM_ATTRIBUTE),
        ]
    )


@lru_cache
def _write_bounds(buckets: tuple[float, ...]) -> bytes:
    return length_field(7, struct.pack(f"<{len(buckets)}d", *buckets))


def _write_exemplar(exemplar: Exemplar) -> bytes:
    try:
        trace_id = bytes.fromhex(exemplar.trace_id)
        at_ns = int(exemplar.at_s * 1e9)
        times = _EXEMPLAR.pack(_START, at_ns, _TIME, exemplar.value)
    except (ValueError, OverflowError, struct.error):
        return b""  # of a worker of another version
    is_id = len(trace_id) == _TRACE_ID_BYTES
    return length_field(8, times + length_field(5, trace_id)) if is_id else b""


def _write_labels(metric: Metric, labels: Labels, number: int) -> list[bytes]:
    names = (STANDARD_LABELS.get(name, name) for name in metric.labels)
    return write_attributes(dict(zip(names, labels, strict=True)), number)
