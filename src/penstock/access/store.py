"""Every SQL statement about API keys, each within a scope."""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Select,
    TextClause,
    and_,
    bindparam,
    case,
    func,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.orm import InstrumentedAttribute

from penstock.access.key_rules import MAX_ROTATION_INTERVAL_S, MIN_ROTATION_INTERVAL_S
from penstock.access.model import ApiKey, KeyOwner, KeyRecord, KeySecret, SecretState
from penstock.access.tables import ApiKeys, KeySecrets
from penstock.storage.base import seconds_after
from penstock.storage.objects import ObjectStore
from penstock.storage.scope import Scope, within_scope
from penstock.storage.sessions import Parameters, ReadSession, WriteSession, insertion
from penstock.tenancy.labels import join_labels, known_labels
from penstock.tenancy.tables import Members, Organizations, Projects, ServiceAccounts

keys = ObjectStore(ApiKeys, ApiKey, "organization_id")

_KEY_NAMES = [field.name for field in dataclasses.fields(ApiKey)]
_KEY = [getattr(ApiKeys, name.removesuffix("_us")) for name in _KEY_NAMES]
_SECRET_NAMES = [field.name for field in dataclasses.fields(KeySecret)]
_SECRET = [getattr(KeySecrets, name.removesuffix("_us")) for name in _SECRET_NAMES]
_IS_USED_LATE = text(
    # Numbers in SQLite, moments and intervals in PostgreSQL: the same words for both.
    "4 * (key_secrets.not_after - key_secrets.last_used_at)"
    " <= key_secrets.not_after - key_secrets.retiring_at"
)
_IS_THEIR_MEMBER = and_(
    Members.id == ApiKeys.member_id, Members.organization_id == ApiKeys.organization_id
)
_LIVE = (SecretState.ACTIVE.value, SecretState.RETIRING.value)


def _select_records(
    are_wanted: ColumnElement[bool], are_theirs: ColumnElement[bool]
) -> tuple[Select[Any], Select[Any]]:
    """Return the queries for keys with what decides about them, and for their secrets."""
    # Outer joins: a key without its project must be seen, to be refused.
    keys_wanted: Select[Any] = (
        select(
            *_KEY,
            Organizations.status,
            Projects.status,
            ServiceAccounts.role,
            ServiceAccounts.project_id,
            ServiceAccounts.is_disabled,
            ServiceAccounts.labels,
            Members.role,
            Members.project_id,
            Members.labels,
        )
        .outerjoin(Organizations, Organizations.id == ApiKeys.organization_id)
        .outerjoin(Projects, Projects.id == ApiKeys.project_id)
        .outerjoin(ServiceAccounts, ServiceAccounts.id == ApiKeys.service_account_id)
        .outerjoin(Members, _IS_THEIR_MEMBER)
        .where(within_scope(ApiKeys.organization_id), are_wanted)
        .order_by(ApiKeys.id)
    )
    their_secrets: Select[Any] = (
        select(*_SECRET)
        .where(within_scope(KeySecrets.organization_id), are_theirs)
        .order_by(KeySecrets.created_at)
    )
    return keys_wanted, their_secrets


_IDS: BindParameter[Any] = bindparam("key_ids", expanding=True)
_ENDS: tuple[BindParameter[Any], ...] = (bindparam("first_id"), bindparam("last_id"))
_FIND_RECORDS = _select_records(ApiKeys.id.in_(_IDS), KeySecrets.key_id.in_(_IDS))
_LIST_RECORDS = _select_records(
    and_(ApiKeys.id.between(_ENDS[0], _ENDS[1]), ApiKeys.revoked_at.is_(None)),
    KeySecrets.key_id.between(_ENDS[0], _ENDS[1]),
)


async def find_records(
    session: ReadSession, scope: Scope, key_ids: Sequence[str]
) -> dict[str, KeyRecord]:
    """Return what decides about keys, by key id; unknown ids are left out."""
    parameters = {"key_ids": list(key_ids), **scope.parameters}
    return await _records(session, _FIND_RECORDS, parameters)


