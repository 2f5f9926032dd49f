"""The audit log, on both kinds of database."""

import asyncio
import dataclasses
from collections.abc import Callable

import pytest
from sqlalchemy import ColumnElement, Delete, Update, delete, update
from tests.fakes.organizations import ALL, NOW_US, actor

from penstock.audit import service
from penstock.audit.model import Entry, EntryFilter, Verification
from penstock.audit.signing import CheckpointSigner
from penstock.audit.tables import AuditCheckpoints, AuditEntries, AuditHeads
from penstock.storage.database import Database
from penstock.storage.scope import Scope

SIGNER = CheckpointSigner(b"s" * 32)
CHAIN = "org_a"


def _entry(number: int, organization_id: str | None = CHAIN) -> Entry:
    return Entry(
        actor=actor(NOW_US + number),
        action="key.create",
        resource_kind="key",
        resource_id=f"key-{number}",
        organization_id=organization_id,
        after={"name": f"key {number}", "secret": "hunter2"},
    )


async def _record(database: Database, *numbers: int, organization_id: str | None = CHAIN) -> None:
    for number in numbers:
        async with database.write(ALL) as session:
            await service.record(session, _entry(number, organization_id))


async def _sign(database: Database) -> int:
    async with database.write(ALL) as session:
        return len(await service.create_checkpoints(session, SIGNER, NOW_US))


async def _verify(database: Database, chain: str = CHAIN) -> Verification:
    async with database.read(ALL) as session:
        return await service.verify(session, chain, SIGNER.public_keys)


async def _tamper(database: Database, *statements: Update | Delete) -> None:
    async with database.write(ALL) as session:
        for statement in statements:
            await session.change(statement)


def _at(number: int) -> tuple[ColumnElement[bool], ...]:
    return (AuditEntries.chain == CHAIN, AuditEntries.number == number)


async def test_a_chain_is_whole(database: Database) -> None:
    """What was recorded verifies, with its checkpoints, and what never was does, too."""
    assert (await _verify(database)).is_whole
    await _record(database, 1, 2, 3)
    assert await _sign(database) == 1
    assert await _sign(database) == 0
    await _record(database, 4)
    await _record(database, 1, organization_id=None)
    assert await _sign(database) == 2
    verification = await _verify(database)
    assert verification == Verification(chain=CHAIN, entries=4, checkpoints=2)
    assert (await _verify(database, "platform")).entries == 1
    async with database.read(ALL) as session:
        entries = await service.list_entries(session, CHAIN)
        assert await service.list_chains(session) == [CHAIN, "platform"]
    assert [entry.number for entry in entries] == [1, 2, 3, 4]
    assert "hunter2" not in str(entries)
    assert entries[0].address == "192.0.2.7"


async def test_writers_at_once_make_one_chain(database: Database) -> None:
    """However many record at the same time, the chain has no gap and no fork."""

    async def denied(number: int) -> None:
        await service.record_denied(
            database, dataclasses.replace(_entry(number), outcome="denied", detail="role")
        )

    await asyncio.gather(
        *(_record(database, number) for number in range(12)),
        *(denied(number) for number in range(12, 24)),
    )
    await _sign(database)
    assert await _verify(database) == Verification(chain=CHAIN, entries=24, checkpoints=1)


async def test_what_was_rolled_back_was_never_there(database: Database) -> None:
    """A change that failed leaves no entry, and the chain goes on without a gap."""

    async def fail() -> None:
        async with database.write(ALL) as session:
            await service.record(session, _entry(1))
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    await _record(database, 2)
    assert (await _verify(database)).entries == 1


async def test_what_was_denied_is_recorded(database: Database) -> None:
    """A refusal is kept in a transaction of its own, whatever text the caller chose."""
    entry = dataclasses.replace(
        _entry(1), outcome="denied", resource_id="\0" + "x" * 9_999, detail="no right\n"
    )
    await service.record_denied(database, entry)
    await service.record_denied(database, dataclasses.replace(entry, organization_id=None))
    async with database.read(ALL) as session:
        (found,) = await service.list_entries(
            session, CHAIN, entry_filter=EntryFilter(outcome="denied")
        )
        done = EntryFilter(outcome="done", actor_id="admin_token", since_us=0, until_us=1)
        assert await service.list_entries(session, CHAIN, entry_filter=done) == []
    assert len(found.resource_id) == 500
    assert (await _verify(database)).is_whole
    assert (await _verify(database, "platform")).is_whole


