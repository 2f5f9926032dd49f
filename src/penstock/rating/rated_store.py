"""Every SQL statement of the rating room about usage that was rated."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from sqlalchemy import bindparam, select, tuple_, update
from sqlalchemy.orm import InstrumentedAttribute

from penstock.limits.prices import join_large, split_large
from penstock.metering.bucket_rules import bucket_start, eighth_start
from penstock.metering.rules import day_of
from penstock.rating.rules import MeterKey, Running
from penstock.rating.tables import (
    ChargeDays,
    ChargeEighths,
    ChargeLabelDays,
    ChargeModelEighths,
    ChargeModelQuarters,
    ChargeMonths,
    ChargeProjectDays,
    ChargeProjectEighths,
    ChargeProjectQuarters,
    ChargeQuarters,
    RatedMeters,
    RatedUsage,
)
from penstock.storage.base import Base
from penstock.storage.bulk import Bulk, Values
from penstock.storage.scope import Scope
from penstock.storage.sessions import WriteSession

_METER_KEY = (
    RatedMeters.organization,
    RatedMeters.book_id,
    RatedMeters.price_id,
    RatedMeters.model,
    RatedMeters.meter,
    RatedMeters.period_start,
)
_AMOUNT = ("amount", "amount_rest")
_LARGE = ("amount_high", *_AMOUNT)
_DAY_KEY = ("organization", "project", "key_id", "model", "data_class", "currency", "kind", "at")
_PROJECT_KEY = tuple(name for name in _DAY_KEY if name != "key_id")
_MODEL_KEY = tuple(name for name in _PROJECT_KEY if name != "project")


def _bulk(table: type[Base], key: tuple[str, ...]) -> Bulk:
    return Bulk(table, (*key, *_LARGE), amounts=(_LARGE,))


_QUARTERS = _bulk(ChargeQuarters, _DAY_KEY)
_PROJECT_QUARTERS = _bulk(ChargeProjectQuarters, _PROJECT_KEY)
_MODEL_QUARTERS = _bulk(ChargeModelQuarters, _MODEL_KEY)
_EIGHTHS = _bulk(ChargeEighths, _DAY_KEY)
_PROJECT_EIGHTHS = _bulk(ChargeProjectEighths, _PROJECT_KEY)
_MODEL_EIGHTHS = _bulk(ChargeModelEighths, _MODEL_KEY)
_DAYS = _bulk(ChargeDays, _DAY_KEY)
_MONTHS = _bulk(ChargeMonths, _DAY_KEY)
_PROJECT_DAYS = _bulk(ChargeProjectDays, _PROJECT_KEY)
_LABEL_DAYS = Bulk(
    ChargeLabelDays,
    ("organization", "name", "value", "project", "currency", "kind", "at", *_LARGE),
    amounts=(_LARGE,),
)
_RATED = Bulk(
    RatedUsage,
    (
        "day",
        "event_id",
        "kind",
        "run_id",
        "organization",
        "currency",
        "price_id",
        *_AMOUNT,
        "transfer_id",
        "reverses",
        "recorded_at",
    ),
)
_ORGANIZATION = _RATED.names.index("organization")

_Key: TypeAlias = tuple[Any, ...]
Sums: TypeAlias = Mapping[_Key, int]
"""Atto-units by primary key."""


async def lock_meters(
    session: WriteSession, scope: Scope, keys: Iterable[MeterKey]
) -> dict[MeterKey, Running]:
    """Return what was used of months so far, and let nobody else count in them until the end.

    Everybody locks them in the same order.
    """
    wanted = sorted(set(keys))
    if not wanted:
        return {}
    scope.require(key.organization for key in wanted if key.organization)
    names = MeterKey._fields
    rows = [
        {
            **{name.removesuffix("_us"): value for name, value in zip(names, key, strict=True)},
            "quantity": 0,
            **dict.fromkeys(_LARGE, 0),
        }
        for key in wanted
    ]
    await session.insert_new(RatedMeters, rows, RatedMeters.meter)
    types = [column.type for column in _METER_KEY]
    statement = (
        select(*_METER_KEY, RatedMeters.quantity, *(getattr(RatedMeters, name) for name in _LARGE))
        .where(tuple_(*_METER_KEY).in_([tuple_(*key, types=types) for key in wanted]))
        .order_by(*_METER_KEY)
        .with_for_update()
    )
    found: Sequence[Any] = await session.rows(statement)
    return {MeterKey(*row[:6]): Running(row[6], join_large(*row[7:])) for row in found}


async def write_meters(session: WriteSession, running: Mapping[MeterKey, Running]) -> None:
    """Store what `lock_meters` returned, as it is now."""
    statement = (
        update(RatedMeters)
        .where(*_is_key(_METER_KEY))
        .values(
            quantity=bindparam("to_quantity"),
            **{name: bindparam(f"to_{name}") for name in _LARGE},
        )
    )
    await session.change_many(
        statement,
        [
            {
                **{f"key_{column.key}": part for column, part in zip(_METER_KEY, key, strict=True)},
                "to_quantity": month.quantity,
                **{
                    f"to_{name}": part
                    for name, part in zip(_LARGE, split_large(month.amount_atto), strict=True)
                },
            }
            for key, month in sorted(running.items())
        ],
    )


async def find_rated(session: WriteSession, event_ids: Iterable[str]) -> set[str]:
    """Return the ids of events that were rated when they came in, whoever's they are."""
    keys = [(day_of(event_id), event_id, "charge", "") for event_id in event_ids]
    return {key[1] for key in await session.find_many(_RATED, keys)}


