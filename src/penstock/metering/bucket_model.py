"""What figures of hours, days and months are asked for by. Times are microseconds, in UTC."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, Protocol, TypeAlias, TypeVar, get_args
from zoneinfo import ZoneInfo

from penstock.contract.usage import Meter

Width = Literal["hour", "day", "month"]
Grain = Literal["quarter", "eighth"]
"""What edges of days of zones are put together from: quarters of hours, eighths of days."""
Stretch: TypeAlias = tuple[int, int]
"""From when to when."""
Dimension = Literal["organization", "project", "key_id", "model", "data_class", "region"]
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)
LABEL = "label_value"
"""What results are grouped by besides when a label is named: the values that it has."""
MAX_RESULTS = 1_000
"""Most results on one page."""


class BucketPosition(NamedTuple):
    """A place in the order of results: just behind one of them."""

    start_us: int
    group: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketQuery:
    """Which figures are meant, and how they are added up."""

    width: Width
    since_us: int | None = None
    """In the first bucket that is meant; the oldest when None."""
    until_us: int | None = None
    """Behind the last one, or in it; the newest when None."""
    group_by: tuple[str, ...] = ()
    """Some of `DIMENSIONS`, and `LABEL`: in the order in which results have them."""
    label: str | None = None
    """Name of the label whose values are meant by `LABEL`."""
    filters: Mapping[str, str | tuple[str, ...]]
    """What dimensions must be; of several values, one of them."""
    zone: ZoneInfo | None = None
    """Whose days and months are meant; those of UTC when None."""
    after: BucketPosition | None = None
    limit: int = MAX_RESULTS
    """Most results, 1..MAX_RESULTS."""

    @property
    def names(self) -> set[str]:
        """All that a table must have: what results are grouped by, and what must be so."""
        return {*self.group_by, *self.filters}


class Part(NamedTuple):
    """What is read at once: results of some buckets, in order of time and group."""

    start_us: int
    """Where the first bucket begins."""
    end_us: int
    """Where the last one ends."""
    after: BucketPosition | None
    """Behind which result."""
    limit: int
    """Most results."""
    stretches: Sequence[Stretch] | None = None
    """If not hours, days or months are meant but these."""
    grain: Grain | None = None
    """What these are put together from."""


class InBucket(Protocol):
    """A result: the figures of one group in one bucket."""

    @property
    def start_us(self) -> int:
        """When the bucket begins."""
        ...

    @property
    def group(self) -> tuple[str, ...]:
        """The values of `BucketQuery.group_by`."""
        ...


Result = TypeVar("Result", bound=InBucket)


@dataclass(frozen=True, slots=True)
class BucketPage(Generic[Result]):
    """A part of what is meant, in order of time and group."""

    results: list[Result]
    next_page: str | None
    """Where to go on; None when there is nothing more."""


@dataclass(frozen=True, slots=True)
class UsageResult:
    """What one group consumed in one bucket."""

    start_us: int
    group: tuple[str, ...]
    figures: Mapping[Meter, int]
    """By meter; no token is on two of them."""


@dataclass(frozen=True, slots=True)
class LatencyResult:
    """How long the requests of one group took in one bucket, and how they ended."""

    start_us: int
    group: tuple[str, ...]
    counts: Mapping[str, Mapping[str, int]]
    """`latency_rules.Counts`."""
