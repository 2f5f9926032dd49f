"""Days and months, in UTC, that moments are in."""

import re
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DAY_US = 86_400 * 1_000_000
_UUID7 = re.compile(r"([0-9a-f]{8})-([0-9a-f]{4})-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def day_of(event_id: str) -> int:
    """Return the day in an event's id, in days since the Unix epoch; 0 when it has none."""
    found = _UUID7.fullmatch(event_id)
    return 0 if found is None else int(found[1] + found[2], 16) // 86_400_000


def month_start_us(at_us: int) -> int:
    """Return when the month of a moment began.

    >>> month_start_us(1_781_524_800_000_001) == 1_780_272_000_000_000
    True
    """
    moment = _EPOCH + at_us * _MICROSECOND
    start = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (start - _EPOCH) // _MICROSECOND


def day_start_us(at_us: int) -> int:
    """Return when the day of a moment began."""
    return at_us - at_us % _DAY_US
