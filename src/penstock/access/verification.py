"""Who shows a key, for the control plane. Data planes ask their snapshot instead."""

from collections.abc import Iterable
from dataclasses import dataclass

from penstock.access import store
from penstock.access.key_rules import (
    find_record_refusal,
    find_secret_refusal,
    is_address_allowed,
    match_secret,
)
from penstock.access.model import (
    KeyRecord,
    KeyRefusal,
    Principal,
    VerifiedKey,
)
from penstock.access.peppers import Peppers
from penstock.access.rules import find_key_id
from penstock.storage.sessions import ReadSession, WriteSession
from penstock.tenancy.model import Role

_PROJECT_BOUND = {Role.PROJECT_ADMIN, Role.DEVELOPER, Role.INFERENCE_ONLY}


@dataclass(frozen=True, slots=True)
class KeyUse:
    """That a key was used."""

    key_id: str
    at_us: int
    secret_id: str | None = None
    """With which secret, if that is known."""


async def verify_key(
    session: ReadSession, peppers: Peppers, text: str, *, now_us: int, address: str | None
) -> VerifiedKey | KeyRefusal:
    """Say whose key this is, or why it is not let in.

    What is no key at all costs no query. An unknown id and a wrong secret take the same way and
    get the same answer; every other answer is given to the holder of the right secret only.

    Args:
        session: One of all organizations: whose the key is comes out here.
        peppers: What keys are hashed under.
        text: What the caller showed.
        now_us: The time.
        address: The caller's, for keys that may be used from some only.
    """
    key_id = find_key_id(text)
    if key_id is None:
        return KeyRefusal.WRONG
    records = await store.find_records(session, session.scope, [key_id])
    record = records.get(key_id)
    macs = peppers.macs(text)
    secret = match_secret(record.secrets if record is not None else [], macs)
    if record is None or secret is None:
        return KeyRefusal.WRONG
    refusal = find_record_refusal(record, now_us) or find_secret_refusal(secret, now_us)
    if refusal is not None:
        return refusal
    if not is_address_allowed(record.key.allowed_cidrs, address):
        return KeyRefusal.ADDRESS
    active_id = peppers.active_id
    return VerifiedKey(record, secret, macs[active_id], secret.pepper_id != active_id)


def principal_of(record: KeyRecord) -> Principal:
    """Return who acts when this key does, with the lesser of its own and its owner's rights."""
    key, owner, roles = record.key, record.owner, record.roles
    is_platform = roles == {Role.PLATFORM_ADMIN}
    is_bound = bool(roles & _PROJECT_BOUND) or (owner is not None and owner.project_id is not None)
    return Principal(
        kind="api_key",
        id=key.id,
        roles=roles,
        scopes=frozenset(key.scopes),
        organization_id=None if is_platform else key.organization_id,
        project_id=key.project_id if is_bound else None,
        service_account_id=key.service_account_id,
        member_id=key.member_id,
    )


async def record_uses(session: WriteSession, uses: Iterable[KeyUse]) -> None:
    """Store when keys were used last, many with one statement; never one request at a time.

    Versions stay, nothing is audited, and a use that is older than the stored one changes nothing.
    """
    rows = [(use.key_id, use.secret_id, use.at_us) for use in uses]
    await store.record_uses(session, session.scope, rows)
