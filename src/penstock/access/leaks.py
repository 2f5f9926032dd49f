"""Keys that somebody found in public. None commits."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from penstock.access import service, store
from penstock.access.key_rules import is_live, match_secret
from penstock.access.model import KeyRecord, KeySecret
from penstock.access.peppers import Peppers
from penstock.access.rules import find_key_id
from penstock.audit.model import Actor, Entry
from penstock.audit.service import record
from penstock.storage.sessions import WriteSession

LeakAction = Literal["revoke", "disable"]
MAX_REASON_CHARS = 200


@dataclass(frozen=True, slots=True)
class Leak:
    """A text that was found where everybody can read it."""

    text: str = field(repr=False)
    url: str
    """Where."""


async def end_leaked(
    session: WriteSession,
    actor: Actor,
    peppers: Peppers,
    leaks: Sequence[Leak],
    action: LeakAction,
) -> list[bool]:
    """Revoke, or disable, the keys that found texts open, and say in the audit log where they were.

    Args:
        session: One of all organizations.
        actor: Who says so.
        peppers: What keys are hashed under.
        leaks: What was found.
        action: What becomes of such a key; what is revoked stays so.

    Returns:
        For each text whether it is, or was, a secret of a key of ours.
    """
    await session.lock_configuration()
    key_ids = sorted({key_id for leak in leaks if (key_id := find_key_id(leak.text)) is not None})
    records = await store.find_records(session, session.scope, key_ids)
    ended: set[str] = set()
    found = []
    for leak in leaks:
        entry = records.get(find_key_id(leak.text) or "")
        secret = None if entry is None else match_secret(entry.secrets, peppers.macs(leak.text))
        found.append(secret is not None)
        if entry is None or secret is None or entry.key.id in ended:
            continue
        if _is_dangerous(entry, secret, actor.at_us, action):
            ended.add(entry.key.id)
            await _end(session, actor, entry, leak_reason(leak), action)
    return found


def leak_reason(leak: Leak) -> str:
    """Return why a key is ended, as it is stored: one line, bounded, and without the key.

    >>> leak_reason(Leak("ps_live_x", "https://example.com/a\u2028?q=ps_live_x"))
    'leaked: https://example.com/a??q=...'
    """
    url = leak.url.replace(leak.text, "...")[:MAX_REASON_CHARS]
    visible = "".join(char if char.isprintable() else "?" for char in url)
    return f"leaked: {visible}"[:MAX_REASON_CHARS]


def _is_dangerous(entry: KeyRecord, secret: KeySecret, now_us: int, action: LeakAction) -> bool:
    if entry.key.revoked_at_us is not None or not is_live(secret, now_us):
        return False
    return action == "revoke" or not entry.key.is_disabled


async def _end(
    session: WriteSession, actor: Actor, entry: KeyRecord, reason: str, action: LeakAction
) -> None:
    key = entry.key
    await record(
        session,
        Entry(
            actor=actor,
            action="key.leaked",
            resource_kind="key",
            resource_id=key.id,
            organization_id=key.organization_id,
            detail=reason,
        ),
    )
    if action == "revoke":
        await service.revoke_key(session, actor, key.id, reason=reason)
    else:
        await service.disable_key(session, actor, key.id)
