"""Every SQL statement about how long requests took, each within a scope."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, select, tuple_, update

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
_ROWS = Bulk(UsageLatencyHours, (*(column.key for column in _KEY), "counts"))


async def add_counts(
    session: WriteSession, scope: Scope, found: Mapping[LatencyCell, Counts]
) -> None:
    """Add to the histograms that are there; everybody locks them in the same order."""
    if not found:
        return
    scope.require(cell.organization for cell in found)
    cells = sorted(found)
    await session.insert_many_new(_ROWS, [(*cell, {}) for cell in cells])
    types = [column.type for column in _KEY]
    statement = (
        select(*_KEY, UsageLatencyHours.counts)
        .where(tuple_(*_KEY).in_([tuple_(*cell, types=types) for cell in cells]))
        .order_by(*_KEY)
        .with_for_update()
    )
    rows = []
    for *key, there in await session.rows(statement):
        cell = LatencyCell(*key)
        merge(found[cell], there)
        key_of = {f"key_{column.key}": part for column, part in zip(_KEY, cell, strict=True)}
        rows.append({**key_of, "to_counts": found[cell]})
    is_row = (column == bindparam(f"key_{column.key}", type_=column.type) for column in _KEY)
    changed = update(UsageLatencyHours).where(*is_row).values(counts=bindparam("to_counts"))
    await session.change_many(changed, rows)


async def list_counts(
    session: ReadSession, scope: Scope, query: BucketQuery, part: Part
) -> list[tuple[int, tuple[str, ...], Mapping[str, Mapping[str, int]]]]:
    """Return what each hour of a part counts, by the query's group; several rows may have one."""
    table = UsageLatencyHours
    groups: list[Any] = [getattr(table, name) for name in query.group_by]
    statement = select(table.at, *groups, table.counts).where(
        scope.where(table.organization),
        table.at >= part.start_us,
        table.at < part.end_us,
        *(getattr(table, name) == value for name, value in query.filters.items()),
    )
    return [(at, tuple(group), counts) for at, *group, counts in await session.rows(statement)]
