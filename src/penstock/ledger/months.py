"""Months of the calendar, in UTC: what statements are made for."""

import re
from datetime import UTC, datetime, timedelta

from penstock.kit.moments import microseconds

_MONTH = re.compile(r"(?P<year>2[0-9]{3})-(?P<month>0[1-9]|1[0-2])")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def find_month(text: str) -> tuple[int, int] | None:
    """Return when a month begins and ends, the end excluded; None for what is no month.

    >>> find_month("2026-12")
    (1796083200000000, 1798761600000000)
    """
    match = _MONTH.fullmatch(text)
    if match is None:
        return None
    year, month = int(match["year"]), int(match["month"])
    start = datetime(year, month, 1, tzinfo=UTC)
    end = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
    return microseconds(start) or 0, microseconds(end) or 0


def month_of(at_us: int) -> str:
    """Return the month that a moment is in.

    >>> month_of(1_796_083_200_000_000)
    '2026-12'
    """
    return f"{_EPOCH + timedelta(microseconds=at_us):%Y-%m}"
