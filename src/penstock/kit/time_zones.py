"""Time zones: which there are, what day it is there, and when a day begins there."""

import functools
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def find_zone(name: str) -> ZoneInfo | None:
    """Return a time zone by its IANA name, e.g. `Europe/Berlin`; None when there is none.

    >>> find_zone("Europe/Berlin"), find_zone("Europe"), find_zone("localtime")
    (zoneinfo.ZoneInfo(key='Europe/Berlin'), None, None)
    """
    # Places have a capital. What has none is the machine's own, and another one on the next.
    if not name[:1].isupper():
        return None
    try:
        return _zone(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def local_date(zone: ZoneInfo, at_us: int) -> date:
    """Return what day it is in a zone.

    Args:
        zone: Whose calendar it is.
        at_us: The moment, microseconds since the Unix epoch, before the year 9999.
    """
    return (_EPOCH + at_us * _MICROSECOND).astimezone(zone).date()


def day_start(zone: ZoneInfo, day: date) -> int:
    """Return when a day begins in a zone, in microseconds since the Unix epoch.

    Of two midnights it is the earlier one; for one that clocks skip, the moment in which they do.
    """
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    return (midnight.astimezone(UTC) - _EPOCH) // _MICROSECOND


@functools.lru_cache(maxsize=1_000)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
