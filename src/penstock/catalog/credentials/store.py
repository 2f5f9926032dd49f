"""Every SQL statement about credentials and data keys, each within a scope.

The platform's own rows belong to no organization; an organization's scope never reaches them.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, delete, exists, func, or_, select, update

from penstock.catalog.credentials.model import (
    Credential,
    CredentialIdentity,
    KeptCredential,
    SealedCredential,
    StoredDek,
)
from penstock.catalog.tables import Credentials, Deks, KeyRotations, Upstreams
from penstock.kit.envelope import Sealed
from penstock.kit.kek.model import KekVersion, WrappedKey
from penstock.kit.rotation import Progress
from penstock.storage.objects import ObjectStore
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession, WriteSession

credentials = ObjectStore(Credentials, Credential, "organization_id")

_DEK = (
    Deks.id,
    Deks.organization_id,
    Deks.kek_uri,
    Deks.kek_version,
    Deks.wrapped,
)
_SEALED = (
    Credentials.id,
    Credentials.organization_id,
    Credentials.provider,
    Credentials.dek_id,
    Credentials.aad_version,
    Credentials.nonce,
    Credentials.ciphertext,
)
_PROGRESS = (
    KeyRotations.cursor,
    KeyRotations.passes,
    KeyRotations.renewed,
    KeyRotations.unreadable,
    KeyRotations.is_finished,
)


async def insert_credential(
    session: WriteSession,
    scope: Scope,
    credential: Credential,
    sealed: SealedCredential,
) -> None:
    """Store a new credential.

    Raises:
        RowConflictError: One of its owner has this name.
    """
    scope.require([credential.organization_id or ""])
    row = {
        "id": credential.id,
        "organization_id": credential.organization_id,
        "name": credential.name,
        "provider": credential.provider,
        "upstream_id": credential.upstream_id,
        "state": credential.state,
        "created_by": credential.created_by,
        "version": credential.version,
        "created_at": credential.created_at_us,
        "updated_at": credential.updated_at_us,
        **_sealed_columns(sealed),
    }
    await session.insert(Credentials, row)


async def delete_credential(session: WriteSession, scope: Scope, credential_id: str) -> None:
    """Remove a credential; what it was encrypted with stays.

    Raises:
        RowConflictError: Something names it.
    """
    await session.change(
        delete(Credentials).where(Credentials.id == credential_id, _owned(scope, Credentials))
    )


async def update_sealed(session: WriteSession, scope: Scope, sealed: SealedCredential) -> None:
    """Store another ciphertext of a credential."""
    await session.change(
        update(Credentials)
        .where(Credentials.id == sealed.id, _owned(scope, Credentials))
        .values(**_sealed_columns(sealed))
    )


async def replace_sealed(
    session: WriteSession, scope: Scope, old: SealedCredential, new: SealedCredential
) -> bool:
    """Store another ciphertext of a credential; False when it is not any more what it was."""
    count = await session.change(
        update(Credentials)
        .where(
            Credentials.id == old.id,
            Credentials.dek_id == old.dek_id,
            Credentials.nonce == old.sealed.nonce,
            Credentials.ciphertext == old.sealed.ciphertext,
            _owned(scope, Credentials),
        )
        .values(**_sealed_columns(new))
    )
    return count == 1


async def find_own_credential(
    session: ReadSession, scope: Scope, organization_id: str, upstream_id: str
) -> str | None:
    """Return the id of an organization's own credential for an upstream."""
    row = await session.first(
        select(Credentials.id).where(
            Credentials.organization_id == organization_id,
            Credentials.upstream_id == upstream_id,
            _owned(scope, Credentials),
        )
    )
    return None if row is None else row[0]


async def find_upstream(
    session: ReadSession,
    scope: Scope,  # noqa: ARG001 - upstreams are the platform's, and everybody may name them
    upstream_id: str,
) -> tuple[str, str] | None:
    """Return name and provider of an upstream."""
    statement = select(Upstreams.name, Upstreams.provider).where(Upstreams.id == upstream_id)
    row = await session.first(statement)
    return None if row is None else (row[0], row[1])


# What is sealed


