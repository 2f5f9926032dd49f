"""HTTP endpoints of API keys, their secrets, and service accounts."""

from typing import Annotated, Protocol

from fastapi import APIRouter, Depends, Query, Response

from penstock.access import rotation, service
from penstock.access.errors import (
    GRANT_EXCEEDED,
    KEY_INVALID,
    KEY_REVOKED,
    ROTATION_CONFLICT,
    SECRET_REVOKED,
)
from penstock.access.model import ApiKey, Principal, SecretState
from penstock.access.peppers import Peppers
from penstock.access.schemas import (
    CreatedKeyBody,
    KeyBody,
    KeyChangesBody,
    KeyPage,
    KeysQuery,
    NewKeyBody,
    RevocationBody,
    RotatedKeyBody,
    RotationBody,
    SecretBody,
    SecretsBody,
)
from penstock.audit.door import AdminRoute, Call, get_call, operation
from penstock.kit.errors import PenstockError
from penstock.kit.moments import format_time
from penstock.storage.errors import OBJECT_UNKNOWN, PAGE_CURSOR_INVALID, VERSION_CONFLICT
from penstock.storage.sessions import ReadSession, WriteSession
from penstock.tenancy import people
from penstock.tenancy import service as tenancy
from penstock.tenancy.errors import NAME_INVALID, NAME_TAKEN, ROLE_INVALID, STATUS_CONFLICT
from penstock.tenancy.model import ServiceAccount
from penstock.tenancy.schemas import (
    NewServiceAccount,
    ServiceAccountBody,
    ServiceAccountChanges,
    ServiceAccountPage,
    ServiceAccountsQuery,
)


class KeyCall(Call, Protocol):
    """A call whose rights are known: a key gets no more than its creator has."""

    @property
    def principal(self) -> Principal:
        """Who calls."""
        ...

    @property
    def peppers(self) -> Peppers:
        """What keys are hashed under."""
        ...


_Call = Annotated[KeyCall, Depends(get_call)]

service_accounts = APIRouter(
    prefix="/api/v1/service-accounts", tags=["service accounts"], route_class=AdminRoute
)
keys = APIRouter(prefix="/api/v1/keys", tags=["keys"], route_class=AdminRoute)


@service_accounts.post(
    "",
    status_code=201,
    summary="Create a service account in an organization, or in one project of it",
    response_model=ServiceAccountBody,
    **operation(
        "service_accounts:create",
        NAME_INVALID,
        NAME_TAKEN,
        ROLE_INVALID,
        STATUS_CONFLICT,
        GRANT_EXCEEDED,
        OBJECT_UNKNOWN,
        is_change=True,
    ),
)
async def create_service_account(call: _Call, body: NewServiceAccount) -> Response:
    """Create a service account in an organization, or in one project of it."""

    async def work(session: WriteSession) -> ServiceAccountBody:
        call.check(organization_id=body.organization_id, project_id=body.project_id)
        call.check_grant(body.role)
        account = await people.create_service_account(
            session,
            call.actor,
            body.organization_id,
            name=body.name,
            role=body.role,
            project_id=body.project_id,
        )
        return ServiceAccountBody.of(account)

    return await call.change(work, status=201)


@service_accounts.get(
    "",
    summary="List service accounts, oldest first",
    response_model=ServiceAccountPage,
    **operation("service_accounts:list", PAGE_CURSOR_INVALID),
)
async def list_service_accounts(
    call: _Call, query: Annotated[ServiceAccountsQuery, Query()]
) -> Response:
    """List service accounts, oldest first."""
    project_id = query.project_id or call.project_id
    call.check(organization_id=query.organization_id, project_id=project_id)
    page = query.to_page()
    async with call.read() as session:
        found = await people.list_service_accounts(
            session,
            page,
            organization_id=query.organization_id,
            project_id=project_id,
            name=query.name,
        )
    return call.answer(ServiceAccountPage.of(found))


@service_accounts.get(
    "/{account_id}",
    summary="Show a service account",
    response_model=ServiceAccountBody,
    **operation("service_accounts:get", is_of_object=True),
)
async def get_service_account(call: _Call, account_id: str) -> Response:
    """Show a service account."""
    async with call.read() as session:
        found = await _get_account(call, session, account_id)
    return call.answer(ServiceAccountBody.of(found))


