"""Metrics as text that Prometheus reads: its own form, and OpenMetrics.

Written by hand because ten thousand series take the usual library a quarter of a second, in which
an agent would answer nobody.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import accumulate
from typing import Final, NamedTuple

from penstock.contract.metrics import Metric
from penstock.contract.node import HistogramSample
from penstock.contract.series import Labels

TEXT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_CACHED: Final = 65_536


class Family(NamedTuple):
    """A metric and all its series: of counters and gauges values, of histograms samples."""

    metric: Metric
    values: Mapping[Labels, float] = {}
    histograms: Mapping[Labels, HistogramSample] = {}

    @property
    def shown(self) -> Mapping[Labels, float]:
        """Its values; without labels it is there from the start: 0 and "not there" differ."""
        return self.values or ({} if self.metric.labels else {(): 0.0})


def wants_openmetrics(accept: str) -> bool:
    """Return whether who sends this `Accept` reads OpenMetrics."""
    return "application/openmetrics-text" in accept


def write_page(families: Iterable[Family], *, is_openmetrics: bool = False) -> Iterator[str]:
    """Yield the page of a scrape, a metric at a time: other work may be done between two.

    Args:
        families: All metrics; each is asked for when the one before was taken.
        is_openmetrics: Whether the form is OpenMetrics, which names counters without `_total`.
    """
    for family in families:
        yield _write(family, is_openmetrics=is_openmetrics)
    if is_openmetrics:
        yield "# EOF\n"


def _write(family: Family, *, is_openmetrics: bool) -> str:
    metric = family.metric
    name = metric.name
    title = name.removesuffix("_total") if is_openmetrics and metric.kind == "counter" else name
    lines = [f"# HELP {title} {_escape_help(metric.help)}", f"# TYPE {title} {metric.kind}"]
    if metric.kind == "histogram":
        for labels, sample in family.histograms.items():
            exemplars = _exemplars(sample) if is_openmetrics else {}
            lines += _histogram_lines(metric, labels, sample, exemplars)
    else:
        lines += [
            f"{name}{_label_text(metric.labels, labels)} {float(value)!r}"
            for labels, value in family.shown.items()
        ]
    lines.append("")
    return "\n".join(lines)


def _exemplars(sample: HistogramSample) -> dict[int, str]:
    return {
        one.bucket: f' # {{trace_id="{_escape(one.trace_id)}"}} {one.value!r} {one.at_s:.3f}'
        for one in sample.exemplars
    }


def _histogram_lines(
    metric: Metric, labels: Labels, sample: HistogramSample, exemplars: Mapping[int, str]
) -> Iterable[str]:
    name, names = metric.name, metric.labels
    bounds = zip(_bounds(metric.buckets), accumulate(sample.counts), strict=True)
    for bucket, (bound, count) in enumerate(bounds):
        text = _label_text((*names, "le"), (*labels, bound))
        yield f"{name}_bucket{text} {count}{exemplars.get(bucket, '')}"
    text = _label_text(names, labels)
    yield f"{name}_count{text} {sum(sample.counts)}"
    yield f"{name}_sum{text} {float(sample.sum)!r}"


@lru_cache
def _bounds(buckets: tuple[float, ...]) -> tuple[str, ...]:
    return (*map(str, buckets), "+Inf")


@lru_cache(_CACHED)
def _label_text(names: Labels, values: Labels) -> str:
    if not names:
        return ""
    pairs = zip(names, values, strict=True)
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in pairs) + "}"


def _escape(value: str) -> str:
    # What is no text, such as half of a surrogate pair, is no reason not to answer.
    clean = value.encode("utf-8", "replace").decode("utf-8")
    return clean.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _escape_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")
