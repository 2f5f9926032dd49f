"""Figures of days and months of a time zone, from those of UTC and what is at their edges."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeAlias

from penstock.metering.bucket_model import BucketPosition, BucketQuery, Part, Result
from penstock.metering.zone_rules import Cover, edges_of, list_covers

_ALL = 2**31 - 1

Read: TypeAlias = Callable[[Part], Awaitable[list[Result]]]
"""Reads figures of UTC, of stretches or as wide as the query says."""
Place: TypeAlias = tuple[int, tuple[str, ...]]
"""The label of a bucket, and a group."""
Add: TypeAlias = Callable[[int, tuple[str, ...], Iterable[tuple[int, Result]]], Result | None]
"""Adds up what a bucket is put together from, each 1 or -1 times; None when nothing is left."""


@dataclass(frozen=True, slots=True)
class ZoneReader(Generic[Result]):
    """Reads parts of what a query with a time zone means; see `bucket_rules.collect`."""

    query: BucketQuery
    read: Read[Result]
    add: Add[Result]

    async def fetch(self, part: Part) -> list[Result]:
        """Return results of the zone's buckets, in order of time and group."""
        zone = self.query.zone
        assert zone is not None  # noqa: S101 - nobody else makes one
        covers = list(list_covers(zone, self.query.width, part.start_us, part.end_us))
        return await self._fetch_covers(covers, part.after, part.limit)

    async def _fetch_covers(
        self, covers: Sequence[Cover], after: BucketPosition | None, limit: int
    ) -> list[Result]:
        behind = None if after is None else _find_label(covers, after)
        found: list[Result] = []
        while True:
            start_us = covers[0].label_us
            if behind is not None:
                # Without groups a bucket has one result, and that was it.
                start_us = behind.start_us + (0 if behind.group else 1)
            part = Part(start_us, covers[-1].label_us + 1, behind, limit)
            days = await self.read(part)
            end = None
            if len(days) >= limit:
                end = BucketPosition(days[-1].start_us, days[-1].group)
            results = await self._put_together(covers, days, behind, end)
            found += islice(results, limit - len(found))
            if end is None or len(found) >= limit:
                return found
            behind = end

    async def _put_together(
        self,
        covers: Sequence[Cover],
        days: Sequence[Result],
        behind: BucketPosition | None,
        end: BucketPosition | None,
    ) -> Iterator[Result]:
        """Return results of which all is known: those behind one place, up to another."""
        meant = {
            cover.label_us: cover
            for cover in covers
            if (behind is None or cover.label_us >= behind.start_us)
            and (end is None or cover.label_us <= end.start_us)
        }
        terms: dict[Place, list[tuple[int, Result]]] = {}

        def keep(place: Place, sign: int, result: Result) -> None:
            if (behind is None or place > behind) and (end is None or place <= end):
                terms.setdefault(place, []).append((sign, result))

        for day in days:
            keep((day.start_us, day.group), 1, day)
        for grain, labels_of in edges_of(meant.values()).items():
            # No two edges of a grain begin at the same time.
            by_start = {stretch[0]: labels for stretch, labels in labels_of.items()}
            ends = covers[0].start_us, covers[-1].label_us
            part = Part(*ends, None, _ALL, sorted(labels_of), grain)
            for edge in await self.read(part):
                for label_us, sign in by_start[edge.start_us]:
                    keep((label_us, edge.group), sign, edge)
        # One after the other: a page is often full before.
        added = (
            self.add(meant[place[0]].start_us, place[1], terms[place])
            for place in sorted(terms)
            if place[0] in meant
        )
        return (result for result in added if result is not None)


def _find_label(covers: Sequence[Cover], after: BucketPosition) -> BucketPosition | None:
    """Return a result's place among labels; None when it is before all of them."""
    labels = [cover.label_us for cover in covers if cover.start_us <= after.start_us]
    return BucketPosition(labels[-1], after.group) if labels else None
