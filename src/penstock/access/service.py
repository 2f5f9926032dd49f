"""Use cases of API keys: create, look at, change, disable, revoke.

`rotation` has those of their secrets, `verification` those of whoever shows one. None commits. Each
change records an audit entry and a change for data planes in the transaction of its session.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Protocol

from penstock.access import store
from penstock.access.errors import GRANT_EXCEEDED, KEY_INVALID, KEY_REVOKED
from penstock.access.key_rules import (
    OPERATORS_SCOPES,
    check_expiry,
    check_labels,
    check_rotation,
    is_live,
    may_hold,
    normalize_aliases,
    normalize_cidrs,
    normalize_scopes,
)
from penstock.access.matrix import may_grant
from penstock.access.model import (
    ApiKey,
    CreatedKey,
    KeyChanges,
    KeyRecord,
    KeySecret,
    NewKey,
    Principal,
    SecretState,
)
from penstock.access.peppers import Peppers
from penstock.access.rules import create_key as make_key_text
from penstock.access.rules import create_key_id, find_key_id
from penstock.access.telling import tell_key
from penstock.audit.model import Actor
from penstock.kit.base62 import create_id
from penstock.kit.errors import PenstockError
from penstock.storage.changes import record_change
from penstock.storage.errors import OBJECT_UNKNOWN, RowConflictError
from penstock.storage.paging import Page, PageRequest
from penstock.storage.sessions import ReadSession, WriteSession
from penstock.tenancy import people
from penstock.tenancy import store as tenancy_store
from penstock.tenancy.errors import NAME_TAKEN, STATUS_CONFLICT
from penstock.tenancy.model import AccountChanges, Member, PersonChanges, Role, ServiceAccount
from penstock.tenancy.rules import normalize_name, require_active

_NORMALIZE: Mapping[str, Callable[[Any], Any]] = {
    "name": normalize_name,
    "scopes": normalize_scopes,
    "allowed_aliases": normalize_aliases,
    "allowed_cidrs": normalize_cidrs,
    "labels": check_labels,
}
_OWN = frozenset({"name", "labels"})
"""What an organization changes of all its keys; everything else may let a key be used more."""
_MAX_REASON_CHARS = 200
_TAKEN = "The secret is, or was, that of a key."


class Check(Protocol):
    """Raises unless something may be done in a place."""

    def __call__(self, *, organization_id: str, project_id: str) -> None:
        """See the class."""
        ...


async def create_key(
    session: WriteSession,
    actor: Actor,
    grantor: Principal,
    peppers: Peppers,
    *,
    project_id: str,
    new: NewKey,
    text: str | None = None,
    check: Check | None = None,
) -> CreatedKey:
    """Create a key in a project; its text is told here and kept nowhere.

    Args:
        session: Where to.
        actor: Who does it.
        grantor: The same one, with its rights: the key gets no more than that.
        peppers: What the key is hashed under.
        project_id: Where it belongs.
        new: What it is to be.
        text: The key itself, where somebody has chosen it: of our form, which says its id, or any
            other that a header can carry. A new one is made without.
        check: Says whether the grantor may put keys there at all, before anything is told of the
            place; what it raises is raised. None for a grantor who was asked before.

    Raises:
        PenstockError: `OBJECT_UNKNOWN` for project, service account or member,
            `STATUS_CONFLICT` when one of them or the organization is not active, `KEY_INVALID`,
            `NAME_INVALID`, `NAME_TAKEN`, `GRANT_EXCEEDED`.
    """
    organization_id = await _require_place(session, project_id, check)
    _check_grant(grantor, new.role)
    check_scopes(grantor, new.scopes)
    new = _inherit_owner(grantor, new)
    conflict = PenstockError(NAME_TAKEN)
    if text is None:
        text = make_key_text(is_live=new.is_live)
    else:
        new = dataclasses.replace(new, is_live=not text.startswith("ps_test_"))
        conflict = PenstockError(KEY_INVALID, _TAKEN)
    key_id = find_key_id(text) or create_key_id()
    key = _build_key(new, (organization_id, project_id), actor, key_id)
    await _check_owner(session, grantor, key)
    secret = build_secret(key, text, peppers, actor)
    store.put_key(session, session.scope, key, secret)
    try:
        await tell_key(session, actor, "key.create", None, key)
    except RowConflictError:
        raise conflict from None
    return CreatedKey(key, secret, text)


async def insert_secret(session: WriteSession, secret: KeySecret) -> None:
    """Store another secret of a key.

    Raises:
        PenstockError: `KEY_INVALID`: it is, or was, a secret already, of this key or another.
    """
    try:
        await store.insert_secret(session, session.scope, secret)
    except RowConflictError:
        raise PenstockError(KEY_INVALID, _TAKEN) from None


def check_scopes(grantor: Principal, scopes: Collection[str]) -> None:
    """Check that somebody may give scopes, or let a key that has them be used more than before.

    Raises:
        PenstockError: `GRANT_EXCEEDED`: one is for the platform's operator alone to give.
    """
    reserved = OPERATORS_SCOPES.intersection(scopes)
    if reserved and grantor.organization_id is not None:
        message = f"Only the platform's operator may give, or manage, the scope {min(reserved)}."
        raise PenstockError(GRANT_EXCEEDED, message)


def build_secret(key: ApiKey, text: str, peppers: Peppers, actor: Actor) -> KeySecret:
    """Return the stored form of a key's text, as its active secret."""
    return KeySecret(
        id=create_id("sec"),
        organization_id=key.organization_id,
        key_id=key.id,
        mac=peppers.mac(text),
        pepper_id=peppers.active_id,
        state=SecretState.ACTIVE,
        created_by=actor.id,
        created_at_us=actor.at_us,
        retiring_at_us=None,
        not_after_us=None,
        revoked_at_us=None,
        revoked_reason=None,
        last_used_at_us=None,
    )


