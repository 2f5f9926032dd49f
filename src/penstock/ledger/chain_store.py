"""Every SQL statement that looks along the chain of money, each within a scope. All only read."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import and_, case, func, select

from penstock.contract.usage import METERS
from penstock.ledger.tables import Transfers
from penstock.limits.prices import join_amount
from penstock.metering.bucket_rules import DAY_US
from penstock.metering.tables import UsageDays, UsageEvents, UsageHours
from penstock.rating.tables import RatedUsage, UsageCorrections
from penstock.storage.exact_sums import exact_sum, join_halves
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession

FIGURES: tuple[type[UsageDays] | type[UsageHours], ...] = (UsageDays, UsageHours)


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
            *exact_sum(RatedUsage.amount),
            *exact_sum(RatedUsage.amount_rest),
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
    found = []
    for producer, currency, events, rated, unpriced, unbooked, *halves in await session.rows(
        statement
    ):
        nano, rest = join_halves(halves)
        charge_atto = join_amount(nano, rest)
        found.append(LinkRow(producer, currency, events, rated, unpriced, unbooked, charge_atto))
    return found


async def sum_events(session: ReadSession, scope: Scope, day: int) -> EventSums:
    """Return what the events consumed that started in a day of UTC."""
    statement = select(
        func.count(UsageEvents.first_byte_at),
        *exact_sum(UsageEvents.input_tokens),
        *exact_sum(UsageEvents.output_tokens),
    ).where(
        scope.where(UsageEvents.organization),
        UsageEvents.started_at >= day * DAY_US,
        UsageEvents.started_at < (day + 1) * DAY_US,
    )
    requests, *halves = (await session.rows(statement))[0]
    return EventSums(requests, *join_halves(halves))


async def sum_corrections(session: ReadSession, scope: Scope, day: int) -> Mapping[str, int]:
    """Return by how much corrections changed what the events of `sum_events` count, by meter."""
    statement = (
        select(UsageCorrections.deltas)
        .join(
            UsageEvents,
            and_(
                UsageEvents.day == UsageCorrections.day,
                UsageEvents.event_id == UsageCorrections.event_id,
            ),
        )
        .where(
            scope.where(UsageEvents.organization),
            UsageEvents.started_at >= day * DAY_US,
            UsageEvents.started_at < (day + 1) * DAY_US,
        )
    )
    changed: Counter[str] = Counter()
    for (deltas,) in await session.rows(statement):
        changed.update(deltas)
    return changed


async def sum_figures(
    session: ReadSession, scope: Scope, table: type[UsageDays] | type[UsageHours], day: int
) -> Mapping[str, int]:
    """Return what a table of figures says of a day of UTC, by meter."""
    statement = select(
        *(part for meter in METERS for part in exact_sum(getattr(table, meter)))
    ).where(
        scope.where(table.organization),
        table.at >= day * DAY_US,
        table.at < (day + 1) * DAY_US,
    )
    halves = (await session.rows(statement))[0]
    return dict(zip(METERS, join_halves(halves), strict=True))


def _count_if(condition: Any) -> Any:
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)
