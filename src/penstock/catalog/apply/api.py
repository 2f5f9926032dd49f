"""HTTP endpoints of applying and exporting."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from penstock.access.api import KeyCall
from penstock.access.errors import GRANT_EXCEEDED
from penstock.audit.door import AdminRoute, get_call, operation
from penstock.catalog.apply import service
from penstock.catalog.apply.kind import Hands, Kind
from penstock.catalog.apply.schemas import AppliedBody, ApplyBody, ExportBody, ExportQuery
from penstock.catalog.credentials.data_keys import DataKeys
from penstock.catalog.credentials.errors import KEK_UNAVAILABLE
from penstock.catalog.errors import DOCUMENT_INVALID, EXPORT_TOO_LARGE
from penstock.storage.sessions import WriteSession

_Call = Annotated[KeyCall, Depends(get_call)]


def create_platform_router(data_keys: DataKeys, kinds: Sequence[Kind]) -> APIRouter:
    """Return the endpoints.

    Args:
        data_keys: What credentials are encrypted with.
        kinds: What documents may have, those of higher rooms, too.
    """
    router = APIRouter(prefix="/api/v1/platform", tags=["platform"], route_class=AdminRoute)

    @router.post(
        "/apply",
        summary="Make the platform what a document says",
        description="In one transaction: everything, or nothing. Again, it changes nothing.",
        response_model=AppliedBody,
        **operation(
            "platform:apply", DOCUMENT_INVALID, GRANT_EXCEEDED, KEK_UNAVAILABLE, is_change=True
        ),
    )
    async def apply_document(call: _Call, body: ApplyBody) -> Response:
        """Make the platform what a document says."""

        async def work(session: WriteSession) -> AppliedBody:
            hands = Hands(
                session=session,
                actor=call.actor,
                principal=call.principal,
                peppers=call.peppers,
                data_keys=data_keys,
            )
            applied = await service.apply(
                hands, kinds, body.document, set_name=body.set, is_pruning=body.prune
            )
            return AppliedBody.of(applied, is_dry_run=body.is_dry_run)

        return await (call.rehearse(work) if body.is_dry_run else call.change(work))

    @router.get(
        "/export",
        summary="Write what there is as a document",
        response_model=ExportBody,
        **operation("platform:export", EXPORT_TOO_LARGE),
    )
    async def export_document(call: _Call, query: Annotated[ExportQuery, Query()]) -> Response:
        """Write what there is as a document."""
        async with call.read() as session:
            document = await service.export(session, kinds, set_name=query.set)
        return call.answer(ExportBody(document=document))

    return router