async def get_key(session: ReadSession, key_id: str) -> ApiKey:
    """Return a key.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`.
    """
    return await store.keys.get(session, session.scope, key_id)


async def list_keys(
    session: ReadSession,
    page: PageRequest,
    *,
    organization_id: str | None = None,
    project_id: str | None = None,
    service_account_id: str | None = None,
    member_id: str | None = None,
    name: str | None = None,
) -> Page[ApiKey]:
    """Return keys that the session may see, revoked ones too, oldest first."""
    return await store.keys.list(
        session,
        session.scope,
        page,
        organization_id=organization_id,
        project_id=project_id,
        service_account_id=service_account_id,
        member_id=member_id,
        name=name,
    )


async def list_secrets(session: ReadSession, key_id: str) -> list[KeySecret]:
    """Return the secrets of a key, oldest first; their hashes are not for showing.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`.
    """
    await get_key(session, key_id)
    return await store.list_secrets(session, session.scope, key_id)


async def update_key(
    session: WriteSession,
    actor: Actor,
    grantor: Principal,
    key_id: str,
    changes: KeyChanges,
    *,
    expected_version: int | None = None,
) -> ApiKey:
    """Change the members that are given; secrets, usage and limits stay.

    Of a key with a scope that the operator gave, an organization changes only what it is known by.

    An earlier expiry also ends a grace period that would have gone on longer. With another policy
    of rotation, an end that the one before gave to a secret is off, unless it has come.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `VERSION_CONFLICT`, `KEY_REVOKED`, `KEY_INVALID`,
            `NAME_INVALID`, `NAME_TAKEN`, `GRANT_EXCEEDED`.
    """
    before = await _lock_usable(session, key_id, expected_version)
    values = {name: _NORMALIZE.get(name, _keep)(value) for name, value in changes.items()}
    wanted = dataclasses.replace(before, **values)
    # Whoever changes a key must have its rights, before and after.
    _check_grant(grantor, before.role)
    _check_grant(grantor, wanted.role)
    if any(getattr(before, name) != value for name, value in values.items() if name not in _OWN):
        check_scopes(grantor, {*before.scopes, *wanted.scopes})
    if wanted.expires_at_us != before.expires_at_us:
        check_expiry(wanted.expires_at_us, actor.at_us)
    check_rotation(wanted.rotation_interval_s, wanted.rotation_grace_s)
    if (wanted.rotation_interval_s, wanted.rotation_grace_s) != (
        before.rotation_interval_s,
        before.rotation_grace_s,
    ):
        await _lift_scheduled_end(session, key_id, actor.at_us)
    return await _change(session, actor, "key.update", before, values)


async def disable_key(
    session: WriteSession, actor: Actor, key_id: str, *, expected_version: int | None = None
) -> ApiKey:
    """Have a key refused until it is enabled; again, it changes nothing.

    One that the operator disables is enabled by the operator alone, whoever disabled it before.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `VERSION_CONFLICT`, `KEY_REVOKED`.
    """
    before = await _lock_usable(session, key_id, expected_version)
    is_by_operator = before.is_disabled_by_operator or actor.is_operator
    values = {"is_disabled": True, "is_disabled_by_operator": is_by_operator}
    return await _change(session, actor, "key.disable", before, values)


async def enable_key(
    session: WriteSession,
    actor: Actor,
    grantor: Principal,
    key_id: str,
    *,
    expected_version: int | None = None,
) -> ApiKey:
    """Let a disabled key work again; again, it changes nothing.

    Raises:
        PenstockError: As `disable_key`, and `GRANT_EXCEEDED`.
    """
    before = await _lock_usable(session, key_id, expected_version)
    _check_grant(grantor, before.role)
    check_scopes(grantor, before.scopes)
    _check_enabling(before, grantor.organization_id)
    values = {"is_disabled": False, "is_disabled_by_operator": False}
    return await _change(session, actor, "key.enable", before, values)


