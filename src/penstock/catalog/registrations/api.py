"""HTTP endpoints of the admin API for registrations; how engines register is in `control`."""

from typing import Annotated, Protocol, TypeAlias

from fastapi import Depends, Query, Response

from penstock.access.peppers import Peppers
from penstock.audit.door import Call, get_call, operation
from penstock.catalog.endpoints import CallParameter, Noun, create_router
from penstock.catalog.registrations import service
from penstock.catalog.registrations.schemas import (
    CreatedRegistrationTokenBody,
    NewRegistrationTokenBody,
    OfUpstreamQuery,
    RegistrationBody,
    RegistrationPage,
    RegistrationTokenBody,
    RegistrationTokenPage,
)
from penstock.storage.errors import OBJECT_UNKNOWN, PAGE_CURSOR_INVALID
from penstock.storage.sessions import WriteSession

registration_tokens = create_router("registration_tokens")
registrations = create_router("registrations")


class _PepperedCall(Call, Protocol):
    @property
    def peppers(self) -> Peppers: ...


_Call: TypeAlias = Annotated[_PepperedCall, Depends(get_call)]

_token = Noun(
    router=registration_tokens,
    name="registration_token",
    plural="registration_tokens",
    body=RegistrationTokenBody,
)
_token.add_reads(
    RegistrationTokenPage,
    OfUpstreamQuery,
    get=service.get_registration_token,
    find=service.list_registration_tokens,
)
_token.add_delete(service.delete_registration_token)


@registration_tokens.post(
    "",
    status_code=201,
    summary="Create a token that engines of an upstream register with",
    description=(
        "`secret` is shown in this answer and never again. Who has it can have requests of callers "
        "sent to addresses in the upstream's networks."
    ),
    response_model=CreatedRegistrationTokenBody,
    **operation("registration_tokens:create", OBJECT_UNKNOWN, is_change=True),
)
async def create_registration_token(call: _Call, body: NewRegistrationTokenBody) -> Response:
    """Create a token that engines of an upstream register with."""

    async def work(session: WriteSession) -> CreatedRegistrationTokenBody:
        created = await service.create_registration_token(
            session, call.actor, call.peppers, body.upstream_id
        )
        return CreatedRegistrationTokenBody.of_created(created)

    return await call.change(work, status=201)


@registrations.get(
    "",
    summary="List registered engines, oldest first, with those that lapsed lately",
    response_model=RegistrationPage,
    **operation("registrations:list", PAGE_CURSOR_INVALID),
)
async def list_registrations(
    call: CallParameter, query: Annotated[OfUpstreamQuery, Query()]
) -> Response:
    """List registered engines, oldest first, with those that lapsed lately."""
    async with call.read() as session:
        found = await service.list_registrations(
            session, query.to_page(), upstream_id=query.upstream_id
        )
    shown = [RegistrationBody.of_registration(each) for each in found.items]
    return call.answer(RegistrationPage(data=shown, next_cursor=found.next_cursor))