async def list_records(
    session: ReadSession, scope: Scope, after_id: str, limit: int
) -> list[KeyRecord]:
    """Return what decides about keys that are not revoked, in order of id."""
    # The page by itself, and what belongs to it as ranges: PostgreSQL takes a row-level policy for
    # a filter that leaves next to nothing, and would join all that follows to find a page of it.
    page = (
        select(ApiKeys.id)
        .where(
            scope.where(ApiKeys.organization_id),
            ApiKeys.id > after_id,
            ApiKeys.revoked_at.is_(None),
        )
        .order_by(ApiKeys.id)
        .limit(limit)
    )
    ids = [key_id for (key_id,) in await session.rows(page)]
    if not ids:
        return []
    parameters = {"first_id": ids[0], "last_id": ids[-1], **scope.parameters}
    return list((await _records(session, _LIST_RECORDS, parameters)).values())


async def list_key_ids(
    session: ReadSession,
    scope: Scope,
    *,
    organization_id: str | None = None,
    project_id: str | None = None,
    service_account_id: str | None = None,
    member_id: str | None = None,
) -> list[str]:
    """Return ids of the keys that are not revoked, of an organization, project or owner, sorted."""
    pairs = (
        (ApiKeys.organization_id, organization_id),
        (ApiKeys.project_id, project_id),
        (ApiKeys.service_account_id, service_account_id),
        (ApiKeys.member_id, member_id),
    )
    conditions = [column == value for column, value in pairs if value is not None]
    statement = (
        select(ApiKeys.id)
        .where(scope.where(ApiKeys.organization_id), ApiKeys.revoked_at.is_(None), *conditions)
        .order_by(ApiKeys.id)
    )
    return [key_id for (key_id,) in await session.rows(statement)]


async def find_labels(
    session: ReadSession, scope: Scope, key_ids: Collection[str]
) -> dict[str, list[str]]:
    """Return what keys carry, their own and of whom they belong to, by key; see `join_labels`."""
    statement = (
        select(ApiKeys.id, ApiKeys.labels, ServiceAccounts.labels, Members.labels)
        .outerjoin(ServiceAccounts, ServiceAccounts.id == ApiKeys.service_account_id)
        .outerjoin(Members, _IS_THEIR_MEMBER)
        .where(scope.where(ApiKeys.organization_id), ApiKeys.id.in_(key_ids))
    )
    rows = await session.rows(statement)
    return {key_id: join_labels(*map(known_labels, carried)) for key_id, *carried in rows}


async def list_secrets(session: ReadSession, scope: Scope, key_id: str) -> list[KeySecret]:
    """Return all secrets of a key, oldest first."""
    statement = (
        select(*_SECRET)
        .where(scope.where(KeySecrets.organization_id), KeySecrets.key_id == key_id)
        .order_by(KeySecrets.created_at, KeySecrets.id)
    )
    return [_build_secret(row) for row in await session.rows(statement)]


def put_key(session: WriteSession, scope: Scope, key: ApiKey, secret: KeySecret) -> None:
    """Store a new key and its secret, with the audit entry that tells of it.

    That one raises `RowConflictError` when the project has a key of that name, or the hash is there
    already.
    """
    scope.require([secret.organization_id])
    session.change_later(keys.insertion(scope, key))
    session.change_later(insertion(KeySecrets, _secret_row(secret)))


async def insert_secret(session: WriteSession, scope: Scope, secret: KeySecret) -> None:
    """Store a new secret.

    Raises:
        RowConflictError: The key has an active one, or the hash is there already.
    """
    scope.require([secret.organization_id])
    await session.insert(KeySecrets, _secret_row(secret))


async def change_secret(
    session: WriteSession, scope: Scope, secret: KeySecret, **values: Any
) -> KeySecret:
    """Change members of a secret and return it as it is now."""
    await update_secret(session, scope, secret.id, **values)
    return dataclasses.replace(secret, **values)


async def update_secret(session: WriteSession, scope: Scope, secret_id: str, **values: Any) -> None:
    """Change members of a secret."""
    columns = {name.removesuffix("_us"): value for name, value in values.items()}
    await session.change(
        update(KeySecrets)
        .where(KeySecrets.id == secret_id, scope.where(KeySecrets.organization_id))
        .values(**columns)
    )


