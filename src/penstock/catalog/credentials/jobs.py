"""Rotations: data keys wrapped anew, and credentials encrypted anew.

Both go over stored rows in batches (`kit.rotation`), each batch with the progress behind it in one
transaction, so they may die anywhere and go on; several may run at once. A row that changed
meanwhile is left as it is now. Nodes are told of each credential that is stored in another way.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from penstock.audit.model import Actor, Entry
from penstock.audit.service import record
from penstock.catalog.credentials import service, store
from penstock.catalog.credentials.data_keys import DataKeys
from penstock.catalog.credentials.errors import CredentialUnreadableError
from penstock.catalog.credentials.model import CredentialState, KeptCredential, StoredDek
from penstock.catalog.credentials.rules import reseal_credential
from penstock.kit.kek.model import KekVersion
from penstock.kit.rotation import BATCH_SIZE, Batch, Progress, Report, rotate
from penstock.storage.changes import record_change
from penstock.storage.database import Database
from penstock.storage.scope import Scope
from penstock.storage.sessions import WriteSession

_KEK = "kek"
_ALL = Scope.all_organizations()
_DOES_NOT_OPEN = "It does not open; its secret has to be set again."
_OPENS = "It opens again."


async def rewrap_data_keys(
    database: Database, keys: DataKeys, actor: Actor, *, batch_size: int = BATCH_SIZE
) -> Report:
    """Wrap every data key with the current version of the KEK; no credential is touched.

    Raises:
        KeysUnavailableError: A KEK is away; what is done stays, and the next run goes on.
        DatabaseUnavailableError: As well.
    """
    archive = _Deks(database, keys, actor, await keys.current())
    report = await rotate(
        archive,
        keys.rewrap_blocking,
        unreadable=(CredentialUnreadableError,),
        batch_size=batch_size,
    )
    async with database.write(_ALL) as session:
        await _record(session, actor, "data_key.rewrap", None, report)
    return report


async def count_outdated(database: Database, current: KekVersion) -> int:
    """Count the data keys that this version of the KEK, or a later one, did not wrap."""
    async with database.read(_ALL) as session:
        return await store.count_outdated_deks(session, session.scope, current)


async def rotate_data_key(
    database: Database,
    keys: DataKeys,
    actor: Actor,
    organization_id: str | None,
    *,
    batch_size: int = BATCH_SIZE,
) -> Report:
    """Give an owner a new data key and encrypt all its credentials anew; the old ones then go.

    One that was interrupted goes on with the key that it began with.

    Raises:
        KeysUnavailableError: A KEK is away; what is done stays, and the next run goes on.
        DatabaseUnavailableError: As well.
    """
    scope = _ALL if organization_id is None else Scope.of(organization_id)
    target = await _begin(database, scope, keys, actor, organization_id)
    if target is None:
        return Report(renewed=0, unreadable=0, outdated=0)
    dek = await keys.open(target)

    def renew(kept: KeptCredential) -> KeptCredential | None:
        old = keys.open_blocking(kept.dek)
        fresh = reseal_credential(kept.credential, old, dek)
        return None if fresh is None else KeptCredential(fresh, target)

    archive = _Credentials(database, keys, actor, _Rotation(scope, organization_id, target.id))
    report = await rotate(
        archive, renew, unreadable=(CredentialUnreadableError,), batch_size=batch_size
    )
    async with database.write(scope) as session:
        await session.lock_configuration()
        await store.delete_idle_deks(session, scope, organization_id)
        await _record(session, actor, "data_key.rotate", organization_id, report)
    return report


async def _begin(
    database: Database,
    scope: Scope,
    keys: DataKeys,
    actor: Actor,
    organization_id: str | None,
) -> StoredDek | None:
    """Return the data key that an owner's credentials shall be under: a new one, or the last."""
    rotation = _rotation_id(organization_id)
    made, _ = await keys.create(organization_id)
    async with database.write(scope) as session:
        await session.lock_configuration()
        active = await store.find_active_dek(session, scope, organization_id)
        progress = await store.find_progress(session, scope, rotation)
        if active is None or (progress is not None and not progress.is_finished):
            return active
        await store.insert_dek(session, scope, made, actor.at_us)
        await store.record_progress(session, scope, rotation, Progress(), actor.at_us)
    return made


