"""Every SQL statement that looks along the chain of money, each within a scope. All only read."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import and_, case, func, select

from penstock.contract.usage import METERS
from penstock.ledger.rules import join_amount
from penstock.ledger.tables import Transfers
from penstock.metering.rules import day_of
from penstock.metering.tables import UsageDays, UsageEvents, UsageHours
from penstock.rating.tables import RatedUsage
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession

FIGURES: tuple[type[UsageDays] | type[UsageHours], ...] = (UsageDays, UsageHours)
_DAY_US = 86_400 * 1_000_000
_HALF = 2**32


class LinkRow(NamedTuple):
    """Events of one producer and day that were rated in one currency, or not at all."""

    producer: str
    currency: str | None
    events: int
    rated: int
    unpriced: int
    unbooked: int
    charge_atto: int


class EventSums(NamedTuple):
    """What events of a day consumed."""

    requests: int
    input_tokens: int
    output_tokens: int


async def list_links(session: ReadSession, scope: Scope, day: int) -> list[LinkRow]:
    """Return what the events of a day were rated at first, by producer and currency."""
    statement = (
        select(
            UsageEvents.producer,
            RatedUsage.currency,
            func.count(),
            func.count(RatedUsage.event_id),
            _count_if(RatedUsage.price_id == ""),
            _count_if(
                and_(
                    (RatedUsage.amount != 0) | (RatedUsage.amount_rest != 0),
                    Transfers.id.is_(None),
                )
            ),
            func.coalesce(func.sum(RatedUsage.amount), 0),
            func.coalesce(func.sum(RatedUsage.amount_rest), 0),
        )
        .outerjoin(
            RatedUsage,
            and_(
                RatedUsage.day == UsageEvents.day,
                RatedUsage.event_id == UsageEvents.event_id,
                RatedUsage.kind == "charge",
                RatedUsage.run_id == "",
            ),
        )
        .outerjoin(Transfers, Transfers.id == RatedUsage.transfer_id)
        .where(scope.where(UsageEvents.organization), UsageEvents.day == day)
        .group_by(UsageEvents.producer, RatedUsage.currency)
    )
    return [
        LinkRow(producer, currency, events, rated, unpriced, unbooked, join_amount(nano, rest))
        for producer, currency, events, rated, unpriced, unbooked, nano, rest in (
            await session.rows(statement)
        )
    ]


async def list_hashes(
    session: ReadSession, scope: Scope, event_ids: Sequence[str]
) -> dict[str, bytes]:
    """Return the fingerprints of stored events by event id; unknown ids are left out."""
    statement = select(UsageEvents.event_id, UsageEvents.content_hash).where(
        scope.where(UsageEvents.organization),
        # Told apart by day, so that no other day's table is looked into.
        UsageEvents.day.in_(sorted({day_of(event_id) for event_id in event_ids})),
        UsageEvents.event_id.in_(event_ids),
    )
    return {row.event_id: row.content_hash for row in await session.rows(statement)}


async def sum_events(session: ReadSession, scope: Scope, day: int) -> EventSums:
    """Return what the events consumed that started in a day of UTC."""
    columns = (UsageEvents.input_tokens, UsageEvents.output_tokens)
    statement = select(
        func.count(UsageEvents.first_byte_at),
        *(func.coalesce(func.sum(part), 0) for column in columns for part in _halves(column)),
    ).where(
        scope.where(UsageEvents.organization),
        UsageEvents.started_at >= day * _DAY_US,
        UsageEvents.started_at < (day + 1) * _DAY_US,
    )
    requests, *halves = (await session.rows(statement))[0]
    inputs, outputs = (_whole(halves[at], halves[at + 1]) for at in (0, 2))
    return EventSums(requests, inputs, outputs)


async def sum_figures(
    session: ReadSession, scope: Scope, table: type[UsageDays] | type[UsageHours], day: int
) -> Mapping[str, int]:
    """Return what a table of figures says of a day of UTC, by meter."""
    statement = select(
        *(
            func.coalesce(func.sum(part), 0)
            for meter in METERS
            for part in _halves(getattr(table, meter))
        )
    ).where(
        scope.where(table.organization),
        table.at >= day * _DAY_US,
        table.at < (day + 1) * _DAY_US,
    )
    halves = (await session.rows(statement))[0]
    return {
        meter: _whole(halves[2 * index], halves[2 * index + 1])
        for index, meter in enumerate(METERS)
    }


def _count_if(condition: Any) -> Any:
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)


def _halves(column: Any) -> tuple[Any, Any]:
    # A sum past 63 bits fails in SQLite; in halves none gets there.
    return column // _HALF, column % _HALF


def _whole(high: Any, low: Any) -> int:
    return int(high) * _HALF + int(low)