EDITS: dict[str, tuple[Callable[[], list[Update | Delete]], int]] = {
    "edit": (
        lambda: [update(AuditEntries).where(*_at(3)).values(action="key.delete")],
        3,
    ),
    "edit after": (
        lambda: [update(AuditEntries).where(*_at(2)).values(after={"name": "x"})],
        2,
    ),
    "edit hash": (
        lambda: [update(AuditEntries).where(*_at(5)).values(hash=b"x" * 32)],
        5,
    ),
    "delete first": (lambda: [delete(AuditEntries).where(*_at(1))], 1),
    "delete middle": (lambda: [delete(AuditEntries).where(*_at(4))], 4),
    "delete and renumber": (
        lambda: [
            delete(AuditEntries).where(*_at(4)),
            update(AuditEntries).where(*_at(5)).values(number=4),
        ],
        4,
    ),
    "reorder": (
        lambda: [
            update(AuditEntries).where(*_at(2)).values(number=99),
            update(AuditEntries).where(*_at(3)).values(number=2),
            update(AuditEntries).where(*_at(99)).values(number=3),
        ],
        2,
    ),
    "truncate": (
        lambda: [
            delete(AuditEntries).where(AuditEntries.number >= 4),
            update(AuditHeads).values(number=3),
        ],
        4,
    ),
    "truncate all": (lambda: [delete(AuditEntries), delete(AuditHeads)], 1),
    "truncate behind the checkpoint": (
        lambda: [delete(AuditEntries).where(AuditEntries.number == 6)],
        6,
    ),
    "checkpoint edited": (
        lambda: [update(AuditCheckpoints).values(hash=b"x" * 32)],
        5,
    ),
}


@pytest.mark.parametrize("name", EDITS)
async def test_tampering_is_found(database: Database, name: str) -> None:
    """Edits, deletions, reorderings and truncation are found, by the first link they touched."""
    await _record(database, 1, 2, 3, 4, 5)
    await _sign(database)
    await _record(database, 6)
    statements, broken_at = EDITS[name]
    await _tamper(database, *statements())
    verification = await _verify(database)
    assert verification.broken_at == broken_at
    assert verification.reason
    assert not verification.is_whole


async def test_a_rewritten_chain_is_found_by_its_checkpoint(database: Database) -> None:
    """Who writes the whole chain anew, hashes and all, does not get past a signed checkpoint."""
    await _record(database, 1, 2, 3)
    await _sign(database)
    async with database.read(ALL) as session:
        kept = await service.list_checkpoints(session, CHAIN)
    await _tamper(database, delete(AuditEntries), delete(AuditHeads))
    await _record(database, 1, 7, 3)
    verification = await _verify(database)
    assert (verification.broken_at, verification.entries) == (3, 2)
    await _tamper(database, delete(AuditCheckpoints))
    assert (await _verify(database)).is_whole
    async with database.read(ALL) as session:
        verification = await service.verify(session, CHAIN, SIGNER.public_keys, kept)
    assert verification.broken_at == 3


async def test_a_checkpoint_of_somebody_else_is_found(database: Database) -> None:
    """A checkpoint counts with our signature only."""
    await _record(database, 1)
    async with database.write(ALL) as session:
        await service.create_checkpoints(session, CheckpointSigner(b"t" * 32), NOW_US)
    assert (await _verify(database)).reason == "the signature of its checkpoint is not ours"


async def test_an_address_can_be_erased(database: Database) -> None:
    """Removing the personal part of entries leaves the chain whole."""
    await _record(database, 1, 2)
    await _tamper(database, update(AuditEntries).values(address=None))
    assert (await _verify(database)).is_whole


async def test_an_organization_sees_its_chain_only(database: Database) -> None:
    """In the scope of one organization no other chain can be read, verified or written."""
    await _record(database, 1)
    await _record(database, 1, organization_id="org_b")
    await _record(database, 1, organization_id=None)
    async with database.read(Scope.of("org_b")) as session:
        assert await service.list_chains(session) == ["org_b"]
        assert await service.list_entries(session, CHAIN) == []
        assert await service.list_entries(session, None) == []
    for chain in (CHAIN, None):
        with pytest.raises(PermissionError):
            async with database.write(Scope.of("org_b")) as writer:
                await service.record(writer, _entry(1, chain))


async def test_a_long_chain_is_walked_in_parts(database: Database) -> None:
    """A chain longer than one read of it is verified to its end."""
    async with database.write(ALL) as session:
        for number in range(1_005):
            await service.record(session, _entry(number))
    assert (await _verify(database)).entries == 1_005
    await _tamper(database, update(AuditEntries).where(*_at(1_001)).values(detail="x"))
    assert (await _verify(database)).broken_at == 1_001