async def insert_rated(session: WriteSession, scope: Scope, rows: Sequence[Values]) -> None:
    """Store what events were rated at: the columns of `_RATED`, in their order."""
    scope.require(row[_ORGANIZATION] for row in rows)
    await session.insert_many(_RATED, rows)


async def add_charged(session: WriteSession, scope: Scope, quarters: Sums, labels: Sums) -> None:
    """Add to the figures of quarters, and so to all that are made of them; and to labels'."""
    project_quarters = _fold(quarters, _drop_key)
    model_quarters = _fold(project_quarters, _drop_project)
    eighths = _fold(quarters, _to_eighth)
    project_eighths = _fold(eighths, _drop_key)
    days = _fold(eighths, _to_day)
    for bulk, sums in (
        (_QUARTERS, quarters),
        (_PROJECT_QUARTERS, project_quarters),
        (_MODEL_QUARTERS, model_quarters),
        (_EIGHTHS, eighths),
        (_PROJECT_EIGHTHS, project_eighths),
        (_MODEL_EIGHTHS, _fold(project_eighths, _drop_project)),
        (_DAYS, days),
        (_MONTHS, _fold(days, _to_month)),
        (_PROJECT_DAYS, _fold(days, _drop_key)),
        (_LABEL_DAYS, labels),
    ):
        scope.require(key[0] for key in sums)
        # In order of the key: so no writer waits for one that waits for it.
        rows = [(*key, *split_large(sums[key])) for key in sorted(sums)]
        await session.add_many(bulk, rows)


def _fold(sums: Sums, place: Callable[[_Key], _Key]) -> Sums:
    folded = Counter[_Key]()
    for key, amount_atto in sums.items():
        folded[place(key)] += amount_atto
    return folded


def _drop_key(key: _Key) -> _Key:
    organization, project, _, *rest = key
    return organization, project, *rest


def _drop_project(key: _Key) -> _Key:
    organization, _, *rest = key
    return organization, *rest


def _to_eighth(key: _Key) -> _Key:
    return *key[:-1], eighth_start(key[-1])


def _to_day(key: _Key) -> _Key:
    return *key[:-1], bucket_start("day", key[-1])


def _to_month(key: _Key) -> _Key:
    return *key[:-1], bucket_start("month", key[-1])


def _is_key(columns: Iterable[InstrumentedAttribute[Any]]) -> list[Any]:
    return [column == bindparam(f"key_{column.key}", type_=column.type) for column in columns]
