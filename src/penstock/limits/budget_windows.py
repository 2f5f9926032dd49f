"""The windows of budgets: days and months of the calendar, in a time zone. Pure.

Every moment is in exactly one window, and each begins where the one before it ends, whatever clocks
of that zone do: a day has 23 to 25 hours there, and some nights have no midnight, or two.
"""

import functools
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

Period: TypeAlias = Literal["day", "month", "once"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DAY = timedelta(days=1)
LAST_US = 4_102_444_800_000_000
"""The year 2100: later moments are taken for this one, for dates end somewhere."""


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time that a budget is for; microseconds since the Unix epoch."""

    starts_at_us: int
    ends_at_us: int | None
    """None when it has no end."""


def find_zone(name: str) -> ZoneInfo | None:
    """Return a time zone by its IANA name, e.g. `Europe/Berlin`; None when there is none."""
    try:
        return _zone(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def window_at(period: Period, zone: ZoneInfo, at_us: int) -> Window:
    """Return the window that a moment is in.

    Args:
        period: `once` is one window without an end.
        zone: Whose calendar it is.
        at_us: The moment, >= 0.
    """
    if period == "once":
        return Window(0, None)
    at_us = min(at_us, LAST_US)
    first = (_EPOCH + at_us * _MICROSECOND).astimezone(zone).date()
    if period == "month":
        first = first.replace(day=1)
    # Where clocks are put back over midnight, a date comes again after the next one has begun.
    if _start_us(_next(period, first), zone) <= at_us:
        first = _next(period, first)
    return Window(_start_us(first, zone), _start_us(_next(period, first), zone))


def _next(period: Period, first: date) -> date:
    if period == "day":
        return first + _DAY
    return (first + 31 * _DAY).replace(day=1)


def _start_us(first: date, zone: ZoneInfo) -> int:
    # Of two midnights the earlier one; for one that clocks skip, the moment in which they do.
    midnight = datetime(first.year, first.month, first.day, tzinfo=zone)
    return (midnight.astimezone(UTC) - _EPOCH) // _MICROSECOND


@functools.lru_cache(maxsize=1_000)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
