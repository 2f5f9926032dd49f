"""The HTTP endpoint of how long requests took."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from penstock.audit.door import AdminRoute, Call, get_call, operation
from penstock.metering.bucket_schemas import build_buckets
from penstock.metering.bucket_service import name_groups
from penstock.metering.errors import CURSOR_INVALID, SPAN_TOO_LONG
from penstock.metering.latency_schemas import LatencyBody, LatencyQuery, LatencyResultBody
from penstock.metering.latency_service import list_latency
from penstock.metering.visibility import narrow
from penstock.storage.errors import OBJECT_UNKNOWN

latency = APIRouter(prefix="/api/v1/usage", tags=["usage"], route_class=AdminRoute)


@latency.get(
    "/latency",
    summary="Show how long requests took and how they ended, by hour or day, and by group",
    description=(
        "From histograms that are kept by hour, project and model: a time is within 1/16 of what "
        "it was. A bucket that `since` and `until` touch is meant as a whole. Whose: as of "
        "`/api/v1/usage`."
    ),
    response_model=LatencyBody,
    **operation("usage:read", CURSOR_INVALID, SPAN_TOO_LONG, OBJECT_UNKNOWN),
)
async def list_usage_latency(
    call: Annotated[Call, Depends(get_call)], query: Annotated[LatencyQuery, Query()]
) -> Response:
    """Show how long requests took and how they ended, by hour or day, and by group."""
    async with call.read() as session:
        project = await narrow(
            call, session, organization=query.organization, project=query.project, key_id=None
        )
        wanted = query.build(project, call.actor.at_us)
        page = await list_latency(session, session.scope, wanted)
        groups = (result.group for result in page.results)
        names = await name_groups(session, session.scope, wanted.group_by, groups)
    bodies = [LatencyResultBody.of(result, wanted.group_by, names) for result in page.results]
    return call.answer(LatencyBody(**build_buckets(query.bucket, page, bodies, None)))
