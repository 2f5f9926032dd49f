"""How long requests took by hour and day, and by group."""

import asyncio
import json
from collections.abc import Iterable

from penstock.metering import latency_store as store
from penstock.metering.bucket_model import BucketPage, BucketQuery, LatencyResult, Part, Width
from penstock.metering.bucket_rules import bucket_start, collect, snap
from penstock.metering.bucket_store import find_ends
from penstock.metering.latency_rules import Counts, merge
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession


async def list_latency(
    session: ReadSession, scope: Scope, query: BucketQuery
) -> BucketPage[LatencyResult]:
    """Return a page of histograms of groups, in order of time and group.

    A bucket that the query's times touch is meant as a whole.

    Args:
        session: Where from.
        scope: Whose.
        query: Which, by hours or days of UTC, and by organization, project and model.
    """
    ends = await find_ends(session, scope, query, store.SOURCE)
    if ends is None:
        return BucketPage([], None)

    async def fetch(part: Part) -> list[LatencyResult]:
        rows = await store.list_counts(session, scope, query, part)
        # A month of many projects takes seconds: others are answered meanwhile.
        sums = await asyncio.to_thread(_add_up, query.width, rows)
        behind = (-1, ()) if part.after is None else part.after
        places = [place for place in sorted(sums) if place > behind]
        return [LatencyResult(*place, sums[place]) for place in places[: part.limit]]

    return await collect(query, *snap(query, *ends), fetch)


def _add_up(
    width: Width, rows: Iterable[tuple[int, tuple[str, ...], str]]
) -> dict[tuple[int, tuple[str, ...]], Counts]:
    """Return what histograms of hours come to, by bucket and group."""
    sums: dict[tuple[int, tuple[str, ...]], Counts] = {}
    for at_us, group, counts in rows:
        merge(sums.setdefault((bucket_start(width, at_us), group), {}), json.loads(counts))
    return sums
