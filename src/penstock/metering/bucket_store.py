"""Every SQL statement that reads figures of hours, days and months, each within a scope."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, Self, TypeAlias

from sqlalchemy import ColumnElement, Select, and_, or_, select, true, tuple_

from penstock.access.tables import ApiKeys
from penstock.contract.usage import METERS
from penstock.metering.bucket_model import (
    LABEL,
    BucketQuery,
    Grain,
    Part,
    UsageResult,
    Width,
)
from penstock.metering.tables import (
    UsageDays,
    UsageEighths,
    UsageEmbeddingHours,
    UsageLabelDays,
    UsageModelEighths,
    UsageModelQuarters,
    UsageMonths,
    UsageProjectDays,
    UsageProjectEighths,
    UsageProjectQuarters,
    UsageQuarters,
)
from penstock.storage.base import by_code_point, hour_start
from penstock.storage.exact_sums import read_sums
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession
from penstock.storage.spans import spans
from penstock.tenancy.tables import Organizations, Projects

_Place: TypeAlias = tuple[int, tuple[str, ...]]
"""When a bucket begins, and a group."""
_NAMED: Mapping[str, Any] = {
    "organization": (Organizations, Organizations.id),
    "project": (Projects, Projects.organization_id),
    "key_id": (ApiKeys, ApiKeys.organization_id),
}
"""What has a name besides its id: its table, and the column of its owner."""
_QUARTERS = (UsageQuarters, UsageProjectQuarters, UsageModelQuarters)
_EIGHTHS = (UsageEighths, UsageProjectEighths, UsageModelEighths)
"""For `find_smallest`."""


class Source(NamedTuple):
    """A table of figures."""

    table: Any
    width: Width
    """How long a bucket is that is read from it."""
    organization: Any
    """The column of whose figures they are."""
    at: Any
    """When the bucket of a row begins."""

    @classmethod
    def of(cls, table: Any, width: Width) -> Self:
        """Return a table whose rows are as long as a bucket, or of quarters: then of hours."""
        at = hour_start(table.at) if width == "hour" else table.at
        return cls(table, width, table.organization, at)


def find_source(query: BucketQuery) -> Source:
    """Return the smallest table that has what is asked for."""
    if query.label is not None:
        return Source.of(UsageLabelDays, "day")
    if query.width == "month":
        return Source.of(UsageMonths, "month")
    if query.width == "hour":
        return Source.of(find_smallest(query, *_QUARTERS), "hour")
    return Source.of(find_smallest(query, UsageDays, UsageProjectDays), "day")


def find_sources(query: BucketQuery) -> Mapping[Grain | None, Source]:
    """Return what `find_source` does, and what edges of days of zones are read from."""
    return {
        None: find_source(query),
        "quarter": Source.of(find_smallest(query, *_QUARTERS), "hour"),
        "eighth": Source.of(find_smallest(query, *_EIGHTHS), "day"),
    }


def find_smallest(query: BucketQuery, keys: Any, projects: Any, models: Any = None) -> Any:
    """Return the smallest of some tables that has what is asked for.

    Args:
        query: What is asked for.
        keys: The table that has all.
        projects: The one without keys.
        models: The one without projects, too, if there is one.
    """
    if "key_id" in query.names:
        return keys
    return projects if models is None or "project" in query.names else models


EMBEDDINGS = Source.of(UsageEmbeddingHours, "hour")
"""The part of all usage that is for embeddings."""


async def find_ends(
    session: ReadSession, scope: Scope, query: BucketQuery, source: Source
) -> tuple[int, int] | None:
    """Return the oldest and the newest moment that there are figures of, or None for none.

    They are those of the organization, if one is meant: what else is asked for may have less.
    """
    conditions = [scope.where(source.organization)]
    if "organization" in query.filters:
        conditions.append(_is(source.organization, query.filters["organization"]))
    if query.label is not None:
        conditions.append(source.table.name == query.label)
    ends = []
    # Each by itself is one look at an index; the two in one query would read all of it.
    for order in (source.table.at.asc(), source.table.at.desc()):
        row = await session.first(
            select(source.table.at).where(*conditions).order_by(order).limit(1)
        )
        if row is None:
            return None
        ends.append(row[0])
    return ends[0], ends[1]


async def list_usage(
    session: ReadSession,
    scope: Scope,
    query: BucketQuery,
    source: Source,
    part: Part,
) -> list[UsageResult]:
    """Return what groups consumed, in order of time and group.

    Args:
        session: Where from.
        scope: Whose.
        query: Which, and how grouped.
        source: What `find_source` returned.
        part: What of it; of one bucket when the rows of the source are shorter.
    """

    async def read(sums: Sequence[ColumnElement[Any]]) -> list[tuple[_Place, Sequence[Any]]]:
        rows = await list_groups(session, scope, query, source, part, sums=sums)
        return [((start_us, group), figures) for start_us, group, figures in rows]

    columns = [getattr(source.table, meter) for meter in METERS]
    return [
        UsageResult(*place, dict(zip(METERS, figures, strict=True)))
        for place, figures in await read_sums(read, columns)
    ]


async def list_groups(
    session: ReadSession,
    scope: Scope,
    query: BucketQuery,
    source: Source,
    part: Part,
    *,
    sums: Sequence[ColumnElement[Any]],
    more: Sequence[Any] = (),
    only: Sequence[ColumnElement[bool]] = (),
) -> list[tuple[int, tuple[str, ...], Sequence[Any]]]:
    """Return sums of groups, in order of time, group and what there is more.

    Args:
        session: As `list_usage`.
        scope: As there.
        query: As there.
        source: As there.
        part: As there.
        sums: What is added up.
        more: Columns that tell groups apart besides; they are the last of the group.
        only: What rows must be, besides.

    Returns:
        Of each: where its bucket begins, the group, and the sums.
    """
    table = source.table
    groups = [*(getattr(table, _column(name)) for name in query.group_by), *more]
    at, within = _time(source, part, is_postgresql=session.is_postgresql)
    is_kept = part.stretches is not None or source.width == query.width
    conditions = [
        scope.where(source.organization),
        *within,
        *(_is(getattr(table, name), value) for name, value in query.filters.items()),
    ]
    if query.label is not None:
        conditions.append(table.name == query.label)
    conditions += only
    conditions += _behind(part, at, groups, is_kept=is_kept)
    if part.stretches is not None and session.is_postgresql:
        statement = _of_each(at, select(*groups, *sums).where(*conditions).group_by(*groups))
    else:
        order = [at, *groups] if is_kept else groups
        statement = select(*order, *sums).where(*conditions).group_by(*order)
        ordered = [*order[: len(order) - len(groups)], *map(by_code_point, groups)]
        statement = statement.order_by(*ordered).limit(part.limit)
    found: list[tuple[int, tuple[str, ...], Sequence[Any]]] = []
    for row in await session.rows(statement):
        at_us, *rest = row if is_kept else (part.start_us, *row)
        if not groups and rest[0] is None:
            continue  # a sum of nothing
        found.append((at_us, tuple(rest[: len(groups)]), rest[len(groups) :]))
    return found


async def find_names(
    session: ReadSession, scope: Scope, ids: Mapping[str, Collection[str]]
) -> dict[str, dict[str, str]]:
    """Return what organizations, projects and keys are called now, by dimension and id."""
    names: dict[str, dict[str, str]] = {}
    for dimension, wanted in ids.items():
        if dimension in _NAMED and wanted:
            table, owner = _NAMED[dimension]
            statement = select(table.id, table.name).where(
                scope.where(owner), table.id.in_(sorted(wanted))
            )
            names[dimension] = {row.id: row.name for row in await session.rows(statement)}
    return names


def _is(column: Any, value: str | tuple[str, ...]) -> ColumnElement[bool]:
    found: ColumnElement[bool] = column.in_(value) if isinstance(value, tuple) else column == value
    return found


def _time(source: Source, part: Part, *, is_postgresql: bool) -> tuple[Any, list[Any]]:
    """Return when the bucket or stretch of a row begins, and which rows are in one."""
    at = source.table.at
    if part.stretches is None:
        return source.at, [at >= part.start_us, at < part.end_us]
    stretch = spans(part.stretches, is_postgresql=is_postgresql).c
    return stretch.first, [at >= stretch.first, at < stretch.behind]


def _of_each(first: Any, found: Select[Any]) -> Select[Any]:
    """Return what is found of each stretch, in any order.

    PostgreSQL takes a stretch for a ninth of the table, and would rather compare every row with
    every stretch: but not where it has to find what there is of one at a time.
    """
    each = found.correlate(first.table).lateral("each")
    return select(first, *each.c).select_from(first.table).join(each, true())


def _column(name: str) -> str:
    return "value" if name == LABEL else name


def _behind(
    part: Part, at: Any, groups: Sequence[Any], *, is_kept: bool
) -> list[ColumnElement[bool]]:
    after = part.after
    if after is None or not groups or after.start_us < part.start_us:
        return []
    types = [column.type for column in groups]
    is_behind = tuple_(*map(by_code_point, groups)) > tuple_(*after.group, types=types)
    if not is_kept:
        return [is_behind]
    return [or_(at > after.start_us, and_(at == after.start_us, is_behind))]
