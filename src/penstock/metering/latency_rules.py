"""How long requests took, as histograms that add up: pure, no clock, no I/O.

A time falls in a bucket of whole microseconds. Up to 15 each number has its own; above, each
doubling is cut in `_PARTS` equal parts, so the middle of a bucket is at most 1/16 away from what is
in it.

Source: the layout of HdrHistogram, with three bits below the highest one.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Literal, TypeAlias, get_args

from penstock.contract.usage import UsageEvent
from penstock.metering.bucket_rules import bucket_start
from penstock.metering.model import LatencyCell

Measure = Literal["time_to_first_token", "time_per_output_token", "request_duration"]
MEASURES: Final[tuple[Measure, ...]] = get_args(Measure)
OUTCOMES: Final = "outcomes"
"""Where it is counted beside the measures how requests ended."""
Counts: TypeAlias = dict[str, dict[str, int]]
"""How many requests are in each bucket of each measure, by the bucket's number as a text, and how
many ended with each outcome."""

_PARTS: Final = 8
_MOST_US: Final = 2**53
"""More than 285 years: what is said to have taken longer did not."""


def bucket_of(time_us: int) -> int:
    """Return the number of the bucket that a time falls in.

    >>> [bucket_of(time_us) for time_us in (0, 15, 16, 17, 18, 1_000_000)]
    [0, 15, 16, 16, 17, 143]
    """
    time_us = min(max(time_us, 0), _MOST_US)
    doublings = max(time_us.bit_length() - 4, 0)
    return _PARTS * doublings + (time_us >> doublings)


def middle_us(bucket: int) -> float:
    """Return the middle of the times that fall in a bucket.

    >>> [middle_us(bucket) for bucket in (0, 15, 16, 17)]
    [0.0, 15.0, 16.5, 18.5]
    """
    doublings = max(bucket // _PARTS - 1, 0)
    return float((bucket - _PARTS * doublings) << doublings) + ((1 << doublings) - 1) / 2


def quantile_us(buckets: Mapping[str, int], percentage: int) -> float:
    """Return the time that so many of a hundred requests took at most, within 1/16 of it.

    Args:
        buckets: How many are in each; at least one request.
        percentage: 1..100; the request of that rank, rounded up, is meant.
    """
    rank = -(-sum(buckets.values()) * percentage // 100)
    passed = 0
    for bucket in sorted(map(int, buckets)):
        passed += buckets[str(bucket)]
        if passed >= rank:
            return middle_us(bucket)
    message = "nothing is in the histogram"
    raise ValueError(message)


def times_of(event: UsageEvent) -> Iterator[tuple[Measure, int]]:
    """Yield what an event says of times, in microseconds.

    Only a stream says when its first token came, and only one of several tokens how long each took.
    How long a request took is counted of those that ended well: others end at any time.
    """
    first_ns = event.first_byte_at_ns
    if event.is_stream and first_ns is not None:
        yield "time_to_first_token", (first_ns - event.started_at_ns) // 1_000
        if event.output_tokens > 1:
            each_ns = (event.finished_at_ns - first_ns) // (event.output_tokens - 1)
            yield "time_per_output_token", each_ns // 1_000
    if event.outcome == "ok":
        yield "request_duration", (event.finished_at_ns - event.started_at_ns) // 1_000


def count_times(events: Iterable[UsageEvent]) -> dict[LatencyCell, Counts]:
    """Return what events add to the histograms of the hours in which they were let in."""
    found: dict[tuple[Any, ...], defaultdict[str, list[str]]] = {}
    for event in events:
        hour_us = bucket_start("hour", event.started_at_ns // 1_000)
        cell = (event.organization, hour_us, event.project, event.model)
        words = found.get(cell)
        if words is None:
            words = found[cell] = defaultdict(list)
        words[OUTCOMES].append(event.outcome)
        for measure, time_us in times_of(event):
            words[measure].append(str(bucket_of(time_us)))
    return {
        LatencyCell(*cell): {name: Counter(each) for name, each in words.items()}
        for cell, words in found.items()
    }


def merge(counts: Counts, others: Mapping[str, Mapping[str, int]]) -> None:
    """Add what others count to the first; it takes as long as the others are large."""
    for measure, buckets in others.items():
        sums = counts.setdefault(measure, {})
        for bucket, count in buckets.items():
            sums[bucket] = sums.get(bucket, 0) + count
