"""Hashes of keys move from an old pepper to the active one, as keys are shown. None commits.

Each move is told to data planes as two changes: the key, and the old hash, whose record must go
from every node. A record that stayed under the old hash would be found whatever happens to the key
later, since nothing names it any more.
"""

from collections.abc import Sequence

from penstock.access import store
from penstock.access.key_rules import may_nodes_rehash
from penstock.access.model import KeySecret, PepperCount, VerifiedKey
from penstock.access.peppers import Peppers
from penstock.storage.changes import record_change
from penstock.storage.sessions import ReadSession, WriteSession

MAX_KEY_IDS = 100
"""Most keys that a report names of each pepper."""


async def record_macs(
    session: WriteSession, peppers: Peppers, verified: Sequence[VerifiedKey], now_us: int
) -> int:
    """Store keys that were shown to the control plane under an old pepper under the active one.

    Returns:
        How many were stored; one that was changed meanwhile is not.
    """
    old = [one for one in verified if one.has_old_pepper]
    if not old:
        return 0
    await session.lock_configuration()
    moved = [await _move(session, peppers, one.secret, one.mac, now_us) for one in old]
    return sum(moved)


async def record_reported(
    session: WriteSession, peppers: Peppers, pairs: Sequence[tuple[bytes, bytes]], now_us: int
) -> int:
    """Store the hashes that a node reports, as far as a node can be believed.

    Args:
        session: One of all organizations.
        peppers: What keys are hashed under.
        pairs: Hashes of keys under an old pepper, and under the active one.
        now_us: The time.

    Returns:
        How many were stored. Not stored are hashes that are not here, or not under an old pepper
        of ours, and those of keys that open the control plane.
    """
    await session.lock_configuration()
    new_macs = dict(pairs)
    taken = await store.list_known_macs(session, session.scope, list(new_macs.values()))
    count = 0
    for key, secret in await store.list_by_macs(session, session.scope, list(new_macs)):
        mac = new_macs[secret.mac]
        is_ours = secret.pepper_id in peppers.values.keys() - {peppers.active_id}
        if is_ours and mac not in taken and may_nodes_rehash(key, secret):
            taken.add(mac)
            count += await _move(session, peppers, secret, mac, now_us)
    return count


async def count_by_pepper(session: ReadSession, peppers: Peppers, now_us: int) -> list[PepperCount]:
    """Return how many secrets that can still open a key are hashed under each pepper.

    When none is left under an old one, its file can be removed.
    """
    counts = await store.count_by_pepper(session, session.scope, now_us)
    found = []
    for pepper_id in sorted(counts.keys() | peppers.values.keys()):
        is_active = pepper_id == peppers.active_id
        key_ids: list[str] = []
        if not is_active:
            key_ids = await store.list_key_ids_of_pepper(
                session, session.scope, pepper_id, now_us, MAX_KEY_IDS
            )
        found.append(
            PepperCount(
                id=pepper_id,
                is_active=is_active,
                is_loaded=pepper_id in peppers.values,
                secrets=counts.get(pepper_id, 0),
                key_ids=key_ids,
            )
        )
    return found


async def _move(
    session: WriteSession, peppers: Peppers, secret: KeySecret, mac: bytes, now_us: int
) -> bool:
    if not await store.update_mac(session, session.scope, secret, mac, peppers.active_id):
        return False
    await record_change(session, "key_hash", secret.mac.hex(), now_us)
    await record_change(session, "key", secret.key_id, now_us)
    return True