class _Deks:
    """The data keys of all owners, as an `Archive`."""

    def __init__(
        self, database: Database, keys: DataKeys, actor: Actor, current: KekVersion
    ) -> None:
        self._database = database
        self._keys = keys
        self._actor = actor
        self._current = current

    async def load(self) -> Progress | None:
        async with self._database.read(_ALL) as session:
            return await store.find_progress(session, _ALL, _KEK)

    async def list_after(self, cursor: str | None, limit: int) -> Sequence[StoredDek]:
        async with self._database.read(_ALL) as session:
            return await store.list_deks(session, _ALL, after=cursor, limit=limit)

    async def store(self, batch: Batch[StoredDek]) -> None:
        # Asked before the transaction: whose KEK is not configured here is not at fault.
        faulty = [dek for dek in batch.unreadable if await self._keys.is_served(dek)]
        async with self._database.write(_ALL) as session:
            await session.lock_configuration()
            for old, new in batch.renewed:
                if await store.replace_wrapped(session, _ALL, old, new):
                    for credential_id in await store.list_credential_ids(session, _ALL, old.id):
                        await record_change(session, "credential", credential_id, self._actor.at_us)
            for dek in faulty:
                await _mark_unreadable(
                    session,
                    self._actor,
                    await store.list_credential_ids(session, _ALL, dek.id),
                )
            await store.record_progress(session, _ALL, _KEK, batch.progress, self._actor.at_us)

    async def count_outdated(self) -> int:
        return await count_outdated(self._database, self._current)


@dataclass(frozen=True, slots=True)
class _Rotation:
    """Whose credentials shall be under which data key."""

    scope: Scope
    organization_id: str | None
    dek_id: str


class _Credentials:
    """The credentials of one owner, as an `Archive`."""

    def __init__(
        self, database: Database, keys: DataKeys, actor: Actor, rotation: _Rotation
    ) -> None:
        self._database = database
        self._keys = keys
        self._actor = actor
        self._rotation = rotation
        self._id = _rotation_id(rotation.organization_id)

    async def load(self) -> Progress | None:
        async with self._database.read(self._rotation.scope) as session:
            return await store.find_progress(session, session.scope, self._id)

    async def list_after(self, cursor: str | None, limit: int) -> Sequence[KeptCredential]:
        rotation = self._rotation
        async with self._database.read(rotation.scope) as session:
            return await store.list_outdated(
                session,
                rotation.scope,
                rotation.organization_id,
                rotation.dek_id,
                after=cursor,
                limit=limit,
            )

    async def store(self, batch: Batch[KeptCredential]) -> None:
        scope, actor = self._rotation.scope, self._actor
        faulty = [kept for kept in batch.unreadable if await self._keys.is_served(kept.dek)]
        async with self._database.write(scope) as session:
            await session.lock_configuration()
            for old, new in batch.renewed:
                if await store.replace_sealed(session, scope, old.credential, new.credential):
                    await record_change(session, "credential", old.id, actor.at_us)
                    await service.mark(session, actor, old.id, CredentialState.ACTIVE, _OPENS)
            # One whose secret was set meanwhile is not what was found to be unreadable.
            unchanged = [
                kept.id for kept in faulty if await store.find_kept(session, scope, kept.id) == kept
            ]
            await _mark_unreadable(session, actor, unchanged)
            await store.record_progress(session, scope, self._id, batch.progress, actor.at_us)

    async def count_outdated(self) -> int:
        rotation = self._rotation
        async with self._database.read(rotation.scope) as session:
            return await store.count_outdated(
                session, rotation.scope, rotation.organization_id, rotation.dek_id
            )


def _rotation_id(organization_id: str | None) -> str:
    return f"dek:{organization_id or ''}"


async def _mark_unreadable(
    session: WriteSession, actor: Actor, credential_ids: Sequence[str]
) -> None:
    state = CredentialState.NEEDS_RECONFIGURATION
    for credential_id in credential_ids:
        await service.mark(session, actor, credential_id, state, _DOES_NOT_OPEN)


async def _record(
    session: WriteSession,
    actor: Actor,
    action: str,
    organization_id: str | None,
    report: Report,
) -> None:
    await record(
        session,
        Entry(
            actor=actor,
            action=action,
            resource_kind="data_key",
            resource_id=organization_id or "platform",
            organization_id=organization_id,
            after={
                "renewed": report.renewed,
                "unreadable": report.unreadable,
                "outdated": report.outdated,
            },
        ),
    )
