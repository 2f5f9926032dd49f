"""HTTP endpoints of credentials."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from penstock.audit.door import AdminRoute, Call, get_call, operation
from penstock.catalog.credentials import jobs, service
from penstock.catalog.credentials.data_keys import DataKeys
from penstock.catalog.credentials.errors import (
    CREDENTIAL_INVALID,
    KEK_UNAVAILABLE,
    UPSTREAM_TAKEN,
)
from penstock.catalog.credentials.model import Credential
from penstock.catalog.credentials.schemas import (
    CredentialBody,
    CredentialChangesBody,
    CredentialPage,
    CredentialsQuery,
    KeyRotationBody,
    NewCredentialBody,
    RotationReportBody,
)
from penstock.catalog.errors import CATALOG_IN_USE
from penstock.kit.rotation import Report
from penstock.storage.database import Database
from penstock.storage.errors import OBJECT_UNKNOWN, PAGE_CURSOR_INVALID
from penstock.storage.sessions import ReadSession, WriteSession
from penstock.tenancy import service as tenancy
from penstock.tenancy.errors import NAME_INVALID, NAME_TAKEN, STATUS_CONFLICT

_Call = Annotated[Call, Depends(get_call)]


def create_credentials_router(database: Database, keys: DataKeys) -> APIRouter:
    """Return the endpoints of credentials and of what encrypts them.

    Args:
        database: Where rotations work, in transactions of their own.
        keys: What credentials are encrypted with.
    """
    router = APIRouter(prefix="/api/v1/credentials", tags=["credentials"], route_class=AdminRoute)
    _add_reads(router)
    _add_creation(router, keys)
    _add_changes(router, keys)
    _add_rotations(router, database, keys)
    return router


def _add_reads(router: APIRouter) -> None:
    @router.get(
        "",
        summary="List credentials without their secrets, oldest first",
        response_model=CredentialPage,
        **operation("credentials:list", PAGE_CURSOR_INVALID),
    )
    async def list_credentials(
        call: _Call, query: Annotated[CredentialsQuery, Query()]
    ) -> Response:
        call.check(organization_id=query.organization_id)
        page = query.to_page()
        async with call.read() as session:
            found = await service.list_credentials(
                session,
                page,
                organization_id=query.organization_id,
                name=query.name,
                provider=query.provider,
            )
        return call.answer(CredentialPage.of(found))

    @router.get(
        "/{credential_id}",
        summary="Show a credential without its secret",
        response_model=CredentialBody,
        **operation("credentials:get", is_of_object=True),
    )
    async def get_credential(call: _Call, credential_id: str) -> Response:
        async with call.read() as session:
            found = await _get(call, session, credential_id)
        return call.answer(CredentialBody.of(found))


def _add_creation(router: APIRouter, keys: DataKeys) -> None:
    @router.post(
        "",
        status_code=201,
        summary="Create a credential of the platform or of an organization",
        description="The secret is kept encrypted, opened by nodes only, and never answered.",
        response_model=CredentialBody,
        **operation(
            "credentials:create",
            CREDENTIAL_INVALID,
            NAME_INVALID,
            NAME_TAKEN,
            UPSTREAM_TAKEN,
            STATUS_CONFLICT,
            KEK_UNAVAILABLE,
            OBJECT_UNKNOWN,
            is_change=True,
        ),
    )
    async def create_credential(call: _Call, body: NewCredentialBody) -> Response:
        organization_id = body.organization_id or call.organization_id
        new = body.to_new_credential(organization_id)

        async def prepare() -> None:
            call.check(organization_id=organization_id)
            async with call.read() as session:
                await service.warm(session, keys, organization_id)

        async def work(session: WriteSession) -> CredentialBody:
            return CredentialBody.of(
                await service.create_credential(session, call.actor, keys, new)
            )

        return await call.change(work, status=201, prepare=prepare)


def _add_changes(router: APIRouter, keys: DataKeys) -> None:
    @router.patch(
        "/{credential_id}",
        summary="Give a credential another name or secret",
        response_model=CredentialBody,
        **operation(
            "credentials:update",
            CREDENTIAL_INVALID,
            NAME_INVALID,
            NAME_TAKEN,
            KEK_UNAVAILABLE,
            is_change=True,
            is_of_object=True,
        ),
    )
    async def update_credential(
        call: _Call, credential_id: str, body: CredentialChangesBody
    ) -> Response:
        async def prepare() -> None:
            async with call.read() as session:
                found = await _get(call, session, credential_id)
                await service.warm(session, keys, found.organization_id)

        async def work(session: WriteSession) -> CredentialBody:
            updated = await service.update_credential(
                session,
                call.actor,
                keys,
                credential_id,
                body.to_changes(),
                expected_version=call.expected_version,
            )
            return CredentialBody.of(updated)

        return await call.change(work, prepare=prepare)

    @router.delete(
        "/{credential_id}",
        status_code=204,
        response_class=Response,
        summary="Delete a credential that nothing names",
        **operation("credentials:delete", CATALOG_IN_USE, is_change=True, is_of_object=True),
    )
    async def delete_credential(call: _Call, credential_id: str) -> Response:
        async def work(session: WriteSession) -> None:
            await _get(call, session, credential_id)
            await service.delete_credential(
                session, call.actor, credential_id, expected_version=call.expected_version
            )

        return await call.change(work)


def _add_rotations(router: APIRouter, database: Database, keys: DataKeys) -> None:
    @router.post(
        "/rewrap",
        summary="Wrap all data keys with the current key-encryption key",
        description="Goes on where the last run was interrupted. No credential is touched.",
        response_model=RotationReportBody,
        **operation("credentials:rewrap", KEK_UNAVAILABLE, is_change=True),
    )
    async def rewrap_data_keys(call: _Call) -> Response:
        reports: list[Report] = []

        async def prepare() -> None:
            reports.append(await jobs.rewrap_data_keys(database, keys, call.actor))

        async def work(_session: WriteSession) -> RotationReportBody:
            return RotationReportBody.of(reports[0])

        return await call.change(work, prepare=prepare)

    @router.post(
        "/rotate",
        summary="Give an owner a new data key and encrypt its credentials anew",
        description=(
            "Goes on where the last run was interrupted. The old data key is deleted when nothing "
            "needs it any more."
        ),
        response_model=RotationReportBody,
        **operation("credentials:rotate", KEK_UNAVAILABLE, OBJECT_UNKNOWN, is_change=True),
    )
    async def rotate_data_key(call: _Call, body: KeyRotationBody | None = None) -> Response:
        named = None if body is None else body.organization_id
        organization_id = named or call.organization_id
        reports: list[Report] = []

        async def prepare() -> None:
            call.check(organization_id=organization_id)
            if organization_id is not None:
                async with call.read() as session:
                    await tenancy.get_organization(session, organization_id)
            reports.append(await jobs.rotate_data_key(database, keys, call.actor, organization_id))

        async def work(_session: WriteSession) -> RotationReportBody:
            return RotationReportBody.of(reports[0])

        return await call.change(work, prepare=prepare)


async def _get(call: Call, session: ReadSession, credential_id: str) -> Credential:
    credential = await service.get_credential(session, credential_id)
    call.check(organization_id=credential.organization_id)
    return credential