async def record_uses(
    session: WriteSession, scope: Scope, uses: Sequence[tuple[str, str | None, int]]
) -> None:
    """Store when keys and secrets were used last; earlier times than those stored change nothing.

    Args:
        session: Where to.
        scope: Whose.
        uses: Key id, secret id if known, and time in microseconds. Writers of several keys
            come in order of id, so that none waits for one that waits for it.
    """
    for table, pairs in (
        (ApiKeys, [(key_id, at) for key_id, _, at in uses]),
        (KeySecrets, [(secret_id, at) for _, secret_id, at in uses if secret_id is not None]),
    ):
        latest: dict[str, int] = {}
        for object_id, at in pairs:
            latest[object_id] = max(at, latest.get(object_id, at))
        statement = (
            update(table)
            .where(
                table.id == bindparam("used_id"),
                scope.where(table.organization_id),
                or_(table.last_used_at.is_(None), table.last_used_at < bindparam("used_at")),
            )
            .values(last_used_at=bindparam("used_at"))
        )
        parameters = [{"used_id": name, "used_at": at} for name, at in sorted(latest.items())]
        await session.change_many(
            statement.execution_options(synchronize_session=False), parameters
        )


async def update_mac(
    session: WriteSession, scope: Scope, secret: KeySecret, mac: bytes, pepper_id: int
) -> bool:
    """Store a secret's hash under another pepper; False when it was changed meanwhile."""
    count = await session.change(
        update(KeySecrets)
        .where(
            KeySecrets.id == secret.id,
            KeySecrets.mac == secret.mac,
            scope.where(KeySecrets.organization_id),
        )
        .values(mac=mac, pepper_id=pepper_id)
    )
    return count == 1


async def list_by_macs(
    session: ReadSession, scope: Scope, macs: Sequence[bytes]
) -> list[tuple[ApiKey, KeySecret]]:
    """Return secrets with these hashes and their keys, in order of the secrets' ids."""
    return await _list_pairs(
        session, scope, KeySecrets.mac.in_(macs), order=KeySecrets.id, limit=len(macs)
    )


async def list_known_macs(session: ReadSession, scope: Scope, macs: Sequence[bytes]) -> set[bytes]:
    """Return which of these hashes are stored, whatever their secrets' state is."""
    statement = select(KeySecrets.mac).where(
        scope.where(KeySecrets.organization_id), KeySecrets.mac.in_(macs)
    )
    return {mac for (mac,) in await session.rows(statement)}


async def count_by_pepper(session: ReadSession, scope: Scope, now_us: int) -> dict[int, int]:
    """Return how many secrets that can still open a key are hashed under each pepper."""
    statement = (
        select(KeySecrets.pepper_id, func.count())
        .join(ApiKeys, ApiKeys.id == KeySecrets.key_id)
        .where(*_can_open(scope, now_us))
        .group_by(KeySecrets.pepper_id)
    )
    return {row[0]: row[1] for row in await session.rows(statement)}


async def list_key_ids_of_pepper(
    session: ReadSession, scope: Scope, pepper_id: int, now_us: int, limit: int
) -> list[str]:
    """Return keys with a secret that can still open them and is hashed under a pepper."""
    statement = (
        select(ApiKeys.id)
        .join(KeySecrets, KeySecrets.key_id == ApiKeys.id)
        .where(*_can_open(scope, now_us), KeySecrets.pepper_id == pepper_id)
        .distinct()
        .order_by(ApiKeys.id)
        .limit(limit)
    )
    return [key_id for (key_id,) in await session.rows(statement)]


def _can_open(scope: Scope, now_us: int) -> tuple[ColumnElement[bool], ...]:
    return (
        scope.where(ApiKeys.organization_id),
        KeySecrets.state.in_(_LIVE),
        or_(KeySecrets.not_after.is_(None), KeySecrets.not_after > now_us),
        ApiKeys.revoked_at.is_(None),
        or_(ApiKeys.expires_at.is_(None), ApiKeys.expires_at > now_us),
    )