@service_accounts.patch(
    "/{account_id}",
    summary="Change role or state of a service account",
    description="Its keys follow at once: they can do no more than it can.",
    response_model=ServiceAccountBody,
    **operation(
        "service_accounts:update", ROLE_INVALID, GRANT_EXCEEDED, is_change=True, is_of_object=True
    ),
)
async def update_service_account(
    call: _Call, account_id: str, body: ServiceAccountChanges
) -> Response:
    """Change role or state of a service account."""

    async def work(session: WriteSession) -> ServiceAccountBody:
        account = await _get_account(call, session, account_id)
        call.check_grant(account.role, body.role or account.role)
        updated = await service.update_service_account(
            session,
            call.actor,
            account_id,
            role=body.role,
            is_disabled=body.is_disabled,
            expected_version=call.expected_version,
        )
        return ServiceAccountBody.of(updated)

    return await call.change(work)


@service_accounts.delete(
    "/{account_id}",
    status_code=204,
    response_class=Response,
    summary="Disable a service account and all its keys",
    description="The account stays visible, because usage and the audit log name it.",
    **operation("service_accounts:update", GRANT_EXCEEDED, is_change=True, is_of_object=True),
)
async def disable_service_account(call: _Call, account_id: str) -> Response:
    """Disable a service account and all its keys."""

    async def work(session: WriteSession) -> None:
        account = await _get_account(call, session, account_id)
        call.check_grant(account.role)
        await service.update_service_account(
            session,
            call.actor,
            account_id,
            is_disabled=True,
            expected_version=call.expected_version,
        )

    return await call.change(work)


@keys.post(
    "",
    status_code=201,
    summary="Create a key in a project",
    description="`secret` is shown in this answer and never again.",
    response_model=CreatedKeyBody,
    **operation(
        "keys:create",
        KEY_INVALID,
        NAME_INVALID,
        NAME_TAKEN,
        STATUS_CONFLICT,
        GRANT_EXCEEDED,
        OBJECT_UNKNOWN,
        is_change=True,
    ),
)
async def create_key(call: _Call, body: NewKeyBody) -> Response:
    """Create a key in a project."""

    async def work(session: WriteSession) -> CreatedKeyBody:
        project = await tenancy.get_project(session, body.project_id)
        call.check(organization_id=project.organization_id, project_id=project.id)
        created = await service.create_key(
            session,
            call.actor,
            call.principal,
            call.peppers,
            project_id=body.project_id,
            new=body.to_new_key(),
        )
        return CreatedKeyBody.of_created(created)

    return await call.change(work, status=201)


@keys.get(
    "",
    summary="List keys, revoked ones too, oldest first",
    response_model=KeyPage,
    **operation("keys:list", PAGE_CURSOR_INVALID),
)
async def list_keys(call: _Call, query: Annotated[KeysQuery, Query()]) -> Response:
    """List keys, revoked ones too, oldest first."""
    project_id = query.project_id or call.project_id
    call.check(organization_id=query.organization_id, project_id=project_id)
    page = query.to_page()
    async with call.read() as session:
        found = await service.list_keys(
            session,
            page,
            organization_id=query.organization_id,
            project_id=project_id,
            service_account_id=query.service_account_id,
            name=query.name,
        )
    return call.answer(KeyPage.of(found))


@keys.get(
    "/{key_id}",
    summary="Show a key",
    response_model=KeyBody,
    **operation("keys:get", is_of_object=True),
)
async def get_key(call: _Call, key_id: str) -> Response:
    """Show a key."""
    async with call.read() as session:
        found = await _get_key(call, session, key_id)
    return call.answer(KeyBody.of(found))


@keys.patch(
    "/{key_id}",
    summary="Change members of a key",
    description="Secrets, usage and limits stay.",
    response_model=KeyBody,
    **operation(
        "keys:update",
        KEY_INVALID,
        NAME_INVALID,
        NAME_TAKEN,
        KEY_REVOKED,
        GRANT_EXCEEDED,
        is_change=True,
        is_of_object=True,
    ),
)
async def update_key(call: _Call, key_id: str, body: KeyChangesBody) -> Response:
    """Change members of a key."""

    async def work(session: WriteSession) -> KeyBody:
        await _get_key(call, session, key_id)
        updated = await service.update_key(
            session,
            call.actor,
            call.principal,
            key_id,
            body.to_changes(),
            expected_version=call.expected_version,
        )
        return KeyBody.of(updated)

    return await call.change(work)


