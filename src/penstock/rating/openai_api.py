"""The HTTP endpoint of costs in OpenAI's form, for tools that know that."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Response

from penstock.audit.door import AdminRoute, Call, get_call, operation
from penstock.metering.errors import CURSOR_INVALID, GROUPING_UNKNOWN
from penstock.metering.openai_api import build_query, find_filters
from penstock.metering.openai_schemas import LISTS, openai_members
from penstock.rating import cost_service as service
from penstock.rating.openai_schemas import OpenAiCostResultBody, OpenAiCostsBody, OpenAiCostsQuery
from penstock.storage.errors import OBJECT_UNKNOWN

_encode = msgspec.json.Encoder(decimal_format="number").encode

openai_costs = APIRouter(prefix="/v1/organization/costs", tags=["costs"], route_class=AdminRoute)


@openai_costs.get(
    "",
    summary="Add up what usage is charged by day, in OpenAI's form",
    description=(
        "Whose: as of `/api/v1/costs`; what the platform pays is not told here. Lists are given as "
        "`project_ids=a&project_ids=b`, or `project_ids[]=a&project_ids[]=b`."
    ),
    response_model=OpenAiCostsBody,
    **operation(
        "costs:read", CURSOR_INVALID, GROUPING_UNKNOWN, OBJECT_UNKNOWN, lists=(*LISTS, "line_items")
    ),
)
async def list_openai_costs(
    call: Annotated[Call, Depends(get_call)], query: Annotated[OpenAiCostsQuery, Query()]
) -> Response:
    """Add up what usage is charged by day, in OpenAI's form."""
    # A result's group has its currency, too.
    span = query.find_span("day", query.limit, len(query.group_by) + 1, call.actor.at_us)
    async with call.read() as session:
        filters = await find_filters(call, session, query.project_ids, query.api_key_ids)
        if query.line_items:
            filters["model"] = tuple(query.line_items)
        wanted = build_query("day", query.group_by, filters)
        page = await service.list_openai_costs(session, session.scope, wanted, span)
    members = openai_members(page, lambda result: OpenAiCostResultBody.of(result, query.group_by))
    # Amounts are numbers here, and no number that is read as binary may come between.
    body = OpenAiCostsBody(**members).model_dump()
    return Response(_encode(body), media_type="application/json")
