"""HTTP endpoints of figures by hour, day and month."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from penstock.audit.door import AdminRoute, Call, get_call, operation
from penstock.metering import bucket_service as service
from penstock.metering.bucket_schemas import (
    BucketsQuery,
    UsageBucketsBody,
    UsageResultBody,
    build_buckets,
)
from penstock.metering.errors import CURSOR_INVALID, GROUPING_UNKNOWN
from penstock.metering.visibility import narrow
from penstock.storage.errors import OBJECT_UNKNOWN

buckets = APIRouter(prefix="/api/v1/usage", tags=["usage"], route_class=AdminRoute)


@buckets.get(
    "/buckets",
    summary="Add up usage by hour, day or month, and by group",
    description=(
        "A bucket that `since` and `until` touch is meant as a whole. A key with scope "
        "`usage:read` or `admin` sees the usage of its organization, one with a role in a single "
        "project that of its project."
    ),
    response_model=UsageBucketsBody,
    **operation("usage:read", CURSOR_INVALID, GROUPING_UNKNOWN, OBJECT_UNKNOWN),
)
async def list_usage_buckets(
    call: Annotated[Call, Depends(get_call)], query: Annotated[BucketsQuery, Query()]
) -> Response:
    """Add up usage by hour, day or month, and by group."""
    async with call.read() as session:
        project = await narrow(
            call,
            session,
            organization=query.organization,
            project=query.project,
            key_id=query.key_id,
        )
        wanted = query.build(query.bucket, project)
        page = await service.list_usage_buckets(session, session.scope, wanted)
        groups = (result.group for result in page.results)
        names = await service.name_groups(session, session.scope, wanted.group_by, groups)
    bodies = [UsageResultBody.of(result, wanted.group_by, names) for result in page.results]
    return call.answer(UsageBucketsBody(**build_buckets(query.bucket, page, bodies, query.zone)))