@keys.post(
    "/{key_id}/rotate",
    summary="Give a key a new secret",
    description=(
        "Id, limits and usage stay. The old secret works on for `grace_s` seconds. `secret` is "
        "shown in this answer and never again."
    ),
    response_model=RotatedKeyBody,
    **operation(
        "keys:rotate",
        KEY_INVALID,
        KEY_REVOKED,
        ROTATION_CONFLICT,
        GRANT_EXCEEDED,
        is_change=True,
        is_of_object=True,
    ),
)
async def rotate_key(call: _Call, key_id: str, body: RotationBody | None = None) -> Response:
    """Give a key a new secret."""

    async def work(session: WriteSession) -> RotatedKeyBody:
        await _get_key(call, session, key_id)
        rotated = await rotation.rotate_key(
            session,
            call.actor,
            call.principal,
            call.peppers,
            key_id=key_id,
            grace_s=0 if body is None else body.grace_s,
            expected_version=call.expected_version,
        )
        ends = [
            secret.not_after_us
            for secret in await service.list_secrets(session, key_id)
            if secret.state == SecretState.RETIRING and secret.not_after_us is not None
        ]
        return RotatedKeyBody.of(
            rotated.key,
            secret=rotated.text,
            retiring_until=format_time(max(ends)) if ends else None,
        )

    return await call.change(work)


@keys.post(
    "/{key_id}/revoke",
    summary="End a key and all its secrets for ever, at once",
    response_model=KeyBody,
    **operation("keys:revoke", KEY_INVALID, is_change=True, is_of_object=True),
)
async def revoke_key(call: _Call, key_id: str, body: RevocationBody | None = None) -> Response:
    """End a key and all its secrets for ever, at once."""

    async def work(session: WriteSession) -> KeyBody:
        await _get_key(call, session, key_id)
        revoked = await service.revoke_key(
            session,
            call.actor,
            key_id,
            reason="" if body is None else body.reason,
            expected_version=call.expected_version,
        )
        return KeyBody.of(revoked)

    return await call.change(work)


@keys.post(
    "/{key_id}/disable",
    summary="Have a key refused until it is enabled",
    response_model=KeyBody,
    **operation("keys:disable", KEY_REVOKED, is_change=True, is_of_object=True),
)
async def disable_key(call: _Call, key_id: str) -> Response:
    """Have a key refused until it is enabled."""

    async def work(session: WriteSession) -> KeyBody:
        await _get_key(call, session, key_id)
        disabled = await service.disable_key(
            session, call.actor, key_id, expected_version=call.expected_version
        )
        return KeyBody.of(disabled)

    return await call.change(work)


@keys.post(
    "/{key_id}/enable",
    summary="Let a disabled key work again",
    response_model=KeyBody,
    **operation("keys:enable", KEY_REVOKED, GRANT_EXCEEDED, is_change=True, is_of_object=True),
)
async def enable_key(call: _Call, key_id: str) -> Response:
    """Let a disabled key work again."""

    async def work(session: WriteSession) -> KeyBody:
        await _get_key(call, session, key_id)
        enabled = await service.enable_key(
            session, call.actor, call.principal, key_id, expected_version=call.expected_version
        )
        return KeyBody.of(enabled)

    return await call.change(work)


@keys.get(
    "/{key_id}/secrets",
    summary="List the secrets of a key by their ids, oldest first",
    response_model=SecretsBody,
    **operation("key_secrets:list", is_of_object=True),
)
async def list_key_secrets(call: _Call, key_id: str) -> Response:
    """List the secrets of a key by their ids, oldest first."""
    async with call.read() as session:
        await _get_key(call, session, key_id)
        secrets = await service.list_secrets(session, key_id)
    return call.answer(SecretsBody(data=[SecretBody.of(secret) for secret in secrets]))


@keys.delete(
    "/{key_id}/secrets/{secret_id}",
    status_code=204,
    response_class=Response,
    summary="End one secret of a key for ever, at once",
    **operation(
        "key_secrets:revoke", KEY_REVOKED, SECRET_REVOKED, is_change=True, is_of_object=True
    ),
)
async def revoke_key_secret(call: _Call, key_id: str, secret_id: str) -> Response:
    """End one secret of a key for ever, at once."""

    async def work(session: WriteSession) -> None:
        key = await _get_key(call, session, key_id)
        if call.expected_version not in {None, key.version}:
            raise PenstockError(VERSION_CONFLICT)
        await rotation.revoke_secret(session, call.actor, key_id, secret_id)

    return await call.change(work)


async def _get_key(call: Call, session: ReadSession, key_id: str) -> ApiKey:
    key = await service.get_key(session, key_id)
    call.check(organization_id=key.organization_id, project_id=key.project_id)
    return key


async def _get_account(call: Call, session: ReadSession, account_id: str) -> ServiceAccount:
    account = await people.get_service_account(session, account_id)
    call.check(organization_id=account.organization_id, project_id=account.project_id)
    return account
