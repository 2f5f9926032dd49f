"""HTTP endpoints of usage in OpenAI's form, for tools that know that."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from penstock.audit.door import AdminRoute, Call, get_call, operation
from penstock.metering import bucket_service as service
from penstock.metering.bucket_model import BucketQuery, UsageResult, Width
from penstock.metering.errors import CURSOR_INVALID, GROUPING_UNKNOWN
from penstock.metering.openai_rules import OpenAiPage
from penstock.metering.openai_schemas import (
    LISTS,
    CompletionsResultBody,
    CompletionsUsageBody,
    EmbeddingsResultBody,
    EmbeddingsUsageBody,
    OpenAiUsageQuery,
    openai_members,
)
from penstock.metering.visibility import narrow
from penstock.storage.errors import OBJECT_UNKNOWN
from penstock.storage.sessions import ReadSession

_DIMENSIONS = {
    "project_id": "project",
    "api_key_id": "key_id",
    "model": "model",
    "line_item": "model",
}
_WHOSE = (
    "Whose: as of `/api/v1/usage`. What is not kept, such as minutes or users, is 400. Lists are "
    "given as `models=a&models=b`, or `models[]=a&models[]=b`."
)

openai_usage = APIRouter(prefix="/v1/organization/usage", tags=["usage"], route_class=AdminRoute)


@openai_usage.get(
    "/completions",
    summary="Add up usage of all but embeddings, in OpenAI's form",
    description=_WHOSE,
    response_model=CompletionsUsageBody,
    **operation("usage:read", CURSOR_INVALID, GROUPING_UNKNOWN, OBJECT_UNKNOWN, lists=LISTS),
)
async def list_completions_usage(
    call: Annotated[Call, Depends(get_call)], query: Annotated[OpenAiUsageQuery, Query()]
) -> Response:
    """Add up usage of all but embeddings, in OpenAI's form."""
    page = await _read(call, query, is_embeddings=False)
    members = openai_members(page, lambda result: CompletionsResultBody.of(result, query.group_by))
    return call.answer(CompletionsUsageBody(**members))


@openai_usage.get(
    "/embeddings",
    summary="Add up usage for embeddings, in OpenAI's form",
    description=_WHOSE,
    response_model=EmbeddingsUsageBody,
    **operation("usage:read", CURSOR_INVALID, GROUPING_UNKNOWN, OBJECT_UNKNOWN, lists=LISTS),
)
async def list_embeddings_usage(
    call: Annotated[Call, Depends(get_call)], query: Annotated[OpenAiUsageQuery, Query()]
) -> Response:
    """Add up usage for embeddings, in OpenAI's form."""
    page = await _read(call, query, is_embeddings=True)
    members = openai_members(page, lambda result: EmbeddingsResultBody.of(result, query.group_by))
    return call.answer(EmbeddingsUsageBody(**members))


async def _read(
    call: Call, query: OpenAiUsageQuery, *, is_embeddings: bool
) -> OpenAiPage[UsageResult]:
    span = query.span(call.actor.at_us)
    async with call.read() as session:
        filters = await find_filters(call, session, query.project_ids, query.api_key_ids)
        if query.models:
            filters["model"] = tuple(query.models)
        wanted = build_query(span.width, query.group_by, filters)
        return await service.list_openai_usage(
            session, session.scope, wanted, span, is_embeddings=is_embeddings
        )


def build_query(
    width: Width, group_by: Sequence[str], filters: Mapping[str, str | tuple[str, ...]]
) -> BucketQuery:
    """Return what is asked for in OpenAI's words."""
    groups = tuple(_DIMENSIONS[name] for name in group_by)
    return BucketQuery(width=width, group_by=groups, filters=filters)


async def find_filters(
    call: Call, session: ReadSession, project_ids: Sequence[str], key_ids: Sequence[str]
) -> dict[str, str | tuple[str, ...]]:
    """Check that what a caller asks for is theirs, and return what dimensions must be.

    Raises:
        PenstockError: As `narrow`, for the first one that is not.
    """
    projects: set[str] = set()
    for project in (*project_ids,) or (None,):
        found = await narrow(call, session, organization=None, project=project, key_id=None)
        projects |= {found} if found is not None else set()
    for key_id in key_ids:
        await narrow(call, session, organization=None, project=None, key_id=key_id)
    filters: dict[str, str | tuple[str, ...]] = {}
    if projects:
        filters["project"] = tuple(sorted(projects))
    if key_ids:
        filters["key_id"] = tuple(key_ids)
    return filters
