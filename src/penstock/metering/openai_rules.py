"""Decisions about the pages that OpenAI's usage API has: pure, no clock, no I/O.

A page has a number of buckets, those without usage too, where our own has a number of results.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic

from penstock.contract.usage import Meter
from penstock.metering.bucket_model import BucketPosition, Part, Result, UsageResult, Width
from penstock.metering.bucket_rules import advance, bucket_start, find_page, format_page

MAX_PAGE_RESULTS = 10_000
"""A page of many groups has fewer buckets than asked for, and maybe a part of the last one."""


@dataclass(frozen=True, slots=True)
class Span:
    """The buckets of a page."""

    width: Width
    start_us: int
    end_us: int
    until_us: int
    """Where the last bucket of all pages ends."""
    after: BucketPosition | None
    """Behind which result of the first one."""

    @property
    def part(self) -> Part:
        """What is read of a table whose rows are as long as a bucket."""
        return Part(self.start_us, self.end_us, self.after, MAX_PAGE_RESULTS + 1)


@dataclass(frozen=True, slots=True)
class OpenAiPage(Generic[Result]):
    """Buckets in order of time, each with its results in order of the group."""

    buckets: list[tuple[int, int, list[Result]]]
    """When each begins and ends."""
    next_page: str | None


def find_span(
    width: Width, since_us: int, until_us: int, limit: int, after: BucketPosition | None
) -> Span:
    """Return the buckets of a page.

    Args:
        width: How long a bucket is.
        since_us: In the first bucket that is meant.
        until_us: Behind the last one, or in it.
        limit: How many buckets a page has.
        after: Where the page begins; with `since_us` when None.
    """
    end_us = bucket_start(width, max(until_us - 1, 0))
    end_us = advance(width, end_us, 1)
    start_us = bucket_start(width, since_us if after is None else max(after.start_us, since_us))
    return Span(
        width,
        start_us,
        max(min(advance(width, start_us, limit), end_us), start_us),
        end_us,
        after if after is not None and after.group else None,
    )


def find_position(page: str, group_count: int) -> BucketPosition | None:
    """Return where a page begins: in a bucket, or behind a result; None when it is none."""
    return find_page(page, 0) or find_page(page, group_count)


def cut(results: Sequence[Result]) -> tuple[Sequence[Result], BucketPosition | None]:
    """Return as many results as a page may have, and where they end if there are more."""
    if len(results) <= MAX_PAGE_RESULTS:
        return results, None
    last = results[MAX_PAGE_RESULTS - 1]
    return results[:MAX_PAGE_RESULTS], BucketPosition(last.start_us, last.group)


def build_page(
    span: Span, results: Sequence[Result], end: BucketPosition | None
) -> OpenAiPage[Result]:
    """Return a page of results that are behind `span.after`.

    Args:
        span: Its buckets.
        results: In order of time and group.
        end: Where it ends before all its buckets do.
    """
    end_us, next_page = span.end_us, None
    if end is not None:
        end_us = advance(span.width, end.start_us, 1)
        next_page = format_page(end)
    elif end_us < span.until_us:
        next_page = format_page(BucketPosition(end_us, ()))
    of_bucket: dict[int, list[Result]] = {}
    for result in results:
        of_bucket.setdefault(result.start_us, []).append(result)
    buckets = []
    start_us = span.start_us
    while start_us < end_us:
        behind_us = advance(span.width, start_us, 1)
        buckets.append((start_us, behind_us, of_bucket.get(start_us, [])))
        start_us = behind_us
    return OpenAiPage(buckets, next_page)


def fold(hours: Sequence[UsageResult], width: Width) -> list[UsageResult]:
    """Return figures of hours as those of the buckets that they are in, in order."""
    sums: dict[tuple[int, tuple[str, ...]], dict[Meter, int]] = {}
    for hour in hours:
        place = sums.setdefault((bucket_start(width, hour.start_us), hour.group), {})
        for meter, figure in hour.figures.items():
            place[meter] = place.get(meter, 0) + figure
    return [UsageResult(*place, figures) for place, figures in sorted(sums.items())]


def take_off(results: Sequence[UsageResult], parts: Sequence[UsageResult]) -> list[UsageResult]:
    """Return results without parts of them; what nothing is left of is none."""
    off = {(part.start_us, part.group): part.figures for part in parts}
    left = []
    for result in results:
        place = (result.start_us, result.group)
        figures = _less(result.figures, off[place]) if place in off else result.figures
        if place not in off or any(figures.values()):
            left.append(UsageResult(*place, figures))
    return left


def _less(figures: Mapping[Meter, int], off: Mapping[Meter, int]) -> dict[Meter, int]:
    return {meter: figure - off.get(meter, 0) for meter, figure in figures.items()}
