"""Use cases of credentials: create, look at, change, delete.

None commits. Each change records an audit entry, without secrets, and a change for data planes in
the transaction of its session. What asks the KEK comes before the configuration is locked.
"""

import dataclasses
from typing import Any

from penstock.audit.model import Actor, Entry
from penstock.audit.service import record
from penstock.catalog import store as catalog
from penstock.catalog.credentials import store
from penstock.catalog.credentials.data_keys import DataKeys
from penstock.catalog.credentials.errors import (
    UPSTREAM_TAKEN,
    CredentialInvalidError,
    CredentialUnreadableError,
)
from penstock.catalog.credentials.model import (
    Credential,
    CredentialChanges,
    CredentialState,
    Dek,
    NewCredential,
    StoredDek,
)
from penstock.catalog.credentials.rules import check_credential, open_credential, seal_credential
from penstock.catalog.errors import CATALOG_IN_USE
from penstock.catalog.rules import PROVIDERS
from penstock.kit.base62 import create_id
from penstock.kit.envelope import SecretBytes
from penstock.kit.errors import PenstockError
from penstock.storage.changes import record_change
from penstock.storage.errors import OBJECT_UNKNOWN, RowConflictError
from penstock.storage.paging import Page, PageRequest
from penstock.storage.sessions import ReadSession, WriteSession
from penstock.tenancy import service as tenancy
from penstock.tenancy.errors import NAME_TAKEN
from penstock.tenancy.rules import normalize_name, require_active


async def create_credential(
    session: WriteSession, actor: Actor, keys: DataKeys, new: NewCredential
) -> Credential:
    """Create a credential; the first one of an owner makes the owner's data key.

    Raises:
        PenstockError: `CREDENTIAL_INVALID`, `NAME_INVALID`, `NAME_TAKEN`, `UPSTREAM_TAKEN`,
            `OBJECT_UNKNOWN` for organization or upstream, `STATUS_CONFLICT` when the organization
            is not active, `KEK_UNAVAILABLE`.
    """
    secret = check_credential(new.secret)
    credential = Credential(
        id=create_id("crd"),
        organization_id=new.organization_id,
        name=normalize_name(new.name),
        provider=new.provider,
        upstream_id=new.upstream_id,
        state=CredentialState.ACTIVE,
        created_by=actor.id,
        version=1,
        created_at_us=actor.at_us,
        updated_at_us=actor.at_us,
    )
    if new.organization_id is not None:
        organization = await tenancy.get_organization(session, new.organization_id)
        require_active(organization.status, "organization")
    await _check_place(session, credential)
    dek = await _lock_dek(session, actor, keys, new.organization_id)
    await _check_taken(session, credential)
    sealed = seal_credential(credential.identity, secret, dek)
    try:
        await store.insert_credential(session, session.scope, credential, sealed)
    except RowConflictError:
        raise PenstockError(NAME_TAKEN) from None
    await _tell(session, actor, "credential.create", None, credential)
    return credential


async def get_credential(session: ReadSession, credential_id: str) -> Credential:
    """Return a credential, without its secret.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`.
    """
    return await store.credentials.get(session, session.scope, credential_id)


async def find_credential_by_name(
    session: ReadSession, name: str, organization_id: str | None = None
) -> Credential | None:
    """Return an owner's credential of this name."""
    page = await list_credentials(
        session, PageRequest(), organization_id=organization_id, name=name
    )
    return next((one for one in page.items if one.organization_id == organization_id), None)


async def list_credentials(
    session: ReadSession,
    page: PageRequest,
    *,
    organization_id: str | None = None,
    name: str | None = None,
    provider: str | None = None,
) -> Page[Credential]:
    """Return credentials that the session may see, oldest first, without their secrets."""
    return await store.credentials.list(
        session,
        session.scope,
        page,
        organization_id=organization_id,
        name=name,
        provider=provider,
    )


async def update_credential(
    session: WriteSession,
    actor: Actor,
    keys: DataKeys,
    credential_id: str,
    changes: CredentialChanges,
    *,
    expected_version: int | None = None,
) -> Credential:
    """Give a credential another name or secret; a secret that is set is active again.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `VERSION_CONFLICT`, `CREDENTIAL_INVALID`, `NAME_INVALID`,
            `NAME_TAKEN`, `KEK_UNAVAILABLE`.
    """
    found = await get_credential(session, credential_id)
    values = {"name": normalize_name(changes["name"])} if "name" in changes else {}
    dek = secret = None
    if "secret" in changes:
        secret = check_credential(changes["secret"])
        dek = await _lock_dek(session, actor, keys, found.organization_id)
        values["state"] = CredentialState.ACTIVE
    before = await store.credentials.lock(session, session.scope, credential_id, expected_version)
    is_same = all(getattr(before, name) == value for name, value in values.items())
    if secret is None and is_same:
        return before
    try:
        after = await store.credentials.update(
            session, session.scope, before, updated_at_us=actor.at_us, **values
        )
    except RowConflictError:
        raise PenstockError(NAME_TAKEN) from None
    if dek is None or secret is None:
        await _tell(session, actor, "credential.update", before, after)
    else:
        sealed = seal_credential(after.identity, secret, dek)
        await store.update_sealed(session, session.scope, sealed)
        await _tell(session, actor, "credential.set", before, after)
    return after


