"""Makes rates and quantiles of what agents count: pure."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from penstock.contract import metrics
from penstock.contract.metrics import Metric

Labels = tuple[tuple[str, str], ...]
"""Names and values, in order of the names."""
Values = Mapping[str, Mapping[Labels, float]]
"""Of one scrape: values by labels, by the name of the sample."""

_ENDED_WELL: Final = frozenset({"ok", "caller_gone"})
NOBODY: Final = "-"
"""Stands where a series has not the label that is asked for."""


class _View(NamedTuple):
    """By which metrics something is seen, and the label that names it there."""

    requests: tuple[Metric, str]
    first: tuple[Metric, str]
    whole: tuple[Metric, str]
    tokens_by: str | None = None
    refused: tuple[Metric, str] | None = None
    in_flight: tuple[Metric, str] | None = None


VIEWS: Final[Mapping[str, _View]] = {
    "tenants": _View(
        requests=(metrics.REQUESTS, "organization"),
        first=(metrics.ORGANIZATION_FIRST_TOKEN, "organization"),
        whole=(metrics.ORGANIZATION_DURATION, "organization"),
        tokens_by="organization",
        refused=(metrics.LIMIT_REFUSED, "organization"),
    ),
    "models": _View(
        requests=(metrics.REQUESTS, "model"),
        first=(metrics.FIRST_TOKEN, "gen_ai_request_model"),
        whole=(metrics.DURATION, "gen_ai_request_model"),
        tokens_by="model",
    ),
    "engines": _View(
        requests=(metrics.UPSTREAM_REQUESTS, "upstream"),
        first=(metrics.FIRST_BYTE, "upstream"),
        whole=(metrics.UPSTREAM_DURATION, "upstream"),
        in_flight=(metrics.UPSTREAM_IN_FLIGHT, "upstream"),
    ),
}
_GAUGES: Final = (metrics.IN_FLIGHT.name, metrics.CONNECTIONS.name, metrics.UPSTREAM_IN_FLIGHT.name)


def _samples(metric: Metric) -> tuple[str, ...]:
    return (f"{metric.name}_bucket",) if metric.kind == "histogram" else (metric.name,)


WANTED: Final = frozenset(
    name
    for metric in (
        metrics.REQUESTS,
        metrics.ERRORS,
        metrics.INPUT_TOKENS,
        metrics.OUTPUT_TOKENS,
        metrics.LIMIT_REFUSED,
        metrics.UPSTREAM_REQUESTS,
        metrics.IN_FLIGHT,
        metrics.CONNECTIONS,
        metrics.UPSTREAM_IN_FLIGHT,
        *(metric for view in VIEWS.values() for metric, _ in (view.first, view.whole)),
    )
    for name in _samples(metric)
)
"""Names of the samples that are looked at."""


@dataclass(frozen=True, slots=True)
class Row:
    """What is seen of one tenant, model or engine, or of all; a second, or in seconds."""

    name: str
    requests: float
    errors: float
    """Requests that ended neither well nor because the caller left."""
    refused: float | None
    input_tokens: float | None
    output_tokens: float | None
    first_p50: float | None
    first_p99: float | None
    whole_p50: float | None
    whole_p99: float | None
    in_flight: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """What is seen at once."""

    total: Row
    connections: float
    views: Mapping[str, Sequence[Row]]
    reasons: Sequence[tuple[str, float]]
    """Error codes and how often a second, most first."""


def difference(before: Values, now: Values, seconds: float) -> Values:
    """Return by how much each counter of an agent grew a second; gauges as they are.

    A counter that is less than before began again at nothing, when its agent did. One that was not
    there before is new.

    Args:
        before: The scrape before.
        now: This scrape.
        seconds: Between them, > 0.
    """
    rates: dict[str, dict[Labels, float]] = {}
    for name, series in now.items():
        known = before.get(name, {})
        rates[name] = (
            dict(series)
            if name in _GAUGES
            else {
                labels: _grown(known.get(labels, 0.0), value) / seconds
                for labels, value in series.items()
            }
        )
    return rates


def add_up(parts: Iterable[Values]) -> Values:
    """Return the sums over agents."""
    sums: dict[str, dict[Labels, float]] = {}
    for part in parts:
        for name, series in part.items():
            total = sums.setdefault(name, {})
            for labels, value in series.items():
                total[labels] = total.get(labels, 0.0) + value
    return sums


def quantile(part: float, buckets: Mapping[float, float]) -> float | None:
    """Return an estimate of a quantile from a histogram's cumulative counts; None without any.

    Within a bucket observations are taken to be spread evenly. One above all finite bounds is said
    to be the largest of these, as Prometheus has it.

    Args:
        part: 0..1.
        buckets: By upper bound; the largest is infinity. Counts that fall are taken as noise.

    >>> quantile(0.5, {1.0: 10, 2.0: 20, math.inf: 20})
    1.0
    >>> quantile(0.99, {1.0: 10, 2.0: 10, math.inf: 20})
    2.0
    """
    bounds = sorted(buckets)
    total = max(buckets.values(), default=0.0)
    if total <= 0:
        return None
    rank = part * total
    lower = below = 0.0
    for bound in bounds:
        count = max(below, buckets[bound])
        if count >= rank and count > below:
            if math.isinf(bound):
                return lower
            return lower + (bound - lower) * max(0.0, rank - below) / (count - below)
        lower, below = (lower if math.isinf(bound) else bound), count
    return lower


def make_report(values: Values, sort: str, rows: int) -> Report:
    """Return what is shown.

    Args:
        values: Rates and gauges, of all agents together.
        sort: The member of `Row` that decides the order: names from the first, all else from the
            largest.
        rows: The most of each view.
    """
    views = {name: _list_rows(values, view, sort)[:rows] for name, view in VIEWS.items()}
    return Report(
        total=_total(values),
        connections=sum(values.get(metrics.CONNECTIONS.name, {}).values()),
        views=views,
        reasons=_list_reasons(values)[:rows],
    )


def _grown(before: float, now: float) -> float:
    return now - before if now >= before else now


def _list_rows(values: Values, view: _View, sort: str) -> list[Row]:
    requests = _sum_by(values, *view.requests)
    names = {*requests, *(_sum_by(values, *view.in_flight) if view.in_flight else ())}
    if view.refused is not None:
        names |= _sum_by(values, *view.refused).keys()
    figures = _Figures(values, view)
    found = [figures.row(name) for name in names]
    if sort == "name":
        return sorted(found, key=lambda row: row.name)
    return sorted(found, key=lambda row: (-(getattr(row, sort) or 0.0), row.name))


class _Figures:
    """What is known of each of a view's names; added up once for all."""

    def __init__(self, values: Values, view: _View) -> None:
        self._requests = _sum_by(values, *view.requests)
        self._errors = _sum_by(values, *view.requests, only=_is_error)
        self._refused = _sum_by(values, *view.refused) if view.refused else None
        self._in_flight = _sum_by(values, *view.in_flight) if view.in_flight else None
        self._tokens = [
            _sum_by(values, metric, view.tokens_by) if view.tokens_by else None
            for metric in (metrics.INPUT_TOKENS, metrics.OUTPUT_TOKENS)
        ]
        self._first = _buckets_by(values, *view.first)
        self._whole = _buckets_by(values, *view.whole)

    def row(self, name: str) -> Row:
        tokens = [None if sums is None else sums.get(name, 0.0) for sums in self._tokens]
        first, whole = self._first.get(name, {}), self._whole.get(name, {})
        return Row(
            name=name,
            requests=self._requests.get(name, 0.0),
            errors=self._errors.get(name, 0.0),
            refused=None if self._refused is None else self._refused.get(name, 0.0),
            input_tokens=tokens[0],
            output_tokens=tokens[1],
            first_p50=quantile(0.5, first),
            first_p99=quantile(0.99, first),
            whole_p50=quantile(0.5, whole),
            whole_p99=quantile(0.99, whole),
            in_flight=None if self._in_flight is None else self._in_flight.get(name, 0.0),
        )