async def revoke_key(
    session: WriteSession,
    actor: Actor,
    key_id: str,
    *,
    reason: str = "",
    expected_version: int | None = None,
) -> ApiKey:
    """End a key and all its secrets for ever, at once; again, it changes nothing.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `VERSION_CONFLICT`.
    """
    before = await store.keys.lock(session, session.scope, key_id, expected_version)
    if before.revoked_at_us is not None:
        return before
    for secret in await store.list_secrets(session, session.scope, key_id):
        if secret.state != SecretState.REVOKED:
            await store.update_secret(
                session,
                session.scope,
                secret.id,
                state=SecretState.REVOKED.value,
                revoked_at_us=actor.at_us,
                revoked_reason="key revoked",
            )
    values = {"revoked_at_us": actor.at_us, "revoked_reason": clean_reason(reason)}
    return await _change(session, actor, "key.revoke", before, values)


async def update_service_account(
    session: WriteSession,
    actor: Actor,
    account_id: str,
    changes: AccountChanges,
    *,
    expected_version: int | None = None,
) -> ServiceAccount:
    """Change a service account, and tell data planes of the keys that follow it.

    Raises:
        PenstockError: As `tenancy.people.update_service_account`, and `GRANT_EXCEEDED`: only the
            operator enables one that the operator disabled.
    """
    await session.lock_configuration()
    if changes.get("is_disabled") is False:
        before = await people.get_service_account(session, account_id)
        _check_enabling(before, actor.organization_id)
    account = await people.update_service_account(
        session,
        actor,
        account_id,
        changes,
        expected_version=expected_version,
    )
    scope = session.scope
    for key_id in await store.list_key_ids(session, scope, service_account_id=account_id):
        await record_change(session, "key", key_id, actor.at_us)
    return account


async def update_member(
    session: WriteSession,
    actor: Actor,
    member_id: str,
    changes: PersonChanges,
    *,
    expected_version: int | None = None,
) -> Member:
    """Give a member another role or other labels, and tell data planes of the keys that follow it.

    Raises:
        PenstockError: As `tenancy.people.update_member`.
    """
    member = await people.update_member(
        session, actor, member_id, changes, expected_version=expected_version
    )
    for key_id in await store.list_key_ids(session, session.scope, member_id=member_id):
        await record_change(session, "key", key_id, actor.at_us)
    return member


async def remove_member(
    session: WriteSession, actor: Actor, member_id: str, *, expected_version: int | None = None
) -> None:
    """End a membership, forget the person, and revoke their keys.

    Raises:
        PenstockError: As `tenancy.people.remove_member`.
    """
    await people.remove_member(session, actor, member_id, expected_version=expected_version)
    for key_id in await store.list_key_ids(session, session.scope, member_id=member_id):
        await revoke_key(session, actor, key_id, reason="member removed")


async def find_records(session: ReadSession, key_ids: Iterable[str]) -> dict[str, KeyRecord]:
    """Return what decides about keys, by id; for the snapshot's deltas. At most some thousands."""
    return await store.find_records(session, session.scope, list(key_ids))


async def list_records(
    session: ReadSession, *, after_id: str = "", limit: int = 1_000
) -> list[KeyRecord]:
    """Return what decides about keys that are not revoked, in order of id; for whole snapshots."""
    return await store.list_records(session, session.scope, after_id, limit)


async def list_key_ids(
    session: ReadSession, *, organization_id: str | None = None, project_id: str | None = None
) -> list[str]:
    """Return ids of keys that are not revoked: those that a change of their owner concerns."""
    return await store.list_key_ids(
        session, session.scope, organization_id=organization_id, project_id=project_id
    )


def clean_reason(reason: str) -> str:
    """Return a reason as it is stored.

    Raises:
        PenstockError: `KEY_INVALID`: over 200 characters, or with some that cannot be seen.
    """
    if len(reason) > _MAX_REASON_CHARS or (reason and not reason.isprintable()):
        message = f"A reason is at most {_MAX_REASON_CHARS} visible characters."
        raise PenstockError(KEY_INVALID, message)
    return reason


async def _require_place(session: WriteSession, project_id: str, check: Check | None) -> str:
    """Return the organization of a project that keys can be put into."""
    place = await tenancy_store.lock_place(session, session.scope, project_id)
    if place is None:
        raise PenstockError(OBJECT_UNKNOWN)
    organization_id, project_status, organization_status = place
    if check is not None:
        check(organization_id=organization_id, project_id=project_id)
    require_active(organization_status, "organization")
    require_active(project_status, "project")
    return organization_id


