"""Every SQL statement that looks along the chain of money, each within a scope. All only read."""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Text, and_, case, cast, exists, func, select
from sqlalchemy.orm import aliased

from penstock.contract.usage import METERS
from penstock.ledger.tables import Transfers
from penstock.limits.prices import join_amount, join_large
from penstock.metering.bucket_rules import DAY_US
from penstock.metering.latency_rules import OUTCOMES
from penstock.metering.tables import (
    COUNTED,
    FIGURE_OF,
    UsageDays,
    UsageEighths,
    UsageEmbeddingHours,
    UsageEvents,
    UsageLabelDays,
    UsageLatencyHours,
    UsageModelEighths,
    UsageModelQuarters,
    UsageProjectDays,
    UsageProjectEighths,
    UsageProjectQuarters,
    UsageQuarters,
)
from penstock.rating.tables import ChargeDays, ChargeLabelDays, RatedUsage, UsageCorrections
from penstock.storage.exact_sums import exact_sum, join_halves
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession

USAGE_FIGURES: Final = (
    UsageDays,
    UsageQuarters,
    UsageProjectDays,
    UsageProjectQuarters,
    UsageModelQuarters,
    UsageEighths,
    UsageProjectEighths,
    UsageModelEighths,
    UsageEmbeddingHours,
    UsageLabelDays,
)
CHARGE_FIGURES: Final = (ChargeDays, ChargeLabelDays)
"""Those of other stretches, projects and models are compared with the first by `verifying`."""
_CHARGED: Final = "amount_atto"
_USED: Final = ("requests", *COUNTED)
_NAMES: Final = ("organization", "project", "key_id", "model", "data_class", "region")
_USED_NAMES: Final = (*_NAMES, "operation")
_CHARGED_NAMES: Final = (*_NAMES, "currency", "kind")
_LABELS: Final = cast(UsageEvents.labels, Text)


class LinkRow(NamedTuple):
    """Events of one producer and day that were rated in one currency, or not at all."""

    producer: str
    currency: str | None
    events: int
    rated: int
    unpriced: int
    unbooked: int
    charge_atto: int


class Use(NamedTuple):
    """What was used, or charged for it, of all that has the same names and labels."""

    names: Mapping[str, str]
    labels: Sequence[tuple[str, str]]
    amounts: Mapping[str, int]
    """By figure."""


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


async def list_used(session: ReadSession, scope: Scope, day: int) -> tuple[list[Use], set[int]]:
    """Return what the events count that started in a day of UTC, and the days of their ids.

    What was corrected is in it. An event that is void counts for nothing, whatever the row says
    that voided it: some of before say no figures.
    """
    key = (UsageEvents.day, *_names_of(UsageEvents, _USED_NAMES), _LABELS)
    conditions = (scope.where(UsageEvents.organization), *_started(day), ~_IS_VOID)
    statement = (
        select(
            *key,
            func.count(UsageEvents.first_byte_at),
            *(part for column in COUNTED.values() for part in exact_sum(column)),
        )
        .where(*conditions)
        .group_by(*key)
    )
    uses, days = [], set()
    for row in await session.rows(statement):
        id_day, *names, labels, requests = row[: len(key) + 1]
        days.add(id_day)
        amounts = dict(zip(_USED, (requests, *join_halves(row[len(key) + 1 :])), strict=True))
        uses.append(_use(_USED_NAMES, names, labels, amounts))
    corrected = (
        select(*key[1:], UsageCorrections.deltas)
        .join(UsageCorrections, _is_of(UsageCorrections))
        .where(*conditions)
    )
    for *names, labels, deltas in await session.rows(corrected):
        uses.append(_use(_USED_NAMES, names, labels, _fold_meters(deltas)))
    return uses, days


