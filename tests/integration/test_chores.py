"""What control planes do by themselves: once, and whatever becomes of a part of it."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from tests.fakes.budget_rig import BudgetRig
from tests.fakes.ledger_rig import add_grant, read_amounts
from tests.fakes.organizations import (
    ALL,
    NOW_US,
    PEPPERS,
    actor,
    create_key,
    create_organization,
    create_place,
)
from tests.fakes.sealed_credentials import create_credential, create_data_keys, read_secret

from penstock.access.model import NewKey
from penstock.audit import service as audit
from penstock.audit.signing import CheckpointSigner
from penstock.catalog import upstreams
from penstock.catalog.credentials.data_keys import DataKeys
from penstock.catalog.objects import NewUpstream
from penstock.catalog.registrations import service as registrations
from penstock.catalog.registrations.model import NewRegistration
from penstock.control.budget_books import BudgetBooks
from penstock.control.chores import CHECKPOINT_S, TICK_S, WATCH_S, Chores
from penstock.control.key_uses import KeyUses
from penstock.control.ledger_books import LedgerBooks
from penstock.control.quarantine import Quarantine
from penstock.kit.clock import ManualClock
from penstock.kit.kek.file import FileKek, add_key_version, remove_key_version
from penstock.limits.budget_model import Life
from penstock.storage.database import Database
from penstock.storage.errors import DatabaseUnavailableError


async def _count_checkpoints(database: Database, signer: CheckpointSigner, chain: str) -> int:
    async with database.read(ALL) as session:
        found = await audit.verify(session, chain, signer.public_keys)
    assert found.is_whole
    return found.checkpoints


class _FailingKeyUses(KeyUses):
    """The first chore, which fails for a while."""

    error: Exception | None = None
    flushed = 0

    async def flush(self) -> None:
        """Fail, or count."""
        if self.error is not None:
            raise self.error
        self.flushed += 1


def _chores(
    database: Database,
    signer: CheckpointSigner,
    keys: DataKeys,
    clock: ManualClock,
    key_uses: KeyUses | None = None,
) -> Chores:
    return Chores(
        database,
        signer,
        keys,
        clock,
        key_uses=key_uses or KeyUses(database, PEPPERS, clock),
        books=BudgetBooks(database, clock),
        quarantine=Quarantine(database),
        ledger=LedgerBooks(database, clock),
    )


async def test_chains_are_signed_each_hour(database: Database, tmp_path: Path) -> None:
    """The end of each audit chain that grew is signed at once and then each hour, not between."""
    signer = CheckpointSigner.from_file(tmp_path / "signing")
    clock = ManualClock()
    data_keys = DataKeys(FileKek(tmp_path / "kek.json"), clock)
    chores = _chores(database, signer, data_keys, clock)
    acme = await create_organization(database, "acme")
    await chores.tick()
    assert await _count_checkpoints(database, signer, acme.id) == 1
    other = await create_organization(database, "other")
    clock.advance(CHECKPOINT_S / 2)
    await chores.tick()
    assert await _count_checkpoints(database, signer, other.id) == 0
    clock.advance(CHECKPOINT_S / 2)
    await chores.tick()
    assert await _count_checkpoints(database, signer, other.id) == 1
    assert await _count_checkpoints(database, signer, acme.id) == 1


@pytest.mark.parametrize("error", [RuntimeError("a bug"), DatabaseUnavailableError("too slow")])
async def test_a_chore_that_fails_stops_nothing_else(
    database: Database, tmp_path: Path, error: Exception
) -> None:
    """Those behind it are done all the same: a round later, where the database was away."""
    signer = CheckpointSigner.from_file(tmp_path / "signing")
    clock = ManualClock()
    data_keys = DataKeys(FileKek(tmp_path / "kek.json"), clock)
    key_uses = _FailingKeyUses(database, PEPPERS, clock)
    key_uses.error = error
    chores = _chores(database, signer, data_keys, clock, key_uses)
    acme = await create_organization(database, "acme")
    await chores.tick()
    is_away = isinstance(error, DatabaseUnavailableError)
    assert await _count_checkpoints(database, signer, acme.id) == (0 if is_away else 1)
    await chores.tick()
    assert await _count_checkpoints(database, signer, acme.id) == 1
    assert chores.failing == {"_FailingKeyUses.flush"}
    key_uses.error = None
    clock.advance(TICK_S)
    await chores.tick()
    assert (key_uses.flushed, chores.failing) == (1, set())


async def test_leases_are_looked_at_whatever_else_fails(database: Database, tmp_path: Path) -> None:
    """No chore that ends a round keeps it from being seen whether leases could be renewed."""
    signer = CheckpointSigner.from_file(tmp_path / "signing")
    clock = ManualClock(NOW_US * 1_000)
    data_keys = DataKeys(FileKek(tmp_path / "kek.json"), clock)
    key_uses = _FailingKeyUses(database, PEPPERS, clock)
    chores = _chores(database, signer, data_keys, clock, key_uses)
    new = NewUpstream(name="gpu", discover="registered://gpu?networks=10.0.0.0/8")
    async with database.write(ALL) as session:
        upstream = await upstreams.create_upstream(session, actor(), new)
        engine = NewRegistration(url="http://10.0.0.1:8000", ttl_s=10)
        await registrations.register(session, upstream.id, engine, NOW_US)
    key_uses.error = DatabaseUnavailableError("away")
    clock.advance(11)
    await chores.tick()
    async with database.read(ALL) as session:
        assert await registrations.list_held(session, "gpu") == ()


async def test_what_is_due_is_done_once_by_several_control_planes(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of three that look at the same moment each thing is done by one, and none of them fails."""
    path, clock = tmp_path / "kek.json", ManualClock(NOW_US * 1_000)
    made = await create_credential(database, create_data_keys(path))
    signer = CheckpointSigner.from_file(tmp_path / "signing")
    planes = [_chores(database, signer, DataKeys(FileKek(path), clock), clock) for _ in range(3)]
    await asyncio.gather(*(plane.tick() for plane in planes))  # each has its connection then
    acme, project = await create_place(database)
    rig = BudgetRig(database, acme, project)
    budget = await rig.add_budget()
    for number in range(6):
        await rig.hold(budget, 100, life=Life(f"node-{number}/0", 1))
        await add_grant(
            database, f"grt_{number}", 5, organization=acme.id, expires_at_us=NOW_US + 1
        )
        policy = NewKey(name=f"key-{number}", rotation_interval_s=7_200, rotation_grace_s=3_600)
        await create_key(database, project, policy)
    add_key_version(path)
    clock.advance(25 * 3_600)
    await asyncio.gather(*(plane.tick() for plane in planes))
    assert sum(plane.books.expired for plane in planes) == 6
    assert (await rig.window(budget)).held == 0
    amounts = await read_amounts(database, acme.id)
    assert amounts["wallet_promo"] == 0
    assert amounts["breakage"] == -6 * 5
    async with database.read(ALL) as session:
        entries = await audit.list_entries(session, acme.id)
    assert Counter(one.action for one in entries)["key.rotation_due"] == 6
    assert await _count_checkpoints(database, signer, acme.id) == 1
    remove_key_version(path, 1)
    await read_secret(database, create_data_keys(path), made.id)
    assert [plane.ledger.violations for plane in planes] == [0, 0, 0]
    assert "chore failed" not in caplog.text


async def test_data_keys_follow_the_kek(database: Database, tmp_path: Path) -> None:
    """A new version of the KEK wraps all data keys at the next tick, without being asked."""
    path, clock = tmp_path / "kek.json", ManualClock()
    keys = create_data_keys(path)
    made = await create_credential(database, keys)
    signer = CheckpointSigner.from_file(tmp_path / "signing")
    chores = _chores(database, signer, keys, clock)
    await chores.tick()
    for _ in range(2):
        number = add_key_version(path)
        clock.advance(WATCH_S)
        await chores.tick()
        remove_key_version(path, number - 1)
        await read_secret(database, create_data_keys(path), made.id)
    _move(path, tmp_path / "away")
    clock.advance(WATCH_S)
    await chores.tick()  # a KEK that is away stops nothing else
    _move(tmp_path / "away", path)


def _move(path: Path, target: Path) -> None:
    path.rename(target)