async def find_kept(
    session: ReadSession, scope: Scope, credential_id: str
) -> KeptCredential | None:
    """Return a credential as it is stored, with its data key."""
    found = await _list_kept(session, scope, [Credentials.id == credential_id], 1)
    return found[0] if found else None


async def list_outdated(
    session: ReadSession,
    scope: Scope,
    organization_id: str | None,
    dek_id: str,
    *,
    after: str | None,
    limit: int,
) -> list[KeptCredential]:
    """Return an owner's credentials that are not under a data key, by id, behind one."""
    conditions = [
        _of_owner(Credentials, organization_id),
        Credentials.dek_id != dek_id,
        Credentials.id > (after or ""),
    ]
    return await _list_kept(session, scope, conditions, limit)


async def count_outdated(
    session: ReadSession, scope: Scope, organization_id: str | None, dek_id: str
) -> int:
    """Count an owner's credentials that are not under a data key."""
    statement = select(func.count()).where(
        _of_owner(Credentials, organization_id),
        Credentials.dek_id != dek_id,
        _owned(scope, Credentials),
    )
    return int((await session.rows(statement))[0][0])


async def list_for_feed(
    session: ReadSession, scope: Scope, *conditions: ColumnElement[bool], limit: int | None = None
) -> list[tuple[KeptCredential, str, str | None]]:
    """Return credentials with state and, for an organization's own, the name of its upstream."""
    statement = (
        select(*_SEALED, *_DEK, Credentials.state, Upstreams.name)
        .join(Deks, Deks.id == Credentials.dek_id)
        .outerjoin(Upstreams, Upstreams.id == Credentials.upstream_id)
        .where(_owned(scope, Credentials), *conditions)
        .order_by(Credentials.id)
        .limit(limit)
    )
    found = []
    for *row, state, upstream in await session.rows(statement):
        found.append((_build_kept(row), state, upstream))
    return found


async def list_credential_ids(session: ReadSession, scope: Scope, dek_id: str) -> list[str]:
    """Return ids of the credentials that a data key opens."""
    statement = select(Credentials.id).where(
        Credentials.dek_id == dek_id, _owned(scope, Credentials)
    )
    return [row[0] for row in await session.rows(statement)]


# Data keys


async def find_active_dek(
    session: ReadSession, scope: Scope, organization_id: str | None
) -> StoredDek | None:
    """Return the data key that an owner's new secrets are encrypted with."""
    statement = select(*_DEK).where(
        _of_owner(Deks, organization_id), Deks.is_active, _owned(scope, Deks)
    )
    row = await session.first(statement)
    return None if row is None else _build_dek(row)


async def has_deks(session: ReadSession, scope: Scope) -> bool:
    """Return whether there is any data key."""
    return await session.first(select(Deks.id).where(_owned(scope, Deks)).limit(1)) is not None


async def insert_dek(session: WriteSession, scope: Scope, dek: StoredDek, now_us: int) -> None:
    """Store a data key as the one that its owner's new secrets are encrypted with.

    The one before it stays, for what it encrypted.
    """
    scope.require([dek.organization_id or ""])
    await session.change(
        update(Deks)
        .where(_of_owner(Deks, dek.organization_id), Deks.is_active)
        .values(is_active=False)
    )
    row = {"id": dek.id, "organization_id": dek.organization_id, "is_active": True}
    await session.insert(Deks, row | _wrapped_columns(dek) | {"created_at": now_us})


async def replace_wrapped(
    session: WriteSession, scope: Scope, old: StoredDek, new: StoredDek
) -> bool:
    """Store another wrapping of a data key; False when it is not any more what it was."""
    count = await session.change(
        update(Deks)
        .where(Deks.id == old.id, Deks.wrapped == old.wrapped.ciphertext, _owned(scope, Deks))
        .values(**_wrapped_columns(new))
    )
    return count == 1


async def delete_idle_deks(session: WriteSession, scope: Scope, organization_id: str | None) -> int:
    """Remove an owner's data keys that encrypt nothing and will not; return how many."""
    is_used = exists().where(Credentials.dek_id == Deks.id)
    return await session.change(
        delete(Deks).where(
            _of_owner(Deks, organization_id), ~Deks.is_active, ~is_used, _owned(scope, Deks)
        )
    )


