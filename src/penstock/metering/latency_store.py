"""Every SQL statement about how long requests took, each within a scope."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Select, Text, cast, select

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
    """Add to the histograms that are there; everybody locks them in the same order.

    None is locked before all are there: whoever makes one may wait for somebody who makes it, too,
    and must have nothing that this one waits for.
    """
    if not found:
        return
    scope.require(cell.organization for cell in found)
    cells = sorted(found)
    rows: Sequence[Any] = await session.rows(_of(scope, cells, *_KEY))
    known = {LatencyCell(*key) for key in rows}
    missing = [cell for cell in cells if cell not in known]
    if missing:
        # Somebody else may make them at the same time: then theirs are locked, and added to.
        await session.insert_many_new(_ROWS, [(*cell, {}) for cell in missing])
    locked = _of(scope, cells, *_KEY, UsageLatencyHours.counts).order_by(*_KEY).with_for_update()
    rows = await session.rows(locked)
    there = {LatencyCell(*key): counts for *key, counts in rows}
    for cell in cells:
        merge(there[cell], found[cell])
    await session.add_many(_ROWS, [(*cell, there[cell]) for cell in cells])


def _of(scope: Scope, cells: Sequence[LatencyCell], *columns: Any) -> Select[Any]:
    """Return what reads columns of cells, and maybe of others that have a part of each of some."""
    # Not cell by cell: to write hundreds of them into a statement takes longer than all the rest.
    parts = zip(_KEY, zip(*cells, strict=True), strict=True)
    return select(*columns).where(
        scope.where(UsageLatencyHours.organization),
        *(column.in_(sorted({*values})) for column, values in parts),
    )


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