async def delete_credential(
    session: WriteSession,
    actor: Actor,
    credential_id: str,
    *,
    expected_version: int | None = None,
) -> None:
    """Remove a credential that nothing names.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `VERSION_CONFLICT`, `CATALOG_IN_USE`.
    """
    scope = session.scope
    credential = await store.credentials.lock(session, scope, credential_id, expected_version)
    upstream = None
    if credential.organization_id is None:
        users = await catalog.list_users(session, scope, "credential", credential_id)
        if users:
            raise PenstockError(CATALOG_IN_USE, f"It is used by {', '.join(users)}.")
    elif credential.upstream_id is not None:
        upstream = await store.find_upstream(session, scope, credential.upstream_id)
    await store.delete_credential(session, scope, credential_id)
    object_id = credential_id
    if upstream is not None:
        object_id = f"{credential_id}\n{credential.organization_id}\n{upstream[0]}"
    await record_change(session, "credential", object_id, actor.at_us)
    await _record(session, actor, "credential.delete", credential, None)


async def read_secret(session: ReadSession, keys: DataKeys, credential_id: str) -> SecretBytes:
    """Return a credential in clear; the control plane itself has no use for it, but tests have.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `CREDENTIAL_UNREADABLE`, `KEK_UNAVAILABLE`.
    """
    kept = await store.find_kept(session, session.scope, credential_id)
    if kept is None:
        raise PenstockError(OBJECT_UNKNOWN)
    return open_credential(kept.credential, await keys.open(kept.dek))


async def warm(session: ReadSession, keys: DataKeys, organization_id: str | None) -> None:
    """Open an owner's data key ahead, so that no transaction that writes waits for the KEK.

    Raises:
        KeysUnavailableError: It cannot be opened now.
    """
    stored = await store.find_active_dek(session, session.scope, organization_id)
    if stored is not None:
        await _open(keys, stored)


async def mark(
    session: WriteSession, actor: Actor, credential_id: str, state: CredentialState, detail: str
) -> None:
    """Note that a credential does not open, or does again; once noted, it changes nothing.

    Args:
        session: Where to; the configuration is locked by it.
        actor: Who found out.
        credential_id: Which; one that is gone meanwhile is left.
        state: What it is now. One that was revoked stays so.
        detail: Why, for the audit log.
    """
    before = await store.credentials.find(session, session.scope, credential_id)
    if before is None or before.state in {state, CredentialState.REVOKED}:
        return
    after = await store.credentials.update(
        session, session.scope, before, updated_at_us=actor.at_us, state=state.value
    )
    await _tell(session, actor, "credential.mark", before, after, detail=detail)


async def _tell(
    session: WriteSession,
    actor: Actor,
    action: str,
    before: Credential | None,
    after: Credential,
    *,
    detail: str = "",
) -> None:
    """Record that a credential was changed."""
    await record_change(session, "credential", after.id, actor.at_us)
    await _record(session, actor, action, before, after, detail=detail)


async def _record(
    session: WriteSession,
    actor: Actor,
    action: str,
    before: Credential | None,
    after: Credential | None,
    *,
    detail: str = "",
) -> None:
    item = after or before
    if item is None:
        return
    await record(
        session,
        Entry(
            actor=actor,
            action=action,
            resource_kind="credential",
            resource_id=item.id,
            organization_id=item.organization_id,
            before=_members(before),
            after=_members(after),
            detail=detail,
        ),
    )


def _members(credential: Credential | None) -> dict[str, Any] | None:
    return None if credential is None else dataclasses.asdict(credential)


async def _check_place(session: ReadSession, credential: Credential) -> None:
    """Check that the provider is one, and the upstream's where there is an upstream."""
    if credential.upstream_id is None:
        if credential.provider not in PROVIDERS:
            message = f"Providers are: {', '.join(PROVIDERS)}."
            raise CredentialInvalidError(message)
        return
    if credential.organization_id is None:
        message = "Only an organization's credential names its upstream; upstreams name ours."
        raise CredentialInvalidError(message)
    upstream = await store.find_upstream(session, session.scope, credential.upstream_id)
    if upstream is None:
        raise PenstockError(OBJECT_UNKNOWN)
    if upstream[1] != credential.provider:
        message = "The credential's provider is another than the upstream's."
        raise CredentialInvalidError(message)


async def _check_taken(session: WriteSession, credential: Credential) -> None:
    """Check, with the configuration locked, that the upstream has none of the organization's."""
    if credential.upstream_id is None or credential.organization_id is None:
        return
    found = await store.find_own_credential(
        session, session.scope, credential.organization_id, credential.upstream_id
    )
    if found is not None:
        raise PenstockError(UPSTREAM_TAKEN, f"It is {found}.")


async def _lock_dek(
    session: WriteSession, actor: Actor, keys: DataKeys, organization_id: str | None
) -> Dek:
    """Lock the configuration and return the owner's data key; one that never opens is replaced.

    The KEK is asked before the lock, unless the key is replaced in that very moment.
    """
    scope = session.scope
    stored = await store.find_active_dek(session, scope, organization_id)
    opened = None if stored is None else await _open(keys, stored)
    made, dek = (None, opened) if opened is not None else await keys.create(organization_id)
    await session.lock_configuration()
    active = await store.find_active_dek(session, scope, organization_id)
    if active is not None and (stored is None or active.id != stored.id):
        return await keys.open(active)
    if made is not None:
        await store.insert_dek(session, scope, made, actor.at_us)
    return dek


async def _open(keys: DataKeys, stored: StoredDek) -> Dek | None:
    try:
        return await keys.open(stored)
    except CredentialUnreadableError:
        return None
