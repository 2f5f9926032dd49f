"""Every SQL statement that reads what days and months were rated at, each within a scope."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, case, func

from penstock.limits.prices import join_amount
from penstock.metering.bucket_model import BucketQuery, Grain, Part
from penstock.metering.bucket_store import Source, find_smallest, list_groups
from penstock.rating.cost_model import CostResult
from penstock.rating.model import RatedKind
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
)
from penstock.storage.exact_sums import exact_sum, join_halves
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession


def find_source(query: BucketQuery) -> Source:
    """Return the smallest table that has what is asked for."""
    if query.label is not None:
        return Source.of(ChargeLabelDays, "day")
    if query.width == "month":
        return Source.of(ChargeMonths, "month")
    return Source.of(find_smallest(query, ChargeDays, ChargeProjectDays), "day")


def find_sources(query: BucketQuery) -> Mapping[Grain | None, Source]:
    """Return what `find_source` does, and what edges of days of zones are read from."""
    quarters = find_smallest(query, ChargeQuarters, ChargeProjectQuarters, ChargeModelQuarters)
    eighths = find_smallest(query, ChargeEighths, ChargeProjectEighths, ChargeModelEighths)
    return {
        None: find_source(query),
        "quarter": Source.of(quarters, "hour"),
        "eighth": Source.of(eighths, "day"),
    }


async def list_costs(
    session: ReadSession,
    scope: Scope,
    query: BucketQuery,
    source: Source,
    part: Part,
    *,
    has_costs: bool,
) -> list[CostResult]:
    """Return what groups were rated at, in order of time, group and currency.

    Args:
        session: Where from.
        scope: Whose.
        query: Which, and how grouped.
        source: What `find_source` returned.
        part: What of it.
        has_costs: Whether what the platform pays is read, too.
    """
    table = source.table
    kinds: tuple[RatedKind, ...] = ("charge", "cost") if has_costs else ("charge",)
    sums: list[ColumnElement[Any]] = []
    for kind in kinds:
        is_kind = table.kind == kind
        sums += [
            func.count(case((is_kind, 1))),
            *exact_sum(
                case((is_kind, table.amount), else_=0), case((is_kind, table.amount_high), else_=0)
            ),
            func.sum(case((is_kind, table.amount_rest), else_=0)),
        ]
    rows = await list_groups(
        session,
        scope,
        query,
        source,
        part,
        sums=sums,
        more=(table.currency,),
        only=(table.kind.in_(kinds),),
    )
    return [
        CostResult(
            start_us,
            group,
            _atto(figures[:4]) or 0,
            _atto(figures[4:]) if has_costs else None,
        )
        for start_us, group, figures in rows
    ]


def _atto(figures: Any) -> int | None:
    count, *halves, rest = figures
    return join_amount(join_halves(halves)[0], int(rest)) if count else None