async def list_overdue(
    session: ReadSession, scope: Scope, now_us: int, limit: int, *conditions: ColumnElement[bool]
) -> list[tuple[ApiKey, KeySecret]]:
    """Return usable keys whose active secret is as old as their policy lets it become.

    Args:
        session: Where from.
        scope: Whose.
        now_us: The time.
        limit: Most of them; those that are due the longest come first.
        *conditions: What else must hold.
    """
    # An interval that nobody could have set must not take all others with it by an overflow.
    is_sane = ApiKeys.rotation_interval_s.between(MIN_ROTATION_INTERVAL_S, MAX_ROTATION_INTERVAL_S)
    interval = case((is_sane, ApiKeys.rotation_interval_s), else_=None)
    due_at = seconds_after(KeySecrets.created_at, interval)
    return await _list_pairs(
        session,
        scope,
        ApiKeys.rotation_interval_s.is_not(None),
        KeySecrets.state == SecretState.ACTIVE,
        due_at <= now_us,
        *_usable(now_us),
        *conditions,
        order=due_at,
        limit=limit,
    )


async def list_used_late(
    session: ReadSession, scope: Scope, now_us: int, limit: int, *conditions: ColumnElement[bool]
) -> list[tuple[ApiKey, KeySecret]]:
    """Return usable keys' retiring secrets that were used in the last quarter of their grace.

    Args:
        session: Where from.
        scope: Whose.
        now_us: The time.
        limit: Most of them; those that end first come first.
        *conditions: What else must hold.
    """
    return await _list_pairs(
        session,
        scope,
        KeySecrets.state == SecretState.RETIRING,
        KeySecrets.not_after > now_us,
        _IS_USED_LATE,
        *_usable(now_us),
        *conditions,
        order=KeySecrets.not_after,
        limit=limit,
    )


def _usable(now_us: int) -> tuple[ColumnElement[bool], ...]:
    return (
        ApiKeys.revoked_at.is_(None),
        ApiKeys.is_disabled.is_(False),
        or_(ApiKeys.expires_at.is_(None), ApiKeys.expires_at > now_us),
    )


async def _list_pairs(
    session: ReadSession,
    scope: Scope,
    *conditions: ColumnElement[bool] | TextClause,
    order: ColumnElement[Any] | InstrumentedAttribute[Any],
    limit: int,
) -> list[tuple[ApiKey, KeySecret]]:
    statement: Select[Any] = (
        select(*_KEY, *_SECRET)
        .join(KeySecrets, KeySecrets.key_id == ApiKeys.id)
        .where(scope.where(ApiKeys.organization_id), *conditions)
        .order_by(order, KeySecrets.id)
        .limit(limit)
    )
    return [
        (_build_key(row[: len(_KEY)]), _build_secret(row[len(_KEY) :]))
        for row in await session.rows(statement)
    ]


async def _records(
    session: ReadSession, statements: tuple[Select[Any], Select[Any]], parameters: Parameters
) -> dict[str, KeyRecord]:
    """Return records in order of id, given what finds keys and what finds their secrets."""
    keys_wanted, their_secrets = statements
    rows = await session.rows(keys_wanted, parameters)
    secrets: dict[str, list[KeySecret]] = {}
    for row in await session.rows(their_secrets, parameters) if rows else ():
        secret = _build_secret(row)
        secrets.setdefault(secret.key_id, []).append(secret)
    records = {}
    for row in rows:
        members, (organization, project, *owner) = row[: len(_KEY)], row[len(_KEY) :]
        key = _build_key(members)
        records[key.id] = KeyRecord(
            key=key,
            secrets=secrets.get(key.id, []),
            organization_status=organization,
            project_status=project,
            owner=_find_owner(owner),
        )
    return records


def _find_owner(columns: Sequence[Any]) -> KeyOwner | None:
    """Return whom a key belongs to, of what `_select_records` asks for behind the statuses."""
    (role, project, is_disabled, labels), member = columns[:4], columns[4:]
    if role is None:
        (role, project, labels), is_disabled = member, False
    if role is None:
        return None
    return KeyOwner(
        role=role, project_id=project, is_disabled=is_disabled is not False, labels=labels
    )


def _build_key(row: Any) -> ApiKey:
    return ApiKey(**dict(zip(_KEY_NAMES, row, strict=True)))


def _secret_row(secret: KeySecret) -> dict[str, Any]:
    return {name.removesuffix("_us"): getattr(secret, name) for name in _SECRET_NAMES}


def _build_secret(row: Any) -> KeySecret:
    return KeySecret(**dict(zip(_SECRET_NAMES, row, strict=True)))
