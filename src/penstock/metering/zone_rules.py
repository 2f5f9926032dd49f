"""Days and months of time zones, put together from those of UTC and their edges: pure, no I/O.

A day of Berlin in winter is the day of UTC of the same date, with the last hour of the day before
and without its own last one. So a year needs no more than its days and what is at their edges. An
edge of many hours is put together from eighths of days, and quarters of hours for the rest.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from operator import itemgetter
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

from penstock.contract.usage import METERS
from penstock.kit.errors import PenstockError
from penstock.kit.moments import microseconds
from penstock.kit.time_zones import day_start, local_date
from penstock.metering.bucket_model import Grain, Stretch, UsageResult, Width
from penstock.metering.errors import GROUPING_UNKNOWN

QUARTER_US = 900_000_000
EIGHTH_US = 12 * QUARTER_US
_LAST_DAY = date(9998, 12, 1)
_in_order = itemgetter(*METERS)


class Edge(NamedTuple):
    """What the begin or end of a day of a zone has more or less than that of UTC."""

    grain: Grain
    stretch: Stretch
    sign: Literal[1, -1]
    """Whether it is added or taken off."""


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
    edges: Sequence[Edge]
    """What is added to that one, or taken off it."""


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
        edges = [*_between(start_us, _label(day)), *_between(_label(behind), behind_us)]
        yield Cover(start_us, _label(day), edges)
        start_us = behind_us


def edges_of(covers: Iterable[Cover]) -> dict[Grain, dict[Stretch, list[tuple[int, int]]]]:
    """Return of each edge which buckets it is of: their labels, each with its sign."""
    found: dict[Grain, dict[Stretch, list[tuple[int, int]]]] = {}
    for cover in covers:
        for grain, stretch, sign in cover.edges:
            of_grain = found.setdefault(grain, {})
            of_grain.setdefault(stretch, []).append((cover.label_us, sign))
    return found


def add_terms(
    start_us: int, group: tuple[str, ...], terms: Iterable[tuple[int, UsageResult]]
) -> UsageResult | None:
    """Add figures up, each 1 or -1 times; None when nothing is left of them."""
    signed = [[sign * figure for figure in _in_order(term.figures)] for sign, term in terms]
    sums = [*map(sum, zip(*signed, strict=True))]
    return UsageResult(start_us, group, dict(zip(METERS, sums, strict=True))) if any(sums) else None


def _between(start_us: int, end_us: int) -> Iterator[Edge]:
    """Yield what is from one moment to another, taken off if it goes back.

    One of them is where a day of UTC begins. So it goes by eighths from there to the one nearest to
    the other moment, and by quarters from there: six of these at most.
    """
    if start_us % QUARTER_US or end_us % QUARTER_US:
        message = "days of that zone begin between quarters of hours then"
        raise PenstockError(GROUPING_UNKNOWN, message)
    places_us = [start_us, *map(_nearest_eighth, (start_us, end_us)), end_us]
    grains: tuple[Grain, ...] = ("quarter", "eighth", "quarter")
    for grain, (one_us, other_us) in zip(grains, pairwise(places_us), strict=True):
        if one_us < other_us:
            yield Edge(grain, (one_us, other_us), 1)
        elif one_us > other_us:
            yield Edge(grain, (other_us, one_us), -1)


def _nearest_eighth(at_us: int) -> int:
    return (at_us + EIGHTH_US // 2) // EIGHTH_US * EIGHTH_US


def _later(width: Width, day: date, count: int) -> date:
    if width == "month":
        months = min(day.year * 12 + day.month - 1 + count, _LAST_DAY.year * 12 + 11)
        return date(months // 12, months % 12 + 1, 1)
    return day + timedelta(days=min(count, (_LAST_DAY - day).days))


def _label(day: date) -> int:
    return microseconds(datetime(day.year, day.month, day.day, tzinfo=UTC)) or 0
