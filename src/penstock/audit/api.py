"""HTTP endpoints of the audit room."""

import re
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from penstock.audit import service
from penstock.audit.door import AdminRoute, Call, get_call, operation
from penstock.audit.schemas import (
    EntriesQuery,
    EntryPage,
    VerificationBody,
    VerifyBody,
)
from penstock.audit.signing import PublicKeys
from penstock.kit.errors import PenstockError
from penstock.storage.errors import OBJECT_UNKNOWN, PAGE_CURSOR_INVALID

_CURSOR = re.compile(r"[0-9]{1,16}")
_Call = Annotated[Call, Depends(get_call)]


def create_audit_router(public_keys: PublicKeys) -> APIRouter:
    """Return the endpoints of the audit log.

    Args:
        public_keys: Whose signatures under checkpoints count.
    """
    router = APIRouter(prefix="/api/v1/audit", tags=["audit"], route_class=AdminRoute)

    @router.get(
        "",
        summary="List audit entries of one chain, oldest first",
        response_model=EntryPage,
        **operation("audit:read", PAGE_CURSOR_INVALID),
    )
    async def list_audit_entries(call: _Call, query: Annotated[EntriesQuery, Query()]) -> Response:
        organization_id = query.organization_id or call.organization_id
        call.check(organization_id=organization_id)
        after = _parse_cursor(query.cursor)
        async with call.read() as session:
            entries = await service.list_entries(
                session,
                organization_id,
                entry_filter=query.to_filter(),
                after=after,
                limit=query.limit + 1,
            )
        page = entries[: query.limit]
        next_cursor = str(page[-1].number) if len(entries) > query.limit else None
        return call.answer(EntryPage.build(page, next_cursor))

    @router.post(
        "/verify",
        summary="Walk along chains and name the first link that is not what it was",
        description="Changes nothing.",
        response_model=VerificationBody,
        **operation("audit:verify", OBJECT_UNKNOWN),
    )
    async def verify_audit(call: _Call, body: VerifyBody) -> Response:
        wanted = body.organization_id or call.organization_id
        call.check(organization_id=wanted)
        async with call.read() as session:
            chains = await service.list_chains(session)
            if wanted is not None:
                if wanted not in chains and body.organization_id is not None:
                    raise PenstockError(OBJECT_UNKNOWN)
                chains = [wanted]
            found = [await service.verify(session, chain, public_keys) for chain in chains]
        return call.answer(VerificationBody.of(found))

    return router


def _parse_cursor(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not _CURSOR.fullmatch(cursor):
        raise PenstockError(PAGE_CURSOR_INVALID)
    return int(cursor)
