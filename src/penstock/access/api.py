"""HTTP endpoints of API keys and their secrets."""

from typing import Annotated, Protocol

from fastapi import APIRouter, Depends, Query, Response

from penstock.access import due, rehash, rotation, service
from penstock.access.errors import (
    GRANT_EXCEEDED,
    KEY_INVALID,
    KEY_REVOKED,
    OPERATION_DENIED,
    ROTATION_CONFLICT,
    SECRET_REVOKED,
)
from penstock.access.labelling import PrincipalCall, require_labeller
from penstock.access.model import ApiKey, SecretState
from penstock.access.peppers import Peppers
from penstock.access.schemas import (
    CreatedKeyBody,
    DueBody,
    DueQuery,
    DuesBody,
    KeyBody,
    KeyChangesBody,
    KeyPage,
    KeysQuery,
    NewKeyBody,
    PepperBody,
    PeppersBody,
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
from penstock.tenancy.errors import NAME_INVALID, NAME_TAKEN, STATUS_CONFLICT


class KeyCall(PrincipalCall, Protocol):
    """A call whose rights are known: a key gets no more than its creator has."""

    @property
    def peppers(self) -> Peppers:
        """What keys are hashed under."""
        ...


_Call = Annotated[KeyCall, Depends(get_call)]

keys = APIRouter(prefix="/api/v1/keys", tags=["keys"], route_class=AdminRoute)
peppers = APIRouter(prefix="/api/v1/peppers", tags=["peppers"], route_class=AdminRoute)


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
        OPERATION_DENIED,
        OBJECT_UNKNOWN,
        is_change=True,
    ),
)
async def create_key(call: _Call, body: NewKeyBody) -> Response:
    """Create a key in a project."""

    async def work(session: WriteSession) -> CreatedKeyBody:
        created = await service.create_key(
            session,
            call.actor,
            call.principal,
            call.peppers,
            project_id=body.project_id,
            new=body.to_new_key(),
            check=call.check,
        )
        # Behind the look for the project: others' are like missing ones. Nothing stays of the key.
        require_labeller(call, {}, created.key.labels)
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
    project_id = call.narrow(query.organization_id, query.project_id)
    page = query.to_page()
    async with call.read() as session:
        found = await service.list_keys(
            session,
            page,
            organization_id=query.organization_id,
            project_id=project_id,
            service_account_id=query.service_account_id,
            member_id=query.member_id,
            name=query.name,
        )
    return call.answer(KeyPage.of(found))


@keys.get(
    "/due",
    summary="List secrets that somebody must look after, or callers are locked out",
    description=(
        "Those whose rotation is due by the key's policy, and old ones that are still used late "
        "in their grace period. At most 1,000 of each, the most urgent first."
    ),
    response_model=DuesBody,
    **operation("keys:list"),
)
async def list_due_secrets(call: _Call, query: Annotated[DueQuery, Query()]) -> Response:
    """List secrets that somebody must look after, or callers are locked out."""
    project_id = call.narrow(query.organization_id, query.project_id)
    async with call.read() as session:
        found = await due.list_due(
            session,
            call.actor.at_us,
            organization_id=query.organization_id,
            project_id=project_id,
        )
    return call.answer(DuesBody(data=[DueBody.of_due(one) for one in found]))


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
        OPERATION_DENIED,
        is_change=True,
        is_of_object=True,
    ),
)
async def update_key(call: _Call, key_id: str, body: KeyChangesBody) -> Response:
    """Change members of a key."""

    async def work(session: WriteSession) -> KeyBody:
        before = await _get_key(call, session, key_id)
        changes = body.to_changes()
        owner_id = before.member_id or before.service_account_id
        require_labeller(call, before.labels, changes.get("labels", before.labels), owner_id)
        updated = await service.update_key(
            session,
            call.actor,
            call.principal,
            key_id,
            changes,
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
    description="One that the platform's operator disabled, the operator only.",
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


@peppers.get(
    "",
    summary="Count the secrets that are hashed under each pepper",
    description="While a pepper is replaced: when an old one has none left, its file can go.",
    response_model=PeppersBody,
    **operation("peppers:read"),
)
async def count_by_pepper(call: _Call) -> Response:
    """Count the secrets that are hashed under each pepper."""
    async with call.read() as session:
        found = await rehash.count_by_pepper(session, call.peppers, call.actor.at_us)
    return call.answer(PeppersBody(data=[PepperBody.of(one) for one in found]))


async def _get_key(call: Call, session: ReadSession, key_id: str) -> ApiKey:
    key = await service.get_key(session, key_id)
    call.check(organization_id=key.organization_id, project_id=key.project_id)
    return key
