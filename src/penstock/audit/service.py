"""Use cases of the audit room. None commits: an entry stands or falls with what it tells of."""

from collections.abc import Mapping, Sequence

from penstock.audit import store
from penstock.audit.model import Checkpoint, Entry, EntryFilter, StoredEntry, Verification
from penstock.audit.rules import FIRST_HASH, chain_of, find_break, link_entry
from penstock.audit.signing import CheckpointSigner, PublicKeys
from penstock.storage.database import Database
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession, WriteSession

_WALK_ROWS = 1_000


async def record(session: WriteSession, entry: Entry) -> StoredEntry:
    """Add an entry to the chain of its organization, in the transaction of what it tells of.

    Writers of one chain queue, so links have no gap and no fork. When the transaction is rolled
    back, the entry was never there.

    Args:
        session: The transaction of the change itself.
        entry: What happens; secrets in it are not stored.
    """
    await session.lock_configuration()
    return await _append(session, entry)


async def record_denied(database: Database, entry: Entry) -> None:
    """Add an entry about something that was refused, in a transaction of its own.

    Raises:
        DatabaseUnavailableError: It could not be stored.
    """
    organization_id = entry.organization_id
    scope = Scope.all_organizations() if organization_id is None else Scope.of(organization_id)
    async with database.write(scope) as session:
        # One lock only, that of the chain: nothing that it could wait for in a circle.
        await _append(session, entry)


async def list_entries(
    session: ReadSession,
    organization_id: str | None,
    *,
    entry_filter: EntryFilter | None = None,
    after: int = 0,
    limit: int = 100,
) -> list[StoredEntry]:
    """Return links of a chain in their order, those behind number `after`."""
    return await store.list_entries(
        session,
        session.scope,
        chain_of(organization_id),
        entry_filter=entry_filter or EntryFilter(),
        after=after,
        limit=limit,
    )


async def list_chains(session: ReadSession) -> list[str]:
    """Return the names of all chains within the session's scope."""
    return await store.list_chains(session, session.scope)


async def list_checkpoints(session: ReadSession, chain: str) -> list[Checkpoint]:
    """Return the signed statements about a chain, oldest first."""
    return await store.list_checkpoints(session, session.scope, chain)


async def create_checkpoints(
    session: WriteSession, signer: CheckpointSigner, now_us: int
) -> list[Checkpoint]:
    """Sign the end of every chain that grew since its last checkpoint; to be run every hour.

    Returns:
        The new ones. Kept elsewhere, they also prove that nobody removed them here.
    """
    heads = await store.list_unsigned_heads(session, session.scope)
    checkpoints = [signer.sign(chain, number, head, now_us) for chain, number, head in heads]
    await store.record_checkpoints(session, session.scope, checkpoints)
    return checkpoints


async def verify(
    session: ReadSession,
    chain: str,
    public_keys: PublicKeys,
    kept_elsewhere: Sequence[Checkpoint] = (),
) -> Verification:
    """Walk along a chain and name the first link that is not what it was.

    Found are edits, deletions, insertions and reorderings; and that the end is missing, back to
    the last checkpoint. Who can write every table here can also shorten chain, head and
    checkpoints together: that is found with checkpoints that were kept elsewhere.

    Args:
        session: One state of the database.
        chain: An organization's id, or `platform`.
        public_keys: Whose signatures count, by id.
        kept_elsewhere: Checkpoints of this chain that were exported.
    """
    scope = session.scope
    stored = await store.list_checkpoints(session, scope, chain)
    checkpoints = [*stored, *(one for one in kept_elsewhere if one.chain == chain)]
    for checkpoint in checkpoints:
        if not public_keys.is_signed(checkpoint):
            reason = "the signature of its checkpoint is not ours"
            return _broken(chain, 0, 0, checkpoint.number, reason)
    expected: dict[int, set[bytes]] = {}
    for checkpoint in checkpoints:
        expected.setdefault(checkpoint.number, set()).add(checkpoint.hash)
    return await _walk(session, chain, expected, len(checkpoints))


async def _walk(
    session: ReadSession, chain: str, expected: Mapping[int, set[bytes]], checkpoints: int
) -> Verification:
    number, last = 0, FIRST_HASH
    while True:
        links = await store.list_entries(
            session,
            session.scope,
            chain,
            entry_filter=EntryFilter(),
            after=number,
            limit=_WALK_ROWS,
        )
        for link in links:
            reason = find_break(link, number + 1, last)
            if reason is None and expected.get(link.number, {link.hash}) != {link.hash}:
                reason = "its checkpoint was signed over another hash"
            if reason is not None:
                passed = sum(1 for signed in expected if signed <= number)
                return _broken(chain, number, passed, number + 1, reason)
            number, last = link.number, link.hash
        if len(links) < _WALK_ROWS:
            break
    end = max(expected, default=0)
    if end > number:
        passed = sum(1 for signed in expected if signed <= number)
        return _broken(chain, number, passed, number + 1, f"the chain once had {end} entries")
    head = await store.find_head(session, session.scope, chain) or (0, FIRST_HASH)
    if head != (number, last):
        return _broken(chain, number, checkpoints, number + 1, "entries at the end are missing")
    return Verification(chain=chain, entries=number, checkpoints=checkpoints)


async def _append(session: WriteSession, entry: Entry) -> StoredEntry:
    chain = chain_of(entry.organization_id)
    number, last = await store.lock_head(session, session.scope, chain)
    link = link_entry(entry, number + 1, last)
    await store.append_entry(session, session.scope, link)
    return link


def _broken(
    chain: str, entries: int, checkpoints: int, broken_at: int, reason: str
) -> Verification:
    return Verification(
        chain=chain, entries=entries, checkpoints=checkpoints, broken_at=broken_at, reason=reason
    )
