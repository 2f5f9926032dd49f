"""The SQL statement that rows of FOCUS are read with, within a scope."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, and_, case, func, literal, select

from penstock.contract.usage import Meter
from penstock.limits.prices import join_amount
from penstock.metering.bucket_rules import DAY_US, advance, bucket_start
from penstock.metering.tables import UsageEvents
from penstock.rating.exports.focus_model import ChargedDay
from penstock.rating.model import Price
from penstock.rating.store import prices
from penstock.rating.tables import Prices, RatedUsage
from penstock.storage.exact_sums import exact_sum, join_halves
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession

_GROUPS = (
    UsageEvents.organization,
    UsageEvents.project,
    UsageEvents.key_id,
    UsageEvents.model,
    UsageEvents.upstream,
    UsageEvents.data_class,
    UsageEvents.region,
    UsageEvents.service_tier,
    RatedUsage.currency,
    RatedUsage.price_id,
)
_INPUT_METERS: tuple[Meter, ...] = ("cached_input", "cache_write_input", "audio_input", "input")
_OUTPUT_METERS: tuple[Meter, ...] = ("reasoning_output", "audio_output", "output")


async def list_charged(
    session: ReadSession, scope: Scope, day_us: int, filters: Mapping[str, str]
) -> list[ChargedDay]:
    """Return what was charged for the usage of a day, in order of its groups.

    Args:
        session: Where from.
        scope: Whose.
        day_us: When the day begins, UTC.
        filters: What members of events must be.
    """
    month_end_us = advance("month", bucket_start("month", day_us), 1)
    is_behind = RatedUsage.recorded_at >= month_end_us
    is_change = case((RatedUsage.run_id == "", 0), else_=1)
    is_late = case((and_(RatedUsage.run_id != "", is_behind), 1), else_=0)
    order = [*_GROUPS, is_change, is_late]
    figures = (
        RatedUsage.amount,
        RatedUsage.amount_rest,
        UsageEvents.image_count,
        UsageEvents.audio_seconds,
        UsageEvents.characters,
        *_running_parts(
            UsageEvents.input_tokens,
            UsageEvents.cached_input_tokens,
            UsageEvents.cache_write_input_tokens,
            UsageEvents.audio_input_tokens,
        ),
        *_running_parts(
            UsageEvents.output_tokens,
            UsageEvents.reasoning_output_tokens,
            UsageEvents.audio_output_tokens,
        ),
    )
    sums = [part for figure in figures for part in exact_sum(figure)]
    statement = (
        select(*order, func.count(UsageEvents.first_byte_at), *sums)
        .join(
            RatedUsage,
            and_(RatedUsage.day == UsageEvents.day, RatedUsage.event_id == UsageEvents.event_id),
        )
        .where(
            scope.where(UsageEvents.organization),
            scope.where(RatedUsage.organization),
            UsageEvents.started_at >= day_us,
            UsageEvents.started_at < day_us + DAY_US,
            RatedUsage.kind == "charge",
            RatedUsage.price_id != "",
            *(getattr(UsageEvents, name) == value for name, value in filters.items()),
        )
        .group_by(*order)
        .order_by(*order)
    )
    return [_read(day_us, row, len(order)) for row in await session.rows(statement)]


async def list_prices(session: ReadSession, ids: set[str]) -> dict[str, Price]:
    """Return the prices that usage was charged by.

    Who pays one may know it: so it is asked for in anybody's session.
    """
    everybody = Scope.all_organizations()
    found = await prices.list_by_id(session, everybody, Prices.id.in_(sorted(ids))) if ids else []
    return {price.id: price for price in found}


def _read(day_us: int, row: Any, group_count: int) -> ChargedDay:
    *members, is_change, is_late = row[:group_count]
    requests, *halves = row[group_count:]
    amount, rest, images, seconds, characters, *parts = join_halves(halves)
    inputs, outputs = parts[: len(_INPUT_METERS)], parts[len(_INPUT_METERS) :]
    return ChargedDay(
        day_us=day_us,
        **dict(zip((column.key for column in _GROUPS), members, strict=True)),
        is_change=bool(is_change),
        is_late=bool(is_late),
        amount_atto=join_amount(amount, rest),
        figures={
            "requests": int(requests),
            **_differences(_INPUT_METERS, inputs),
            **_differences(_OUTPUT_METERS, outputs),
            "images": images,
            "audio_seconds": seconds,
            "characters": characters,
        },
    )


def _running_parts(whole: Any, *parts: Any) -> Sequence[ColumnElement[int]]:
    """Return what the first part, the first two and so on take of a whole, then the whole.

    So `contract.usage.quantities` takes them: a part is cut to what the ones before it leave. No
    two figures are added up before each is cut, for both can be as large as a column holds.
    """
    nothing = literal(0, BigInteger)
    taken: list[ColumnElement[int]] = []
    for part in parts:
        cut = _least(func.coalesce(part, nothing), whole)
        taken.append(_least(taken[-1], whole - cut) + cut if taken else cut)
    return [*taken, whole]


def _differences(meters: Iterable[Meter], running: Sequence[int]) -> dict[Meter, int]:
    steps = (after - before for before, after in pairwise([0, *running]))
    return dict(zip(meters, steps, strict=True))


def _least(one: Any, other: Any) -> ColumnElement[int]:
    return case((one < other, one), else_=other)
