"""Every SQL statement of the metering room, each within a scope."""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, func, null, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from penstock.access.tables import ApiKeys
from penstock.contract.usage import UsageEvent
from penstock.metering.model import (
    Arrival,
    Position,
    TotalsBy,
    UsageFilter,
    UsageRow,
    UsageTotal,
)
from penstock.metering.rules import day_of
from penstock.metering.tables import UsageEventConflicts, UsageEvents
from penstock.storage.bulk import Bulk, Values
from penstock.storage.exact_sums import exact_sum, join_halves
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession, WriteSession
from penstock.tenancy.tables import Organizations, Projects

_EQUALS = (
    "organization",
    "project",
    "key_id",
    "model",
    "request_id",
    "event_id",
    "outcome",
)
_EVENT_COLUMNS = tuple(
    getattr(UsageEvents, name.removesuffix("_us"))
    for name in UsageRow.__dataclass_fields__
    if not name.endswith("_name")
)
_GROUPS: Mapping[TotalsBy, InstrumentedAttribute[str]] = {
    "organization": UsageEvents.organization,
    "project": UsageEvents.project,
    "key_id": UsageEvents.key_id,
    "model": UsageEvents.model,
}
_NAMED: Mapping[TotalsBy, tuple[InstrumentedAttribute[str], ...]] = {
    "organization": (Organizations.name, Organizations.id, Organizations.id),
    "project": (Projects.name, Projects.id, Projects.organization_id),
    "key_id": (ApiKeys.name, ApiKeys.id, ApiKeys.organization_id),
}
"""Of the groups that have a name besides: columns of name, id and owner."""
_ORDER = (UsageEvents.started_at, UsageEvents.event_id)
_TYPES = tuple(column.type for column in _ORDER)
_TIMES = ("started_at_ns", "first_byte_at_ns", "finished_at_ns")
# Kept with the secret, as its last use; and with the hold that it is taken off.
_NOT_HERE = {"key_secret_id", "holds"}
_MEMBERS = tuple(
    name for name in UsageEvent.__struct_fields__ if name not in {*_NOT_HERE, "event_id"}
)
_members_of = attrgetter(*_MEMBERS)
_TIME_PLACES = tuple(map(_MEMBERS.index, _TIMES))
_EVENTS = Bulk(
    UsageEvents,
    (
        "day",
        "event_id",
        "content_hash",
        "producer",
        "epoch",
        "recorded_at",
        *(name.removesuffix("_ns") for name in _MEMBERS),
    ),
)


async def record_events(
    session: WriteSession, scope: Scope, arrivals: Sequence[Arrival]
) -> set[str]:
    """Store the events whose id is not stored yet, whoever stored it.

    Args:
        session: Where to.
        scope: Whose events these may be.
        arrivals: Events with different ids.

    Returns:
        The ids of those that were new.
    """
    scope.require(arrival.event.organization for arrival in arrivals)
    rows = [_event_row(arrival) for arrival in arrivals]
    return {event_id for _, event_id in await session.insert_many_new(_EVENTS, rows)}


async def list_hashes(
    session: ReadSession, scope: Scope, event_ids: Sequence[str]
) -> dict[str, bytes]:
    """Return the fingerprints of stored events by event id; unknown ids are left out."""
    if not event_ids:
        return {}
    statement = select(UsageEvents.event_id, UsageEvents.content_hash).where(
        scope.where(UsageEvents.organization),
        UsageEvents.day.in_({day_of(event_id) for event_id in event_ids}),
        UsageEvents.event_id.in_(event_ids),
    )
    return {row.event_id: row.content_hash for row in await session.rows(statement)}


async def record_conflicts(
    session: WriteSession, scope: Scope, arrivals: Sequence[Arrival]
) -> set[str]:
    """Put events into quarantine, and return the ids of those that were not there.

    Each content of an id is kept once.
    """
    scope.require(arrival.event.organization for arrival in arrivals)
    distinct = {(one.event.event_id, one.hashed.content_hash): one for one in arrivals}
    rows = [
        {
            "event_id": one.event.event_id,
            "content_hash": one.hashed.content_hash,
            "organization": one.event.organization,
            "body": msgspec.to_builtins(msgspec.structs.asdict(one.event)),
            "producer": one.delivery.producer,
            "epoch": one.delivery.epoch,
            "recorded_at": one.delivery.recorded_at_us,
        }
        for _, one in sorted(distinct.items())
    ]
    return {*await session.insert_new(UsageEventConflicts, rows, UsageEventConflicts.event_id)}


