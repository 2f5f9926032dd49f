"""How busy servers say that they are: on pages of metrics, and in heads of answers. Pure."""

import math
from collections.abc import Iterator

import msgspec

from penstock.engines.model import Load

REPORT_FORMAT = "endpoint-load-metrics-format"
"""Header of a request by which a server is asked to say it in its answer's head."""
REPORT = "endpoint-load-metrics"
"""Where it says so: Open Request Cost Aggregation (ORCA), of the xDS project."""

_REPORT_BYTES = 1_024
_IN_TEXT = b"named_metrics."
_WAITING = "num_requests_waiting"
_CACHE_USE = ("kv_cache_usage_perc", "kv_cache_utilization")
"""vLLM's word for it, and Triton's."""


class Figures(msgspec.Struct, frozen=True):
    """What a server said; None where it did not say."""

    running: float | None = None
    waiting: float | None = None
    cache_use: float | None = None
    """Share of its KV cache, 0 to 1."""


class _Report(msgspec.Struct):
    named_metrics: dict[str, float] = {}  # msgspec makes a new one for each


def find_strain(figures: Figures, in_flight: int = 0) -> float | None:
    """Return how strained a server is, 0 to 1.

    It is the share of its requests that wait, or of its cache that is used, whichever is more.
    Servers answer many requests at once, so that many run says nothing: there is room until some
    wait, or the cache is full. Shares of servers of different sizes compare.

    Args:
        figures: What it said.
        in_flight: How many requests it has at least, where it may not have said how many run.

    Returns:
        None when it said neither.

    >>> find_strain(Figures(running=6, waiting=2, cache_use=0.5))
    0.5
    >>> find_strain(Figures(waiting=3), in_flight=4)
    0.75
    """
    strain = None if figures.cache_use is None else min(figures.cache_use, 1.0)
    if figures.waiting is not None:
        there = max(figures.waiting + (figures.running or 0.0), in_flight)
        strain = max(strain or 0.0, figures.waiting / there if there else 0.0)
    return strain


def read_metrics(load: Load, page: bytes) -> Figures | None:
    """Return what a page in Prometheus' text form says; None when that is nothing.

    A server may say it several times, by model or by rank: requests are added up, shares of caches
    averaged.

    Args:
        load: The names of its metrics.
        page: May be cut off; its last line is not read then.
    """
    running, waiting = list(_values(page, load.running)), list(_values(page, load.waiting))
    waiting += _values(page, load.queued) if load.queued else ()
    shares = list(_values(page, load.cache_use)) if load.cache_use else []
    if not waiting and not shares:
        return None
    return Figures(
        sum(running) if running else None,
        sum(waiting) if waiting else None,
        sum(shares) / len(shares) if shares else None,
    )


def read_report(value: bytes) -> Figures | None:
    """Return what a report in an answer's head says; None when that is nothing.

    >>> read_report(b"TEXT named_metrics.kv_cache_usage_perc=0.4, cpu_utilization=0.1")
    Figures(running=None, waiting=None, cache_use=0.4)
    >>> read_report(b'JSON {"named_metrics": {"num_requests_waiting": 3}}')
    Figures(running=None, waiting=3.0, cache_use=None)
    """
    if len(value) > _REPORT_BYTES:
        return None
    form, _, content = value.partition(b" ")
    if form == b"JSON":
        try:
            said = msgspec.json.decode(content, type=_Report).named_metrics
        except (msgspec.MsgspecError, RecursionError):
            return None
    elif form == b"TEXT":
        pairs = (each.strip().partition(b"=") for each in content.split(b","))
        said = {
            name.removeprefix(_IN_TEXT).decode("latin-1"): number
            for name, _, text in pairs
            if name.startswith(_IN_TEXT) and (number := _number(text)) is not None
        }
    else:  # there is a binary form, too
        return None
    figures = Figures(
        None,
        _checked(said.get(_WAITING)),
        _checked(next((said[name] for name in _CACHE_USE if name in said), None)),
    )
    return None if figures.waiting is None and figures.cache_use is None else figures


def _values(page: bytes, metric: str) -> Iterator[float]:
    """Yield the values of a metric: of all its series, or of those with the label behind it."""
    name, _, label = metric.rstrip("}").partition("{")
    line_start = b"\n" + name.encode("ascii")
    wanted = label.encode("ascii")
    page = b"\n" + page  # a copy is cheap beside looking at each line
    at = page.find(line_start)
    while at >= 0:
        end = page.find(b"\n", at + 1)
        if end < 0:
            return
        rest = page[at + len(line_start) : end]
        labels, brace, behind = rest.rpartition(b"}")
        if rest[:1] == (b"{" if brace else b" ") and wanted in labels:
            number = _number(behind.split(maxsplit=1)[0] if behind.strip() else b"")
            if number is not None:
                yield number
        at = page.find(line_start, end)


def _number(text: bytes) -> float | None:
    try:
        return _checked(float(text))
    except ValueError:
        return None


def _checked(number: float | None) -> float | None:
    if number is None or not math.isfinite(number) or number < 0:
        return None
    return number
