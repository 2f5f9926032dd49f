"""Figures of hours, days and months, by group."""

from collections.abc import Iterable
from dataclasses import replace

from penstock.metering import bucket_store as store
from penstock.metering.bucket_model import BucketPage, BucketQuery, Part, UsageResult
from penstock.metering.bucket_rules import collect, snap
from penstock.metering.openai_rules import OpenAiPage, Span, build_page, cut, fold, take_off
from penstock.metering.zone_rules import add_terms
from penstock.metering.zone_service import ZoneReader
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession


async def list_usage_buckets(
    session: ReadSession, scope: Scope, query: BucketQuery
) -> BucketPage[UsageResult]:
    """Return a page of what groups consumed, in order of time and group; exact at any size.

    A bucket that the query's times touch is meant as a whole; one without usage has no result.
    What comes in late, between two pages, is seen if its place is behind the first of them.

    Args:
        session: Where from.
        scope: Whose.
        query: Which; `bucket_rules.find_fault` finds nothing wrong with it.
    """
    if query.zone is not None and query.width != "hour":
        return await _list_of_zone(session, scope, query)
    source = store.find_source(query)
    ends = await store.find_ends(session, scope, query, source)
    if ends is None:
        return BucketPage([], None)

    async def fetch(part: Part) -> list[UsageResult]:
        return await store.list_usage(session, scope, query, source, part)

    return await collect(query, *snap(query, *ends), fetch, is_single=source.width != query.width)


async def _list_of_zone(
    session: ReadSession, scope: Scope, query: BucketQuery
) -> BucketPage[UsageResult]:
    sources = store.find_sources(query)
    ends = await store.find_ends(session, scope, query, sources["quarter"])
    if ends is None:
        return BucketPage([], None)

    async def read(part: Part) -> list[UsageResult]:
        return await store.list_usage(session, scope, query, sources[part.grain], part)

    fetch = ZoneReader(query, read, add_terms).fetch
    return await collect(query, *snap(query, *ends), fetch)


async def list_openai_usage(
    session: ReadSession, scope: Scope, query: BucketQuery, span: Span, *, is_embeddings: bool
) -> OpenAiPage[UsageResult]:
    """Return the buckets of a page in OpenAI's form: of embeddings, or of all else.

    Args:
        session: Where from.
        scope: Whose.
        query: Which, and how grouped; of hours or days.
        span: Of which buckets.
        is_embeddings: Of which of the two.
    """
    hours = replace(query, width="hour")
    part = Part(span.start_us, span.end_us, None, 2**31 - 1)
    of_hours = await store.list_usage(session, scope, hours, store.EMBEDDINGS, part)
    embeddings = fold(of_hours, span.width)
    if is_embeddings:
        behind = span.after or (0, ())
        return build_page(
            span, *cut([one for one in embeddings if (one.start_us, one.group) > behind])
        )
    source = store.find_source(query)
    every, end = cut(await store.list_usage(session, scope, query, source, span.part))
    return build_page(span, take_off(every, embeddings), end)


async def name_groups(
    session: ReadSession, scope: Scope, group_by: tuple[str, ...], groups: Iterable[tuple[str, ...]]
) -> dict[str, dict[str, str]]:
    """Return what the organizations, projects and keys of groups are called now, by their ids.

    What is none, or is another organization's, has no name here.
    """
    ids: dict[str, set[str]] = {name: set() for name in group_by}
    for group in groups:
        for name, value in zip(group_by, group, strict=False):
            ids[name].add(value)
    return await store.find_names(session, scope, ids)
