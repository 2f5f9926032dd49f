"""Every SQL statement of the audit room, each within a scope."""

import dataclasses
from collections.abc import Sequence

from sqlalchemy import ColumnElement, bindparam, select, true, update

from penstock.audit.model import Checkpoint, EntryFilter, StoredEntry
from penstock.audit.rules import FIRST_HASH
from penstock.audit.tables import AuditCheckpoints, AuditEntries, AuditHeads
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession, WriteSession, insertion

_ENTRY = tuple(
    getattr(AuditEntries, name.removesuffix("_us")) for name in StoredEntry.__dataclass_fields__
)
_CHECKPOINT = tuple(
    getattr(AuditCheckpoints, name.removesuffix("_us")) for name in Checkpoint.__dataclass_fields__
)


_HEAD = (
    select(AuditHeads.number, AuditHeads.hash)
    .where(AuditHeads.chain == bindparam("of_chain"))
    .with_for_update()
)
_MOVE_HEAD = (
    update(AuditHeads)
    .where(AuditHeads.chain == bindparam("of_chain"))
    .values(number=bindparam("last_number"), hash=bindparam("last_hash"))
)


async def lock_head(session: WriteSession, scope: Scope, chain: str) -> tuple[int, bytes]:
    """Return number and hash of a chain's last link, and keep others from adding to it.

    Returns:
        0 and `FIRST_HASH` for a chain that just began.
    """
    scope.require([chain])
    found = await session.first(_HEAD, {"of_chain": chain})
    if found is None:
        begin = {"chain": chain, "number": 0, "hash": FIRST_HASH}
        await session.insert_new(AuditHeads, [begin], AuditHeads.number)
        found = await session.first(_HEAD, {"of_chain": chain})
        if found is None:
            message = "the head of a chain vanished while it was looked at"
            raise LookupError(message)
    return found.number, found.hash


async def append_entry(session: WriteSession, scope: Scope, link: StoredEntry) -> None:
    """Add a link to the end of the chain that `lock_head` locked."""
    scope.require([link.chain])
    row = {
        name.removesuffix("_us"): getattr(link, name) for name in StoredEntry.__dataclass_fields__
    }
    head = {"of_chain": link.chain, "last_number": link.number, "last_hash": link.hash}
    await session.change_together((_MOVE_HEAD, head), insertion(AuditEntries, row))


async def list_entries(
    session: ReadSession,
    scope: Scope,
    chain: str,
    *,
    entry_filter: EntryFilter,
    after: int,
    limit: int,
) -> list[StoredEntry]:
    """Return links behind a number in their order."""
    statement = (
        select(*_ENTRY)
        .where(
            scope.where(AuditEntries.chain),
            AuditEntries.chain == chain,
            AuditEntries.number > after,
            *_conditions(entry_filter),
        )
        .order_by(AuditEntries.number)
        .limit(limit)
    )
    return [_entry(tuple(row)) for row in await session.rows(statement)]


async def find_head(session: ReadSession, scope: Scope, chain: str) -> tuple[int, bytes] | None:
    """Return number and hash of a chain's end, or None when it never began."""
    statement = select(AuditHeads.number, AuditHeads.hash).where(
        scope.where(AuditHeads.chain), AuditHeads.chain == chain
    )
    found = await session.first(statement)
    return None if found is None else (found.number, found.hash)


async def list_unsigned_heads(session: ReadSession, scope: Scope) -> list[tuple[str, int, bytes]]:
    """Return chain, number and hash of each chain that grew since its last checkpoint."""
    statement = (
        select(AuditHeads.chain, AuditHeads.number, AuditHeads.hash)
        .outerjoin(
            AuditCheckpoints,
            (AuditCheckpoints.chain == AuditHeads.chain)
            & (AuditCheckpoints.number == AuditHeads.number),
        )
        .where(
            scope.where(AuditHeads.chain),
            AuditHeads.number > 0,
            AuditCheckpoints.chain.is_(None),
        )
        .order_by(AuditHeads.chain)
    )
    return [(row.chain, row.number, row.hash) for row in await session.rows(statement)]


async def list_chains(session: ReadSession, scope: Scope) -> list[str]:
    """Return the names of all chains that are or were: of entries, of heads, of checkpoints."""
    names: set[str] = set()
    for column in (AuditHeads.chain, AuditEntries.chain, AuditCheckpoints.chain):
        rows = await session.rows(select(column).where(scope.where(column)).distinct())
        names.update(name for (name,) in rows)
    return sorted(names)


async def record_checkpoints(
    session: WriteSession, scope: Scope, checkpoints: Sequence[Checkpoint]
) -> None:
    """Store signed statements."""
    scope.require(checkpoint.chain for checkpoint in checkpoints)
    rows = [
        {name.removesuffix("_us"): value for name, value in dataclasses.asdict(checkpoint).items()}
        for checkpoint in checkpoints
    ]
    await session.insert_new(AuditCheckpoints, rows, AuditCheckpoints.number)


async def list_checkpoints(session: ReadSession, scope: Scope, chain: str) -> list[Checkpoint]:
    """Return the signed statements about a chain, oldest first."""
    statement = (
        select(*_CHECKPOINT)
        .where(scope.where(AuditCheckpoints.chain), AuditCheckpoints.chain == chain)
        .order_by(AuditCheckpoints.number)
    )
    names = list(Checkpoint.__dataclass_fields__)
    return [
        Checkpoint(**dict(zip(names, row, strict=True))) for row in await session.rows(statement)
    ]


def _conditions(entry_filter: EntryFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [true()]
    for name in ("actor_id", "action", "resource_kind", "resource_id", "outcome"):
        value = getattr(entry_filter, name)
        if value is not None:
            conditions.append(getattr(AuditEntries, name) == value)
    if entry_filter.since_us is not None:
        conditions.append(AuditEntries.recorded_at >= entry_filter.since_us)
    if entry_filter.until_us is not None:
        conditions.append(AuditEntries.recorded_at < entry_filter.until_us)
    return conditions


def _entry(row: tuple[object, ...]) -> StoredEntry:
    return StoredEntry(**dict(zip(StoredEntry.__dataclass_fields__, row, strict=True)))  # type: ignore[arg-type]  # columns in the order of the members