def _total(values: Values) -> Row:
    """Return what is seen of all tenants together."""
    everybody = {
        name: _fold(series, lambda labels: tuple(pair for pair in labels if pair[0] in _KEPT))
        for name, series in values.items()
    }
    view = VIEWS["tenants"]
    row = _Figures(everybody, view).row(NOBODY)
    in_flight = sum(values.get(metrics.IN_FLIGHT.name, {}).values())
    members = {name: getattr(row, name) for name in Row.__dataclass_fields__}
    return Row(**{**members, "name": "all", "in_flight": in_flight})


_KEPT: Final = frozenset({"le", "outcome"})


def _list_reasons(values: Values) -> list[tuple[str, float]]:
    codes = _sum_by(values, metrics.ERRORS, "code")
    return sorted(
        ((code, rate) for code, rate in codes.items() if rate > 0),
        key=lambda reason: (-reason[1], reason[0]),
    )


def _is_error(labels: Mapping[str, str]) -> bool:
    return labels.get("outcome") not in _ENDED_WELL


def _sum_by(
    values: Values,
    metric: Metric,
    label: str,
    only: Callable[[Mapping[str, str]], bool] = lambda _: True,
) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for labels, value in values.get(metric.name, {}).items():
        known = dict(labels)
        if only(known):
            sums[known.get(label, NOBODY)] += value
    return sums


def _buckets_by(values: Values, metric: Metric, label: str) -> dict[str, dict[float, float]]:
    found: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
    for labels, value in values.get(f"{metric.name}_bucket", {}).items():
        known = dict(labels)
        found[known.get(label, NOBODY)][float(known["le"])] += value
    return found


def _fold(series: Mapping[Labels, float], name: Callable[[Labels], Labels]) -> dict[Labels, float]:
    sums: dict[Labels, float] = defaultdict(float)
    for labels, value in series.items():
        sums[name(labels)] += value
    return sums
