"""Days and months of time zones, put together from those of UTC and their edges: pure, no I/O.

A day of Berlin in winter is the day of UTC of the same date, with the last hour of the day before
and without its own last one. So a year needs no more than its days and what is at their edges.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TypeAlias
from zoneinfo import ZoneInfo

from penstock.contract.usage import Meter
from penstock.kit.errors import PenstockError
from penstock.kit.moments import microseconds
from penstock.kit.time_zones import day_start, local_date
from penstock.metering.bucket_model import UsageResult, Width
from penstock.metering.errors import GROUPING_UNKNOWN

QUARTER_US = 900_000_000
_LAST_DAY = date(9998, 12, 1)

Stretch: TypeAlias = tuple[int, int]
"""From when to when."""


def local_start(zone: ZoneInfo, width: Width, at_us: int) -> int:
    """Return when the day or month of a zone begins that a moment is in.

    Where clocks go back past midnight, what comes again of the day before is the new day's.
    """
    day = local_date(zone, at_us)
    if width == "month":
        day = day.replace(day=1)
    behind_us = day_start(zone, _later(width, day, 1))
    return behind_us if behind_us <= at_us else day_start(zone, day)


def local_advance(zone: ZoneInfo, width: Width, start_us: int, count: int) -> int:
    """Return when the day or month begins that is so many behind the one that begins then."""
    return day_start(zone, _later(width, local_date(zone, start_us), count))


@dataclass(frozen=True, slots=True)
class Cover:
    """A day or month of a zone, as what it is put together from."""

    start_us: int
    label_us: int
    """When the day or month of UTC begins that has the same date."""
    edges: Sequence[tuple[Stretch, int]]
    """What is added to that one, or taken off it: 1 or -1."""


def list_covers(zone: ZoneInfo, width: Width, start_us: int, end_us: int) -> Iterator[Cover]:
    """Yield the days or months of a zone from one to another.

    Raises:
        PenstockError: `GROUPING_UNKNOWN`: one begins between quarters of hours, as Liberia's
            did until 1972; no figures are so fine.
    """
    while start_us < end_us:
        day = local_date(zone, start_us)
        behind = _later(width, day, 1)
        behind_us = day_start(zone, behind)
        # At the end it is the other way round: what is before the label's end is not in it.
        edges = [*_between(start_us, _label(day), 1), *_between(behind_us, _label(behind), -1)]
        yield Cover(start_us, _label(day), edges)
        start_us = behind_us


def edges_of(covers: Iterable[Cover]) -> dict[Stretch, list[tuple[int, int]]]:
    """Return of each edge which buckets it is of: their labels, each with its sign."""
    found: dict[Stretch, list[tuple[int, int]]] = {}
    for cover in covers:
        for stretch, sign in cover.edges:
            found.setdefault(stretch, []).append((cover.label_us, sign))
    return found


def add_terms(
    start_us: int, group: tuple[str, ...], terms: Iterable[tuple[int, UsageResult]]
) -> UsageResult | None:
    """Add figures up, each 1 or -1 times; None when nothing is left of them."""
    figures: Counter[Meter] = Counter()
    for sign, term in terms:
        for meter, figure in term.figures.items():
            figures[meter] += sign * figure
    if not any(figures.values()):
        return None
    return UsageResult(start_us, group, figures)


def _between(start_us: int, label_us: int, sign: int) -> Iterator[tuple[Stretch, int]]:
    """Yield what is between a beginning and its label: added where it begins before, else off."""
    if start_us % QUARTER_US:
        message = "days of that zone begin between quarters of hours then"
        raise PenstockError(GROUPING_UNKNOWN, message)
    if start_us < label_us:
        yield (start_us, label_us), sign
    elif start_us > label_us:
        yield (label_us, start_us), -sign


def _later(width: Width, day: date, count: int) -> date:
    if width == "month":
        months = min(day.year * 12 + day.month - 1 + count, _LAST_DAY.year * 12 + 11)
        return date(months // 12, months % 12 + 1, 1)
    return day + timedelta(days=min(count, (_LAST_DAY - day).days))


def _label(day: date) -> int:
    return microseconds(datetime(day.year, day.month, day.day, tzinfo=UTC)) or 0
