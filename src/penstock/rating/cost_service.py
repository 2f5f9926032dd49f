"""What usage is charged and what it costs the platform, by day and month and by group."""

from collections.abc import Iterable

from penstock.metering.bucket_model import BucketPage, BucketQuery, Part
from penstock.metering.bucket_rules import advance, bucket_start, collect, snap
from penstock.metering.bucket_store import find_ends
from penstock.metering.openai_rules import OpenAiPage, Span, build_page, cut
from penstock.metering.zone_service import ZoneReader
from penstock.rating import cost_store as store
from penstock.rating.cost_model import CostResult, ModelCharge
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession


async def list_costs(
    session: ReadSession, scope: Scope, query: BucketQuery, *, has_costs: bool
) -> BucketPage[CostResult]:
    """Return a page of what groups were rated at, in order of time, group and currency; exact.

    See `metering.bucket_service.list_usage_buckets`. Usage counts in the day in which its request
    was let in, whenever it was rated; so a correction changes the day that it corrects.

    Args:
        session: Where from.
        scope: Whose.
        query: Which; `bucket_rules.find_fault` finds nothing wrong with it.
        has_costs: Whether what the platform pays is told, too: to its operator alone.
    """
    if query.zone is not None:
        return await _list_of_zone(session, scope, query, has_costs=has_costs)
    source = store.find_source(query)
    ends = await find_ends(session, scope, query, source)
    if ends is None:
        return BucketPage([], None)

    async def fetch(part: Part) -> list[CostResult]:
        return await store.list_costs(session, scope, query, source, part, has_costs=has_costs)

    return await collect(query, *snap(query, *ends), fetch, is_single=source.width != query.width)


async def _list_of_zone(
    session: ReadSession, scope: Scope, query: BucketQuery, *, has_costs: bool
) -> BucketPage[CostResult]:
    sources = store.find_sources(query)
    ends = await find_ends(session, scope, query, sources["quarter"])
    if ends is None:
        return BucketPage([], None)

    async def read(part: Part) -> list[CostResult]:
        source = sources[part.grain]
        return await store.list_costs(session, scope, query, source, part, has_costs=has_costs)

    fetch = ZoneReader(query, read, _add_terms).fetch
    return await collect(query, *snap(query, *ends), fetch)


def _add_terms(
    start_us: int, group: tuple[str, ...], terms: Iterable[tuple[int, CostResult]]
) -> CostResult | None:
    """Add amounts up, each 1 or -1 times; None when nothing is left of them."""
    amount_atto, known = 0, []
    for sign, term in terms:
        amount_atto += sign * term.amount_atto
        if term.cost_atto is not None:
            known.append(sign * term.cost_atto)
    cost_atto = sum(known) if known else None
    if not amount_atto and not cost_atto:
        return None
    return CostResult(start_us, group, amount_atto, cost_atto)


async def list_openai_costs(
    session: ReadSession, scope: Scope, query: BucketQuery, span: Span
) -> OpenAiPage[CostResult]:
    """Return the buckets of a page in OpenAI's form, without what the platform pays.

    Args:
        session: Where from.
        scope: Whose.
        query: Which, and how grouped; of days.
        span: Of which buckets.
    """
    source = store.find_source(query)
    found = await store.list_costs(session, scope, query, source, span.part, has_costs=False)
    return build_page(span, *cut(found))


async def month_charges(
    session: ReadSession, organization: str, month_us: int
) -> list[ModelCharge]:
    """Return what an organization's usage of a month is charged, by model and currency.

    Args:
        session: One that sees the organization.
        organization: Its id, or its name in a node's file.
        month_us: A moment of the month, UTC.
    """
    start_us = bucket_start("month", month_us)
    query = BucketQuery(
        width="month", group_by=("model",), filters={"organization": organization}, limit=1_000
    )
    part = Part(start_us, advance("month", start_us, 1), None, 2**31 - 1)
    source = store.find_source(query)
    results = await store.list_costs(session, session.scope, query, source, part, has_costs=False)
    return [ModelCharge(result.group[0], result.currency, result.amount_atto) for result in results]