async def count_conflicts(session: ReadSession, scope: Scope) -> int:
    """Return how many events are in quarantine."""
    statement = select(func.count(UsageEventConflicts.event_id)).where(
        scope.where(UsageEventConflicts.organization)
    )
    return (await session.rows(statement))[0][0]


async def list_events(
    session: ReadSession,
    scope: Scope,
    usage_filter: UsageFilter,
    *,
    after: Position | None,
    limit: int,
) -> list[UsageRow]:
    """Return events in order of start, oldest first.

    Args:
        session: Where from.
        scope: Whose.
        usage_filter: Which.
        after: Where to begin: behind this position; with the oldest when None.
        limit: Most rows.
    """
    conditions = _conditions(scope, usage_filter)
    if after is not None:
        conditions.append(
            tuple_(*_ORDER) > tuple_(after.started_at_us, after.event_id, types=_TYPES)
        )
    statement = select(*_row_columns(scope)).where(*conditions).order_by(*_ORDER).limit(limit)
    return [UsageRow(*row) for row in await session.rows(statement)]


async def list_latest_events(session: ReadSession, scope: Scope, limit: int) -> list[UsageRow]:
    """Return the events that started last, newest first."""
    statement = (
        select(*_row_columns(scope))
        .where(scope.where(UsageEvents.organization))
        .order_by(UsageEvents.started_at.desc(), UsageEvents.event_id.desc())
        .limit(limit)
    )
    return [UsageRow(*row) for row in await session.rows(statement)]


async def find_request(
    session: ReadSession, scope: Scope, name: str, *, project: str | None, limit: int
) -> list[UsageRow]:
    """Return the events of requests that callers or we call so, oldest first.

    Args:
        session: Where from.
        scope: Whose.
        name: A request id, which callers may use again, or an event id.
        project: Only of this one.
        limit: Most rows; which ones, if there are more, is not said.
    """
    own = [scope.where(UsageEvents.organization)]
    if project is not None:
        own.append(UsageEvents.project == project)
    is_event = (UsageEvents.day == day_of(name), UsageEvents.event_id == name)
    # By an index each, and without an order, for which a database might read the wrong one.
    for is_it in ((UsageEvents.request_id == name,), is_event):
        statement = select(*_row_columns(scope)).where(*own, *is_it).limit(limit)
        rows = [UsageRow(*row) for row in await session.rows(statement)]
        if rows:
            return sorted(rows, key=lambda row: (row.started_at_us, row.event_id))
    return []


async def total_events(
    session: ReadSession, scope: Scope, usage_filter: UsageFilter, by: TotalsBy
) -> list[UsageTotal]:
    """Return requests and tokens by group, in order of the group's name."""
    column = _GROUPS[by]
    statement = (
        select(
            column,
            _name_of(by, scope),
            func.count(),
            *exact_sum(UsageEvents.input_tokens),
            *exact_sum(UsageEvents.output_tokens),
        )
        .where(*_conditions(scope, usage_filter))
        .group_by(column)
        .order_by(column)
    )
    rows = await session.rows(statement)
    return [
        UsageTotal(group, name, requests, *join_halves(halves))
        for group, name, requests, *halves in rows
    ]


def _row_columns(scope: Scope) -> tuple[Any, ...]:
    return (*_EVENT_COLUMNS, *(_name_of(by, scope) for by in _NAMED))


def _name_of(by: TotalsBy, scope: Scope) -> ColumnElement[Any]:
    # Looked up in the same query, for the rows that are answered only.
    if by not in _NAMED:
        return null()
    name, object_id, owner = _NAMED[by]
    return select(name).where(object_id == _GROUPS[by], scope.where(owner)).scalar_subquery()


def _conditions(scope: Scope, usage_filter: UsageFilter) -> list[ColumnElement[bool]]:
    conditions = [scope.where(UsageEvents.organization)]
    for name in _EQUALS:
        value = getattr(usage_filter, name)
        if value is not None:
            conditions.append(getattr(UsageEvents, name) == value)
    if usage_filter.event_id is not None:
        conditions.append(UsageEvents.day == day_of(usage_filter.event_id))
    if usage_filter.since_us is not None:
        conditions.append(UsageEvents.started_at >= usage_filter.since_us)
    if usage_filter.until_us is not None:
        conditions.append(UsageEvents.started_at < usage_filter.until_us)
    return conditions


def _event_row(arrival: Arrival) -> Values:
    (event, content_hash), delivery = arrival
    members = [*_members_of(event)]
    for place in _TIME_PLACES:
        if members[place] is not None:
            members[place] //= 1_000
    return (
        day_of(event.event_id),
        event.event_id,
        content_hash,
        *delivery.life,
        delivery.recorded_at_us,
        *members,
    )