def _build_key(new: NewKey, place: tuple[str, str], actor: Actor, key_id: str) -> ApiKey:
    organization_id, project_id = place
    if new.role not in set(Role):
        raise PenstockError(KEY_INVALID, f"Roles are: {', '.join(Role)}.")
    check_expiry(new.expires_at_us, actor.at_us)
    check_rotation(new.rotation_interval_s, new.rotation_grace_s)
    return ApiKey(
        id=key_id,
        organization_id=organization_id,
        project_id=project_id,
        service_account_id=new.service_account_id,
        member_id=new.member_id,
        name=normalize_name(new.name),
        is_live=new.is_live,
        role=Role(new.role),
        scopes=normalize_scopes(new.scopes),
        allowed_aliases=normalize_aliases(new.allowed_aliases),
        allowed_cidrs=normalize_cidrs(new.allowed_cidrs),
        labels=check_labels(new.labels),
        expires_at_us=new.expires_at_us,
        is_disabled=False,
        revoked_at_us=None,
        revoked_reason=None,
        rotation_interval_s=new.rotation_interval_s,
        rotation_grace_s=new.rotation_grace_s,
        created_by=actor.id,
        last_used_at_us=None,
        version=1,
        created_at_us=actor.at_us,
        updated_at_us=actor.at_us,
    )


def _check_grant(grantor: Principal, role: str) -> None:
    if not may_grant(grantor.roles, role):
        raise PenstockError(GRANT_EXCEEDED, f"You may not give, or manage, the role {role}.")


def _check_enabling(before: ApiKey | ServiceAccount, organization_id: str | None) -> None:
    """Check that somebody of an organization, or the operator, may let it work again."""
    # A damaged row says neither yes nor no: then it is the operator's, too.
    if before.is_disabled_by_operator is not False and organization_id is not None:
        message = "The platform's operator disabled it, and is the only one who may enable it."
        raise PenstockError(GRANT_EXCEEDED, message)


def _inherit_owner(grantor: Principal, new: NewKey) -> NewKey:
    """Return what a key is to be, of its creator's owner when it names none.

    Raises:
        PenstockError: `KEY_INVALID` for two owners; `GRANT_EXCEEDED` for another than the
            creator's.
    """
    if new.service_account_id is not None and new.member_id is not None:
        message = "A key belongs to a member or to a service account, not to both."
        raise PenstockError(KEY_INVALID, message)
    if new.service_account_id is None and new.member_id is None:
        return dataclasses.replace(
            new, service_account_id=grantor.service_account_id, member_id=grantor.member_id
        )
    if not may_hold(grantor, new):
        message = "Your key belongs to somebody, and so must the keys that you create with it."
        raise PenstockError(GRANT_EXCEEDED, message)
    return new


async def _check_owner(session: WriteSession, grantor: Principal, key: ApiKey) -> None:
    owner: ServiceAccount | Member | None
    if key.service_account_id is not None:
        owner = await tenancy_store.service_accounts.find(
            session, session.scope, key.service_account_id
        )
    elif key.member_id is not None:
        owner = await tenancy_store.members.find(session, session.scope, key.member_id)
    else:
        return
    is_here = owner is not None and owner.organization_id == key.organization_id
    if owner is None or not is_here or owner.project_id not in {None, key.project_id}:
        raise PenstockError(OBJECT_UNKNOWN)
    if isinstance(owner, ServiceAccount) and owner.is_disabled:
        raise PenstockError(STATUS_CONFLICT, "The service account is disabled.")
    if owner.id not in {grantor.service_account_id, grantor.member_id}:
        _check_grant(grantor, owner.role)


async def _lift_scheduled_end(session: WriteSession, key_id: str, now_us: int) -> None:
    for secret in await store.list_secrets(session, session.scope, key_id):
        # Only a schedule gives an active secret an end.
        if secret.state == SecretState.ACTIVE and is_live(secret, now_us):
            await store.update_secret(session, session.scope, secret.id, not_after_us=None)


async def _lock_usable(session: WriteSession, key_id: str, expected_version: int | None) -> ApiKey:
    key = await store.keys.lock(session, session.scope, key_id, expected_version)
    if key.revoked_at_us is not None:
        raise PenstockError(KEY_REVOKED)
    return key


async def _change(
    session: WriteSession, actor: Actor, action: str, before: ApiKey, values: dict[str, Any]
) -> ApiKey:
    if all(getattr(before, name) == value for name, value in values.items()):
        return before
    try:
        after = await store.keys.update(
            session, session.scope, before, updated_at_us=actor.at_us, **values
        )
    except RowConflictError:
        raise PenstockError(NAME_TAKEN) from None
    await tell_key(session, actor, action, before, after)
    return after


def _keep(value: Any) -> Any:
    return value
