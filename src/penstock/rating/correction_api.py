"""HTTP endpoints of corrections."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from penstock.audit.door import AdminRoute, operation
from penstock.catalog.endpoints import CallParameter
from penstock.rating import corrections as service
from penstock.rating.correction_schemas import (
    CorrectedBody,
    CorrectionPage,
    CorrectionsQuery,
    NewCorrectionBody,
)
from penstock.rating.errors import CORRECTION_EXISTS, CORRECTION_INVALID
from penstock.rating.rerating import Post
from penstock.storage.errors import OBJECT_UNKNOWN, PAGE_CURSOR_INVALID
from penstock.storage.sessions import WriteSession


def create_correction_router(post: Post) -> APIRouter:
    """Return the endpoints.

    Args:
        post: Books differences in the ledger.
    """
    router = APIRouter(prefix="/api/v1/usage/corrections", tags=["usage"], route_class=AdminRoute)

    @router.post(
        "",
        summary="Correct what a usage event counts",
        description=(
            "The event stays as it is. The difference is booked at the event's price, once for "
            "its `reference`; repeated, it is answered like the first time."
        ),
        response_model=CorrectedBody,
        **operation(
            "usage_corrections:create",
            CORRECTION_INVALID,
            CORRECTION_EXISTS,
            OBJECT_UNKNOWN,
            is_change=True,
        ),
    )
    async def correct(call: CallParameter, body: NewCorrectionBody) -> Response:
        async def work(session: WriteSession) -> CorrectedBody:
            booked = await service.correct_usage(session, call.actor, body.to_new(), post)
            return CorrectedBody.build(booked, has_costs=True, is_dry_run=body.is_dry_run)

        return await (call.rehearse(work) if body.is_dry_run else call.change(work))

    @router.get(
        "",
        summary="List corrections of usage, oldest first",
        response_model=CorrectionPage,
        **operation("usage_corrections:list", PAGE_CURSOR_INVALID),
    )
    async def list_usage_corrections(
        call: CallParameter, query: Annotated[CorrectionsQuery, Query()]
    ) -> Response:
        call.check(organization_id=query.organization_id)
        async with call.read() as session:
            found = await service.list_corrections(
                session,
                query.to_page(),
                organization=query.organization_id,
                event_id=query.event_id,
            )
        is_operator = call.organization_id is None
        return call.answer(
            CorrectionPage.show(found.items, found.next_cursor, has_costs=is_operator)
        )

    return router
