"""Use cases of the secrets of a key: rotate, revoke. None commits."""

from typing import Any

from penstock.access import store
from penstock.access.errors import (
    GRANT_EXCEEDED,
    KEY_REVOKED,
    ROTATION_CONFLICT,
    SECRET_REVOKED,
)
from penstock.access.key_rules import (
    check_grace,
    end_of_grace,
    is_live,
    may_hold,
)
from penstock.access.matrix import may_grant
from penstock.access.model import ApiKey, CreatedKey, KeySecret, Principal, SecretState
from penstock.access.peppers import Peppers
from penstock.access.rules import replace_secret
from penstock.access.service import build_secret, check_scopes, clean_reason, insert_secret
from penstock.access.telling import tell_secrets
from penstock.audit.model import Actor
from penstock.kit.errors import PenstockError
from penstock.storage.errors import OBJECT_UNKNOWN
from penstock.storage.sessions import WriteSession


async def rotate_key(
    session: WriteSession,
    actor: Actor,
    grantor: Principal,
    peppers: Peppers,
    *,
    key_id: str,
    grace_s: int,
    text: str | None = None,
    expected_version: int | None = None,
) -> CreatedKey:
    """Give a key a new secret; its id, limits and usage stay.

    The old secret works on for the grace period, but never longer than it would have; with none
    it ends at once. A key has at most two live secrets.

    Args:
        session: Where to.
        actor: Who does it.
        grantor: The same one, with its rights: whoever gets a new secret can do what the key can.
        peppers: What the new secret is hashed under.
        key_id: Which key.
        grace_s: How long the old secret works on, 0 to 30 days.
        text: The new secret itself, where somebody has chosen it; one is made without.
        expected_version: The key's version, when it must be that.

    Returns:
        The key and its new secret, which is told here and never again.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `VERSION_CONFLICT`, `KEY_REVOKED`, `KEY_INVALID`,
            `ROTATION_CONFLICT`, `GRANT_EXCEEDED`.
    """
    check_grace(grace_s)
    key = await _lock(session, key_id, expected_version)
    if not may_grant(grantor.roles, key.role):
        raise PenstockError(GRANT_EXCEEDED)
    # With a key that has a scope itself, nothing is got at by another secret that has it.
    check_scopes(grantor, set(key.scopes) - grantor.scopes)
    if not may_hold(grantor, key):
        message = "Your key belongs to somebody, and this one does not belong to the same one."
        raise PenstockError(GRANT_EXCEEDED, message)
    before = await _live_secrets(session, key, actor)
    active = next((secret for secret in before if secret.state == SecretState.ACTIVE), None)
    after = [secret for secret in before if secret.state == SecretState.RETIRING]
    if active is not None and grace_s > 0:
        if after:
            raise PenstockError(ROTATION_CONFLICT)
        retired: dict[str, Any] = {
            "state": SecretState.RETIRING.value,
            "retiring_at_us": actor.at_us,
            "not_after_us": end_of_grace(key, active, actor.at_us, grace_s),
        }
        after.append(await store.change_secret(session, session.scope, active, **retired))
    elif active is not None:
        await _end(session, active, actor.at_us, "rotated without grace")
    text = replace_secret(key.id, is_live=key.is_live) if text is None else text
    new = build_secret(key, text, peppers, actor)
    await insert_secret(session, new)
    key = await store.keys.update(session, session.scope, key, updated_at_us=actor.at_us)
    await tell_secrets(session, actor, "key.rotate", key, before=before, after=[*after, new])
    return CreatedKey(key, new, text)


async def revoke_secret(
    session: WriteSession, actor: Actor, key_id: str, secret_id: str, *, reason: str = ""
) -> KeySecret:
    """End one secret of a key for ever, at once; the others and the key stay.

    Raises:
        PenstockError: `OBJECT_UNKNOWN` for key or secret, `KEY_REVOKED`, `SECRET_REVOKED`,
            `KEY_INVALID` for the reason.
    """
    key = await _lock(session, key_id, None)
    secrets = await store.list_secrets(session, session.scope, key_id)
    found = next((secret for secret in secrets if secret.id == secret_id), None)
    if found is None:
        raise PenstockError(OBJECT_UNKNOWN)
    if found.state == SecretState.REVOKED:
        raise PenstockError(SECRET_REVOKED)
    before = [secret for secret in secrets if is_live(secret, actor.at_us)]
    ended = await _end(session, found, actor.at_us, clean_reason(reason))
    key = await store.keys.update(session, session.scope, key, updated_at_us=actor.at_us)
    after = [secret for secret in before if secret.id != secret_id]
    await tell_secrets(session, actor, "key.revoke_secret", key, before=before, after=after)
    return ended


async def _lock(session: WriteSession, key_id: str, expected_version: int | None) -> ApiKey:
    key = await store.keys.lock(session, session.scope, key_id, expected_version)
    if key.revoked_at_us is not None:
        raise PenstockError(KEY_REVOKED)
    return key


async def _live_secrets(session: WriteSession, key: ApiKey, actor: Actor) -> list[KeySecret]:
    """Return the live secrets, after those whose grace period is over were ended as well."""
    live = []
    for secret in await store.list_secrets(session, session.scope, key.id):
        if is_live(secret, actor.at_us):
            live.append(secret)
        elif secret.state != SecretState.REVOKED:
            await _end(session, secret, secret.not_after_us or actor.at_us, "grace period ended")
    return live


async def _end(session: WriteSession, secret: KeySecret, at_us: int, reason: str) -> KeySecret:
    return await store.change_secret(
        session,
        session.scope,
        secret,
        state=SecretState.REVOKED.value,
        revoked_at_us=at_us,
        revoked_reason=reason,
    )
