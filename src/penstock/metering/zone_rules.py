"""Days and months of time zones, put together from those of UTC and from hours: pure, no I/O.

A day of Berlin in winter is the day of UTC of the same date, with the last hour of the day before
and without its own last one. So a year needs no more than its days and the hours at their edges.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from penstock.contract.usage import Meter
from penstock.kit.errors import PenstockError
from penstock.kit.moments import microseconds
from penstock.kit.time_zones import day_start, local_date
from penstock.metering.bucket_model import UsageResult, Width
from penstock.metering.errors import GROUPING_UNKNOWN

_HOUR_US = 3_600_000_000
_LAST_DAY = date(9998, 12, 1)
_SEASONS = (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC))


def has_whole_hours(zone: ZoneInfo) -> bool:
    """Return whether its days begin at a full hour of UTC, in winter and in summer.

    >>> [has_whole_hours(ZoneInfo(name)) for name in ("America/New_York", "Asia/Kolkata")]
    [True, False]
    """
    return all(not _offset(zone, moment) % timedelta(hours=1) for moment in _SEASONS)


def local_start(zone: ZoneInfo, width: Width, at_us: int) -> int:
    """Return when the day or month of a zone begins that a moment is in."""
    day = local_date(zone, at_us)
    return day_start(zone, day.replace(day=1) if width == "month" else day)


def local_advance(zone: ZoneInfo, width: Width, start_us: int, count: int) -> int:
    """Return when the day or month begins that is so many behind the one that begins then."""
    return day_start(zone, _later(width, local_date(zone, start_us), count))


@dataclass(frozen=True, slots=True)
class Cover:
    """A day or month of a zone, as what it is put together from."""

    start_us: int
    label_us: int
    """When the day or month of UTC begins that has the same date."""
    hours: Mapping[int, int]
    """Hours that are added to that one, or taken off it: 1 or -1, by their beginning."""


def list_covers(zone: ZoneInfo, width: Width, start_us: int, end_us: int) -> Iterator[Cover]:
    """Yield the days or months of a zone from one to another.

    Raises:
        PenstockError: `GROUPING_UNKNOWN`: one begins between full hours; no figures are so fine.
    """
    while start_us < end_us:
        day = local_date(zone, start_us)
        behind = _later(width, day, 1)
        behind_us = day_start(zone, behind)
        hours = dict(_between(start_us, _label(day)))
        # At the end it is the other way round: what is before the label's end is not in it.
        hours |= {hour: -sign for hour, sign in _between(behind_us, _label(behind))}
        yield Cover(start_us, _label(day), hours)
        start_us = behind_us


def hours_of(covers: Iterable[Cover]) -> dict[int, list[tuple[int, int]]]:
    """Return of each hour which buckets it is in: their labels, each with its sign."""
    found: dict[int, list[tuple[int, int]]] = {}
    for cover in covers:
        for hour_us, sign in cover.hours.items():
            found.setdefault(hour_us, []).append((cover.label_us, sign))
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


def _between(start_us: int, label_us: int) -> Iterator[tuple[int, int]]:
    """Yield the hours by which a beginning is before its label, or, with -1, behind it."""
    if start_us % _HOUR_US:
        message = "days of that zone begin between full hours then"
        raise PenstockError(GROUPING_UNKNOWN, message)
    sign = 1 if start_us < label_us else -1
    first, last = sorted((start_us, label_us))
    for hour_us in range(first, last, _HOUR_US):
        yield hour_us, sign


def _later(width: Width, day: date, count: int) -> date:
    if width == "month":
        months = min(day.year * 12 + day.month - 1 + count, _LAST_DAY.year * 12 + 11)
        return date(months // 12, months % 12 + 1, 1)
    return day + timedelta(days=min(count, (_LAST_DAY - day).days))


def _label(day: date) -> int:
    return microseconds(datetime(day.year, day.month, day.day, tzinfo=UTC)) or 0


def _offset(zone: ZoneInfo, moment: datetime) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()