async def list_deks(
    session: ReadSession, scope: Scope, *, after: str | None, limit: int
) -> list[StoredDek]:
    """Return data keys by id, behind one."""
    statement = (
        select(*_DEK)
        .where(Deks.id > (after or ""), _owned(scope, Deks))
        .order_by(Deks.id)
        .limit(limit)
    )
    return [_build_dek(row) for row in await session.rows(statement)]


async def count_outdated_deks(session: ReadSession, scope: Scope, current: KekVersion) -> int:
    """Count data keys that are not wrapped with this version of a KEK, or a later one."""
    statement = select(func.count()).where(
        or_(Deks.kek_uri != current.uri, Deks.kek_version < current.number), _owned(scope, Deks)
    )
    return int((await session.rows(statement))[0][0])


# Rotations


async def find_progress(session: ReadSession, scope: Scope, rotation: str) -> Progress | None:
    """Return how far a rotation came: `kek`, or `dek:` and the owner's id, if it has one."""
    scope.require([rotation.removeprefix("dek:")])
    statement = select(*_PROGRESS).where(KeyRotations.id == rotation)
    row = await session.first(statement)
    if row is None:
        return None
    cursor, passes, renewed, unreadable, is_finished = row
    return Progress(
        cursor=cursor,
        passes=passes,
        renewed=renewed,
        unreadable=unreadable,
        is_finished=is_finished,
    )


async def record_progress(
    session: WriteSession, scope: Scope, rotation: str, progress: Progress, now_us: int
) -> None:
    """Store how far a rotation came."""
    scope.require([rotation.removeprefix("dek:")])
    row = {**dataclasses.asdict(progress), "updated_at": now_us}
    count = await session.change(
        update(KeyRotations).where(KeyRotations.id == rotation).values(**row)
    )
    if count == 0:
        await session.insert(KeyRotations, {"id": rotation} | row)


async def _list_kept(
    session: ReadSession, scope: Scope, conditions: Sequence[ColumnElement[bool]], limit: int
) -> list[KeptCredential]:
    statement = (
        select(*_SEALED, *_DEK)
        .join(Deks, Deks.id == Credentials.dek_id)
        .where(_owned(scope, Credentials), *conditions)
        .order_by(Credentials.id)
        .limit(limit)
    )
    return [_build_kept(row) for row in await session.rows(statement)]


def _owned(scope: Scope, table: Any) -> ColumnElement[bool]:
    return scope.where(table.organization_id)


def _of_owner(table: Any, organization_id: str | None) -> ColumnElement[bool]:
    # `= NULL` would find nothing, and `IS NOT DISTINCT FROM` no index.
    column: ColumnElement[str | None] = table.organization_id
    return column.is_(None) if organization_id is None else column == organization_id


def _sealed_columns(sealed: SealedCredential) -> dict[str, Any]:
    return {
        "dek_id": sealed.dek_id,
        "aad_version": sealed.aad_version,
        "nonce": sealed.sealed.nonce,
        "ciphertext": sealed.sealed.ciphertext,
    }


def _wrapped_columns(dek: StoredDek) -> dict[str, Any]:
    kek = dek.wrapped.kek
    return {"kek_uri": kek.uri, "kek_version": kek.number, "wrapped": dek.wrapped.ciphertext}


def _build_kept(row: Any) -> KeptCredential:
    credential_id, organization_id, provider, dek_id, aad_version, nonce, ciphertext, *dek = row
    sealed = SealedCredential(
        identity=CredentialIdentity(
            organization_id=organization_id, credential_id=credential_id, provider=provider
        ),
        dek_id=dek_id,
        aad_version=aad_version,
        sealed=Sealed(_bytes(nonce), _bytes(ciphertext)),
    )
    return KeptCredential(sealed, _build_dek(dek))


def _build_dek(row: Any) -> StoredDek:
    dek_id, organization_id, kek_uri, kek_version, wrapped = row
    return StoredDek(
        id=dek_id,
        organization_id=organization_id,
        wrapped=WrappedKey(KekVersion(kek_uri, kek_version), _bytes(wrapped)),
    )


def _bytes(value: object) -> bytes:
    # What somebody wrote by hand into an SQLite file may be anything; nothing opens then.
    return value if isinstance(value, bytes) else b""
