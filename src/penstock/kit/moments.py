"""Points in time: microseconds since the Unix epoch inside, ISO 8601 in UTC outside."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def format_time(time_us: int) -> str:
    """Return microseconds since the Unix epoch as ISO 8601 in UTC.

    >>> format_time(1_781_524_800_000_001)
    '2026-06-15T12:00:00.000001Z'
    """
    second, rest_us = divmod(time_us, 1_000_000)
    return f"{_format_second(second)}.{rest_us:06}Z"


@lru_cache(maxsize=1_024)
def _format_second(second: int) -> str:
    """Return a second without its zone: many moments of few seconds are told."""
    return (_EPOCH + timedelta(seconds=second)).isoformat()[:-6]


def microseconds(moment: datetime | None) -> int | None:
    """Return a moment as microseconds since the Unix epoch; None for none."""
    return None if moment is None else (moment - _EPOCH) // _MICROSECOND
