"""Credentials under any order of changes and rotations that die: the last secret is what opens."""

from pathlib import Path

from tests.fakes.organizations import ALL, PEPPERS, create_organization
from tests.fakes.sealed_credentials import create_credential, create_data_keys, read_secret

from penstock.audit import service as audit
from penstock.audit.signing import CheckpointSigner
from penstock.catalog.credentials.data_keys import DataKeys
from penstock.control.budget_books import BudgetBooks
from penstock.control.chores import CHECKPOINT_S, WATCH_S, Chores
from penstock.control.key_uses import KeyUses
from penstock.control.ledger_books import LedgerBooks
from penstock.control.quarantine import Quarantine
from penstock.kit.clock import ManualClock
from penstock.kit.kek.file import FileKek, add_key_version, remove_key_version
from penstock.storage.database import Database


async def _count_checkpoints(database: Database, signer: CheckpointSigner, chain: str) -> int:
    async with database.read(ALL) as session:
        found = await audit.verify(session, chain, signer.public_keys)
    assert found.is_whole
    return found.checkpoints


def _chores(
    database: Database, signer: CheckpointSigner, keys: DataKeys, clock: ManualClock
) -> Chores:
    return Chores(
        database,
        signer,
        keys,
        clock,
        key_uses=KeyUses(database, PEPPERS, clock),
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
