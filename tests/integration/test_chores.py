"""What the control plane does by itself."""

from pathlib import Path

from tests.fakes.organizations import ALL, create_organization

from penstock.audit import service as audit
from penstock.audit.signing import CheckpointSigner
from penstock.catalog.credentials.data_keys import DataKeys
from penstock.control.chores import CHECKPOINT_S, Chores
from penstock.control.key_uses import KeyUses
from penstock.kit.clock import ManualClock
from penstock.kit.kek.file import FileKek
from penstock.storage.database import Database


async def _count_checkpoints(database: Database, signer: CheckpointSigner, chain: str) -> int:
    async with database.read(ALL) as session:
        found = await audit.verify(session, chain, signer.public_keys)
    assert found.is_whole
    return found.checkpoints


async def test_chains_are_signed_each_hour(database: Database, tmp_path: Path) -> None:
    """The end of each audit chain that grew is signed at once and then each hour, not between."""
    signer = CheckpointSigner.from_file(tmp_path / "signing")
    clock = ManualClock()
    data_keys = DataKeys(FileKek(tmp_path / "kek.json"), clock)
    chores = Chores(database, signer, data_keys, clock, key_uses=KeyUses(database))
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
