"""Rows of exports, page by page; each page has a short session of its own."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from penstock.kit.moments import format_time
from penstock.metering.bucket_model import BucketQuery
from penstock.metering.bucket_rules import DAY_US, bucket_start, find_page
from penstock.metering.bucket_service import name_groups
from penstock.metering.model import MAX_PAGE_ROWS, UsageFilter
from penstock.metering.schemas import UsageRecord
from penstock.metering.service import list_usage
from penstock.rating.cost_schemas import show
from penstock.rating.cost_service import list_costs
from penstock.rating.exports import focus_store
from penstock.rating.exports.focus_rules import build_rows
from penstock.rating.exports.formats import Column, Kind, Row
from penstock.rating.price_rules import read_good
from penstock.storage.sessions import ReadSession

Read = Callable[[], AbstractAsyncContextManager[ReadSession]]
"""Opens a session that shows what the caller may see."""
Pages = AsyncIterator[Sequence[Row]]

COST_GROUPS = ("organization", "project", "key_id", "model", "data_class")
_COST_NAMES = ("organization", "project", "key_id")
_OPERATOR_AMOUNTS = (Column("cost", "decimal"), Column("margin", "decimal"))


def _kind(annotation: Any) -> Kind:
    """Return how a member of a record is written; what is no plain value is JSON."""
    is_list = get_origin(annotation) in {list, dict}
    kinds = {annotation} if is_list else {annotation, *get_args(annotation)}
    if bool in kinds:
        return "flag"
    if int in kinds:
        return "whole"
    is_word = get_origin(annotation) is Literal
    return "text" if is_word or str in kinds else "json"


def event_columns() -> list[Column]:
    """Return the members of a usage record, as columns."""
    hints = get_type_hints(UsageRecord)
    return [Column(name, _kind(hints[name])) for name in UsageRecord.model_fields]


async def list_event_pages(read: Read, usage_filter: UsageFilter) -> Pages:
    """Yield usage events, oldest first."""
    cursor: str | None = None
    while True:
        async with read() as session:
            page = await list_usage(
                session, session.scope, usage_filter, cursor=cursor, limit=MAX_PAGE_ROWS
            )
        yield [list(UsageRecord.from_row(row).model_dump().values()) for row in page.rows]
        cursor = page.next_cursor
        if cursor is None:
            return


def cost_columns(*, has_costs: bool) -> list[Column]:
    """Return the columns of costs of days."""
    names = [Column("day")]
    for group in COST_GROUPS:
        names.append(Column(group))
        if group in _COST_NAMES:
            names.append(Column(f"{group.removesuffix('_id')}_name"))
    amounts = _OPERATOR_AMOUNTS if has_costs else ()
    return [*names, Column("currency"), Column("amount", "decimal"), *amounts]


async def list_cost_pages(read: Read, query: BucketQuery, *, has_costs: bool) -> Pages:
    """Yield what each day was rated at, in order of time and group."""
    while True:
        async with read() as session:
            page = await list_costs(session, session.scope, query, has_costs=has_costs)
            groups = (result.group for result in page.results)
            names = await name_groups(session, session.scope, COST_GROUPS, groups)
        rows = []
        for result in page.results:
            row: list[Any] = [format_time(result.start_us)[:10]]
            for group, value in zip(COST_GROUPS, result.group, strict=False):
                row.append(value)
                if group in _COST_NAMES:
                    row.append(names.get(group, {}).get(value))
            row += [result.currency, show(result.amount_atto)]
            if has_costs:
                row += [
                    None if amount is None else show(amount)
                    for amount in (result.cost_atto, result.margin_atto)
                ]
            rows.append(row)
        yield rows
        if page.next_page is None:
            return
        query = replace(query, after=find_page(page.next_page, len(COST_GROUPS) + 1))


async def list_focus_pages(
    read: Read, since_us: int, until_us: int, filters: dict[str, str], provider: str
) -> Pages:
    """Yield rows of FOCUS, day by day.

    Args:
        read: Opens sessions.
        since_us: In the first day.
        until_us: The last day begins before it.
        filters: What members of events must be.
        provider: Who runs the platform.
    """
    for day_us in range(bucket_start("day", since_us), until_us, DAY_US):
        async with read() as session:
            scope = session.scope
            days = await focus_store.list_charged(session, scope, day_us, filters)
            found = await focus_store.list_prices(session, {day.price_id for day in days})
            places = ((day.organization, day.project) for day in days)
            names = await name_groups(session, scope, ("organization", "project"), places)
        prices = {each.price.id: each for each in read_good(found.values())}
        yield [
            row
            for day in days
            for row in build_rows(day, prices.get(day.price_id), names, provider)
        ]