async def list_ended(session: ReadSession, scope: Scope, day: int) -> tuple[list[Use], list[Use]]:
    """Return how the events of a day of UTC ended, and what the histograms of its hours say."""
    key = _names_of(UsageEvents, ("organization", "project", "model", "outcome"))
    events = (
        select(*key, func.count())
        .where(scope.where(UsageEvents.organization), *_started(day))
        .group_by(*key)
    )
    names = names_of(UsageLatencyHours)
    ended = [
        Use(dict(zip(names, row, strict=False)), (), {row[-2]: row[-1]})
        for row in await session.rows(events)
    ]
    table = UsageLatencyHours
    hours = select(*_names_of(table, names), table.counts).where(
        scope.where(table.organization),
        table.at >= day * DAY_US,
        table.at < (day + 1) * DAY_US,
    )
    kept = [
        Use(dict(zip(names, row, strict=False)), (), row[-1][OUTCOMES])
        for row in await session.rows(hours)
    ]
    return ended, kept


async def list_charged(
    session: ReadSession, scope: Scope, day: int, id_days: Collection[int]
) -> list[Use]:
    """Return what events were rated at that started in a day of UTC, now and later.

    Args:
        session: One state of the database.
        scope: Whose.
        day: Which day.
        id_days: Of the ids of these events: so that no other parts of tables are read.
    """
    key = (*_names_of(UsageEvents, _NAMES), RatedUsage.currency, RatedUsage.kind, _LABELS)
    statement = (
        select(*key, *exact_sum(RatedUsage.amount), *exact_sum(RatedUsage.amount_rest))
        .join(RatedUsage, _is_of(RatedUsage))
        .where(
            scope.where(UsageEvents.organization),
            *_started(day),
            UsageEvents.day.in_(id_days),
            RatedUsage.day.in_(id_days),
        )
        .group_by(*key)
    )
    return [
        _use(_CHARGED_NAMES, row[:-5], row[-5], {_CHARGED: join_amount(*join_halves(row[-4:]))})
        for row in await session.rows(statement)
    ]


async def list_figures(
    session: ReadSession, scope: Scope, table: Any, start_us: int, end_us: int
) -> list[Use]:
    """Return what a table of figures says of a stretch of time, by its names."""
    names = names_of(table)
    columns = METERS if hasattr(table, METERS[0]) else ("amount_high", "amount", "amount_rest")
    key = _names_of(table, names)
    statement = (
        select(*key, *(part for column in columns for part in exact_sum(getattr(table, column))))
        .where(
            scope.where(table.organization),
            table.at >= start_us,
            table.at < end_us,
        )
        .group_by(*key)
    )
    uses = []
    for row in await session.rows(statement):
        sums = join_halves(row[len(names) :])
        found = (
            {_CHARGED: join_large(*sums)}
            if columns is not METERS
            else _fold_meters(dict(zip(METERS, sums, strict=True)))
        )
        uses.append(Use(dict(zip(names, row, strict=False)), (), found))
    return uses


def names_of(table: Any) -> tuple[str, ...]:
    """Return by which names a table of figures has its rows, besides their time."""
    return tuple(column.name for column in table.__table__.primary_key if column.name != "at")


def _fold_meters(meters: Mapping[str, int]) -> Mapping[str, int]:
    """Return what meters come to that events tell apart: all input and all output as one."""
    sums: Counter[str] = Counter()
    for meter, amount in meters.items():
        sums[FIGURE_OF[meter]] += amount
    return sums


def _use(
    names: Sequence[str], values: Sequence[str], labels: str, amounts: Mapping[str, int]
) -> Use:
    known = dict(zip(names, values, strict=True))
    return Use(known, [(name, value) for name, value in json.loads(labels)], amounts)


def _names_of(table: Any, names: Iterable[str]) -> tuple[Any, ...]:
    return tuple(getattr(table, name) for name in names)


def _started(day: int) -> tuple[ColumnElement[bool], ...]:
    return (
        UsageEvents.started_at >= day * DAY_US,
        UsageEvents.started_at < (day + 1) * DAY_US,
    )


def _is_of(table: Any) -> ColumnElement[bool]:
    return and_(table.day == UsageEvents.day, table.event_id == UsageEvents.event_id)


def _count_if(condition: Any) -> Any:
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)


_VOIDS: Final = aliased(UsageCorrections)
_IS_VOID: Final = exists().where(_is_of(_VOIDS), _VOIDS.is_void)
