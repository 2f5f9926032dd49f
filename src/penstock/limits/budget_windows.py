"""The windows of budgets: days and months of the calendar, in a time zone. Pure.

Every moment is in exactly one window, and each begins where the one before it ends, whatever clocks
of that zone do: a day has 23 to 25 hours there, and some nights have no midnight, or two.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal, TypeAlias
from zoneinfo import ZoneInfo

from penstock.kit.time_zones import day_start, local_date

Period: TypeAlias = Literal["day", "month", "once"]

_DAY = timedelta(days=1)
LAST_US = 4_102_444_800_000_000
"""The year 2100: later moments are taken for this one, for dates end somewhere."""


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time that a budget is for; microseconds since the Unix epoch."""

    starts_at_us: int
    ends_at_us: int | None
    """None when it has no end."""


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
    first = local_date(zone, at_us)
    if period == "month":
        first = first.replace(day=1)
    # Where clocks are put back over midnight, a date comes again after the next one has begun.
    if day_start(zone, _next(period, first)) <= at_us:
        first = _next(period, first)
    return Window(day_start(zone, first), day_start(zone, _next(period, first)))


def _next(period: Period, first: date) -> date:
    if period == "day":
        return first + _DAY
    return (first + 31 * _DAY).replace(day=1)
