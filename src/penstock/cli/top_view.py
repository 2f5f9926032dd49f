"""Shows a report as lines of text: pure."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from penstock.cli.output import printable
from penstock.cli.top_rules import Report, Row

WIDTH: Final = 80
_NAME_CHARS: Final = 16
_LONGEST_NAME: Final = 40
_MISSING: Final = "-"
_UNITS: Final = ("", "k", "M", "G", "T")


class _Column(NamedTuple):
    heading: str
    width: int
    cell: Callable[[Row], str]


_COLUMNS: Final = (
    _Column("req/s", 6, lambda row: count(row.requests)),
    _Column("flight", 6, lambda row: count(row.in_flight)),
    _Column("first 50/99", 11, lambda row: _pair(row.first_p50, row.first_p99)),
    _Column("whole 50/99", 11, lambda row: _pair(row.whole_p50, row.whole_p99)),
    _Column("in/s", 6, lambda row: count(row.input_tokens)),
    _Column("out/s", 6, lambda row: count(row.output_tokens)),
    _Column("ref/s", 5, lambda row: count(row.refused)),
    _Column("err/s", 5, lambda row: count(row.errors)),
)
_FIXED: Final = sum(column.width + 1 for column in _COLUMNS)


def render(report: Report, nodes: Iterable[str], width: int = WIDTH) -> list[str]:
    """Return the lines of a report.

    Args:
        report: What is seen.
        nodes: A line about each agent that does not answer.
        width: Columns of the terminal; no line is longer, unless that is less than 80.
    """
    name_chars = max(_NAME_CHARS, min(_LONGEST_NAME, width - _FIXED))
    total = report.total
    requests, in_flight = count(total.requests), count(total.in_flight)
    lines = [
        f"{requests} requests/s, {in_flight} in flight, {count(report.connections)} connections",
        *(_cut(printable(line), max(width, WIDTH)) for line in nodes),
    ]
    for title, rows in report.views.items():
        heading = " ".join(column.heading.rjust(column.width) for column in _COLUMNS)
        lines += ["", f"{title:<{name_chars}} {heading}"]
        shown: Sequence[Row] = [total, *rows] if title == "tenants" else rows
        lines += (_line(row, name_chars) for row in shown)
    lines += ["", "refused or failed, a second"]
    if not report.reasons:
        lines.append("nothing")
    lines += (f"{count(rate):>6} {_cut(printable(code), 70)}" for code, rate in report.reasons)
    return lines


def count(value: float | None) -> str:
    """Return a number in at most five characters; what is not known is a dash.

    >>> [count(value) for value in (None, 0.0, 30.0, 0.25, 12.34, 999.6, 23_456, 7.8e6, 1e15)]
    ['-', '0', '30', '0.25', '12.3', '1.00k', '23.5k', '7.80M', '1000T']
    """
    if value is None:
        return _MISSING
    if value < 1_000 and value == int(value):  # noqa: PLR2004 - what is counted
        return str(int(value))
    unit = 0
    while value >= 999.5 and unit < len(_UNITS) - 1:  # noqa: PLR2004 - three digits fit
        value, unit = value / 1_000, unit + 1
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0  # noqa: PLR2004 - as above
    return f"{value:.{decimals}f}{_UNITS[unit]}"


def duration(seconds: float | None) -> str:
    """Return a time in at most five characters.

    >>> [duration(value) for value in (None, 0.0004, 0.0123, 0.9996, 1.26, 75.0)]
    ['-', '0.4ms', '12ms', '1.0s', '1.3s', '75s']
    """
    if seconds is None:
        return _MISSING
    ms = seconds * 1_000
    if ms < 9.95:  # noqa: PLR2004 - one decimal fits
        return f"{ms:.1f}ms"
    if ms < 999.5:  # noqa: PLR2004 - none fits
        return f"{ms:.0f}ms"
    return f"{seconds:.1f}s" if seconds < 9.95 else f"{seconds:.0f}s"  # noqa: PLR2004


def _pair(p50: float | None, p99: float | None) -> str:
    return _MISSING if p50 is None else f"{duration(p50)}/{duration(p99)}"


def _line(row: Row, name_chars: int) -> str:
    cells = " ".join(column.cell(row).rjust(column.width) for column in _COLUMNS)
    return f"{_cut(printable(row.name), name_chars):<{name_chars}} {cells}"


def _cut(text: str, chars: int) -> str:
    return text if len(text) <= chars else text[: chars - 1] + "…"
