"""HTTP endpoints of what usage is charged and what it costs."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from penstock.audit.door import AdminRoute, Call, get_call, operation
from penstock.metering.bucket_schemas import build_buckets
from penstock.metering.bucket_service import name_groups
from penstock.metering.errors import CURSOR_INVALID, GROUPING_UNKNOWN
from penstock.metering.visibility import narrow
from penstock.rating import cost_service as service
from penstock.rating.cost_schemas import (
    CostResultBody,
    CostsBody,
    CostsQuery,
    OperatorCostResultBody,
)
from penstock.storage.errors import OBJECT_UNKNOWN

costs = APIRouter(prefix="/api/v1/costs", tags=["costs"], route_class=AdminRoute)


@costs.get(
    "",
    summary="Add up what usage is charged, by day or month, and by group",
    description=(
        "Amounts are exact; nothing is rounded before an invoice. A bucket that `since` and "
        "`until` touch is meant as a whole. What the platform pays is told to its operator alone; "
        "everybody else sees what their organization, or their only project, is charged, with a "
        "key of scope `costs:read` or `admin`."
    ),
    response_model=CostsBody,
    **operation("costs:read", CURSOR_INVALID, GROUPING_UNKNOWN, OBJECT_UNKNOWN),
)
async def list_costs(
    call: Annotated[Call, Depends(get_call)], query: Annotated[CostsQuery, Query()]
) -> Response:
    """Add up what usage is charged, by day or month, and by group."""
    is_operator = call.organization_id is None
    async with call.read() as session:
        project = await narrow(
            call,
            session,
            organization=query.organization,
            project=query.project,
            key_id=query.key_id,
        )
        wanted = query.build(query.bucket, project, ranks=1)
        page = await service.list_costs(session, session.scope, wanted, has_costs=is_operator)
        groups = (result.group for result in page.results)
        names = await name_groups(session, session.scope, wanted.group_by, groups)
    body = OperatorCostResultBody if is_operator else CostResultBody
    bodies = [body.of(result, wanted.group_by, names) for result in page.results]
    return call.answer(CostsBody(**build_buckets(query.bucket, page, bodies, query.zone)))
