"""Decisions about hours, days and months that figures are asked for by: pure, no clock, no I/O."""

import base64
import binascii
from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec

from penstock.kit.moments import microseconds
from penstock.metering.bucket_model import (
    LABEL,
    BucketPage,
    BucketPosition,
    BucketQuery,
    Part,
    Result,
    Width,
)
from penstock.metering.zone_rules import EIGHTH_US, QUARTER_US, local_advance, local_start

HOUR_US = 4 * QUARTER_US
DAY_US = 24 * HOUR_US
_UNITS: dict[Width, int] = {"hour": HOUR_US, "day": DAY_US}
_FIRST_SPAN = 1
_MOST_GROWTH = 32
_MAX_MOMENT_US = 253_370_764_800_000_000
"""The year 9999 begins."""

Fetch = Callable[[Part], Awaitable[list[Result]]]


def quarter_start(at_us: int) -> int:
    """Return when the quarter of an hour begins that a moment is in."""
    return at_us - at_us % QUARTER_US


def eighth_start(at_us: int) -> int:
    """Return when the eighth of a day begins that a moment is in."""
    return at_us - at_us % EIGHTH_US


def bucket_start(width: Width, at_us: int, zone: ZoneInfo | None = None) -> int:
    """Return when the bucket begins that a moment is in; of a zone, or of UTC.

    >>> bucket_start("day", 1_781_524_800_000_001) == 1_781_481_600_000_000
    True
    """
    if zone is not None and width != "hour":
        return local_start(zone, width, at_us)
    if width == "month":
        moment = datetime.fromtimestamp(at_us // 1_000_000, UTC)
        return _month(moment.year, moment.month)
    return at_us - at_us % _UNITS[width]


def advance(width: Width, start_us: int, count: int, zone: ZoneInfo | None = None) -> int:
    """Return when the bucket begins that is so many behind the one that begins then.

    >>> advance("month", bucket_start("month", 1_781_524_800_000_000), 7) == 1_798_761_600_000_000
    True
    """
    if zone is not None and width != "hour":
        return local_advance(zone, width, start_us, count)
    if width == "month":
        moment = datetime.fromtimestamp(start_us // 1_000_000, UTC)
        months = min(moment.year * 12 + moment.month - 1 + count, 9_999 * 12 - 1)
        return _month(months // 12, months % 12 + 1)
    return start_us + count * _UNITS[width]


def snap(query: BucketQuery, first_us: int, last_us: int) -> tuple[int, int]:
    """Return from where to where whole buckets are meant that there can be figures in.

    Args:
        query: What is asked for: a bucket that it touches is meant as a whole.
        first_us: The oldest moment that there is a figure of.
        last_us: The newest one.
    """
    width, zone = query.width, query.zone
    start_us = bucket_start(width, first_us, zone)
    if query.since_us is not None:
        start_us = max(start_us, bucket_start(width, _within(query.since_us), zone))
    end_us = advance(width, bucket_start(width, last_us, zone), 1, zone)
    if query.until_us is not None:
        until_us = _within(query.until_us)
        floor_us = bucket_start(width, until_us, zone)
        is_whole = floor_us == until_us
        end_us = min(end_us, floor_us if is_whole else advance(width, floor_us, 1, zone))
    return start_us, end_us


def find_fault(query: BucketQuery, label_dimensions: Collection[str]) -> str | None:
    """Return why figures are not kept in the way that they are asked for, or None.

    Args:
        query: What is asked for.
        label_dimensions: What figures of labels are kept by, besides.
    """
    if query.label is None:
        return None
    if query.width == "hour":
        return "figures of labels are kept by day"
    if query.zone is not None:
        return "figures of labels are kept by day of UTC, not of a time zone"
    others = sorted(query.names - {LABEL, *label_dimensions})
    if others:
        return f"figures of labels are not kept by {', '.join(others)}"
    return None


async def collect(
    query: BucketQuery, start_us: int, end_us: int, fetch: Fetch[Result], *, is_single: bool = False
) -> BucketPage[Result]:
    """Return a page of results, reading no more than about what it needs.

    A page of many groups is full after a few buckets, and one without groups needs all of them: so
    the buckets are asked for in spans, as long as those before let expect.

    Args:
        query: What is asked for.
        start_us: Where the first bucket that is meant begins.
        end_us: Where the last one ends.
        fetch: Reads a part.
        is_single: Whether it can read one bucket at a time only.
    """
    after = query.after
    if after is not None:
        # Without groups a bucket has one result, and that was it.
        passed = 0 if after.group else 1
        start_us = max(start_us, advance(query.width, after.start_us, passed, query.zone))
    results: list[Result] = []
    # Without groups a bucket has one result at most.
    span = _FIRST_SPAN if query.group_by else query.limit + 1
    read = 0
    while start_us < end_us and len(results) <= query.limit:
        span = 1 if is_single else span
        span_end_us = min(advance(query.width, start_us, span, query.zone), end_us)
        wanted = query.limit + 1 - len(results)
        results += await fetch(Part(start_us, span_end_us, after, wanted))
        start_us = span_end_us
        read += span
        missing = query.limit + 1 - len(results)
        most = span * _MOST_GROWTH
        span = min(most, missing * read // len(results) + 1) if results else most
    if len(results) <= query.limit:
        return BucketPage(results, None)
    results = results[: query.limit]
    return BucketPage(results, format_page(BucketPosition(results[-1].start_us, results[-1].group)))


def format_page(position: BucketPosition) -> str:
    """Return a position as the opaque word that a caller hands back."""
    content = msgspec.json.encode([position.start_us, *position.group])
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def find_page(page: str, group_count: int) -> BucketPosition | None:
    """Return the position that `format_page` wrote, or None when it is none of such a query."""
    try:
        content = base64.b64decode(page + "=" * (-len(page) % 4), altchars=b"-_", validate=True)
        start_us, *group = msgspec.json.decode(content, type=list[int | str])
    except (binascii.Error, msgspec.DecodeError, ValueError):
        return None
    texts = tuple(part for part in group if isinstance(part, str) and "\0" not in part)
    is_sound = isinstance(start_us, int) and 0 <= start_us < _MAX_MOMENT_US
    if not is_sound or len(texts) != len(group) or len(group) != group_count:
        return None
    return BucketPosition(int(start_us), texts)


def _within(at_us: int) -> int:
    return min(max(at_us, 0), _MAX_MOMENT_US)


def _month(year: int, month: int) -> int:
    return microseconds(datetime(year, month, 1, tzinfo=UTC)) or 0
