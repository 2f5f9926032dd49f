"""The HTTP endpoint that tells what became of a request."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from penstock.audit.door import AdminRoute, Call, get_call, operation
from penstock.billing.story import tell
from penstock.billing.story_schemas import RequestsQuery, StoriesBody, StoryBody
from penstock.kit.errors import PenstockError
from penstock.metering.visibility import narrow

requests = APIRouter(prefix="/api/v1/requests", tags=["requests"], route_class=AdminRoute)


@requests.get(
    "",
    summary="Tell what became of a request: its usage, what that cost, where it is booked",
    description=(
        "Requests that were sent to an engine, once their usage has arrived. Nobody sees more than "
        "elsewhere: charges with the scope `costs:read`; transfers, corrections and invoices with "
        "a role for the organization's books; prices, and what the platform pays, as its operator."
    ),
    response_model=StoriesBody,
    **operation("requests:read"),
)
async def list_requests(
    call: Annotated[Call, Depends(get_call)], query: Annotated[RequestsQuery, Query()]
) -> Response:
    """Tell what became of a request."""
    async with call.read() as session:
        project = await narrow(call, session, organization=None, project=None, key_id=None)
        stories = await tell(
            session,
            query.id,
            project=project,
            sees_charges=_may(call, "costs:read"),
            sees_costs=call.organization_id is None,
            # A transfer has charges of all projects.
            sees_books=project is None and _may(call, "statements:read"),
        )
    return call.answer(StoriesBody(data=[StoryBody.build(story) for story in stories]))


def _may(call: Call, operation_name: str) -> bool:
    try:
        call.check_also(operation_name)
    except PenstockError:
        return False
    return True
