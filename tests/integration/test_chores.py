"""What the control plane does by itself, and that one thing of it cannot keep it from the rest."""

from pathlib import Path

import pytest
from tests.fakes.organizations import ALL, PEPPERS, create_organization
from tests.fakes.sealed_credentials import create_credential, create_data_keys, read_secret

from penstock.audit import service as audit
from penstock.audit.signing import CheckpointSigner
from penstock.catalog.credentials.data_keys import DataKeys
from penstock.control.budget_books import BudgetBooks
from penstock.control.chores import CHECKPOINT_S, TICK_S, WATCH_S, Chores
from penstock.control.key_uses import KeyUses
from penstock.control.ledger_books import LedgerBooks
from penstock.control.quarantine import Quarantine
from penstock.kit.clock import ManualClock
from penstock.kit.kek.file import FileKek, add_key_version, remove_key_version
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
    """Those behind it are done all the same, and it is done itself once it can be."""
    signer = CheckpointSigner.from_file(tmp_path / "signing")
    clock = ManualClock()
    data_keys = DataKeys(FileKek(tmp_path / "kek.json"), clock)
    key_uses = _FailingKeyUses(database, PEPPERS, clock)
    key_uses.error = error
    chores = _chores(database, signer, data_keys, clock, key_uses)
    acme = await create_organization(database, "acme")
    await chores.tick()
    assert await _count_checkpoints(database, signer, acme.id) == 1
    key_uses.error = None
    clock.advance(TICK_S)
    await chores.tick()
    assert key_uses.flushed == 1


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
