"""HTTP endpoint of the notices room."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from penstock.audit.door import AdminRoute, Call, get_call, operation
from penstock.notices import service
from penstock.notices.schemas import NoticeBody, NoticesBody, NoticesQuery
from penstock.storage.errors import OBJECT_UNKNOWN, PAGE_CURSOR_INVALID

notices = APIRouter(prefix="/api/v1/notices", tags=["notices"], route_class=AdminRoute)


@notices.get(
    "",
    summary="Read what there is to be told, oldest first",
    description=(
        "Alerts of budgets, budgets that are exhausted, wallets that are empty, usage that was put "
        "aside. Keep `cursor` when you have acted on an answer, and pass it as `after`; an answer "
        "without notices has one, too. A notice that is delivered again has the same `id`. They "
        "are kept for 30 days."
    ),
    response_model=NoticesBody,
    **operation("notices:list", PAGE_CURSOR_INVALID, OBJECT_UNKNOWN),
)
async def list_notices(
    call: Annotated[Call, Depends(get_call)], query: Annotated[NoticesQuery, Query()]
) -> Response:
    """Read what there is to be told, oldest first."""
    call.check(organization_id=query.organization_id)
    async with call.read() as session:
        found, cursor = await service.list_notices(
            session, query.after, organization=query.organization_id, limit=query.limit
        )
    return call.answer(NoticesBody(data=[NoticeBody.of(one) for one in found], cursor=cursor))
