"""Every SQL statement about how long requests took, each within a scope."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Text, cast, select

from penstock.metering.bucket_model import BucketQuery, Part
from penstock.metering.bucket_store import Source
from penstock.metering.latency_rules import Counts, merge
from penstock.metering.model import LatencyCell
from penstock.metering.tables import UsageLatencyHours
from penstock.storage.bulk import Bulk
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession, WriteSession

SOURCE = Source.of(UsageLatencyHours, "hour")
_KEY = (
    UsageLatencyHours.organization,
    UsageLatencyHours.at,
    UsageLatencyHours.project,
    UsageLatencyHours.model,
)
_ROWS = Bulk(UsageLatencyHours, (*(column.key for column in _KEY), "counts"), replaced=("counts",))


async def add_counts(
    session: WriteSession, scope: Scope, found: Mapping[LatencyCell, Counts]
) -> None:
    """Add to the histograms that are there; everybody locks them in the same order."""
    if not found:
        return
    scope.require(cell.organization for cell in found)
    cells = sorted(found)
    there = await _lock(session, scope, cells)
    missing = [cell for cell in cells if cell not in there]
    if missing:
        # Somebody else may make them at the same time: then theirs are locked, and added to.
        await session.insert_many_new(_ROWS, [(*cell, {}) for cell in missing])
        there = await _lock(session, scope, cells)
    for cell in cells:
        merge(there[cell], found[cell])
    await session.add_many(_ROWS, [(*cell, there[cell]) for cell in cells])


async def _lock(
    session: WriteSession, scope: Scope, cells: Sequence[LatencyCell]
) -> dict[LatencyCell, Counts]:
    """Return what is there of cells, and maybe of others that have a part of each of some."""
    # Not cell by cell: to write hundreds of them into a statement takes longer than all the rest.
    parts = zip(_KEY, zip(*cells, strict=True), strict=True)
    statement = (
        select(*_KEY, UsageLatencyHours.counts)
        .where(
            scope.where(UsageLatencyHours.organization),
            *(column.in_(sorted({*values})) for column, values in parts),
        )
        .order_by(*_KEY)
        .with_for_update()
    )
    return {LatencyCell(*key): counts for *key, counts in await session.rows(statement)}


async def list_counts(
    session: ReadSession, scope: Scope, query: BucketQuery, part: Part
) -> list[tuple[int, tuple[str, ...], str]]:
    """Return what each hour of a part counts, by the query's group; several rows may have one.

    Counts are the text that the database keeps: to read many of them is work for a thread.
    """
    table = UsageLatencyHours
    groups: list[Any] = [getattr(table, name) for name in query.group_by]
    statement = select(table.at, *groups, cast(table.counts, Text)).where(
        scope.where(table.organization),
        table.at >= part.start_us,
        table.at < part.end_us,
        *(getattr(table, name) == value for name, value in query.filters.items()),
    )
    return [(at, tuple(group), counts) for at, *group, counts in await session.rows(statement)]
