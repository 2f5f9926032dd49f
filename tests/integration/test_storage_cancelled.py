"""Sessions that are cancelled, at every step: nothing of them stays, no lock either."""

import asyncio

from sqlalchemy import select
from tests.fakes.organizations import ALL

from penstock.storage.changes import SnapshotChanges, record_change
from penstock.storage.database import Database

STEPS = 40


async def _write(database: Database, name: str) -> None:
    async with database.write(ALL) as session:
        await record_change(session, "key", name, 0)
        await session.flush()


async def test_a_cancelled_writer_leaves_no_lock(database: Database) -> None:
    """The next one writes at once, however far the one before it came."""
    await _write(database, "first")
    for number in range(3 * STEPS):
        task = asyncio.create_task(_write(database, f"cancelled {number}"))
        for _ in range(number % STEPS):
            await asyncio.sleep(0)
        await asyncio.sleep(number // STEPS * 0.0005)
        task.cancel()
        outcomes = await asyncio.gather(task, return_exceptions=True)
        await asyncio.wait_for(_write(database, f"kept {number}"), 10.0)
        del outcomes  # what was raised is alive until here, with all that it refers to
    async with database.read(ALL) as session:
        names = {name for (name,) in await session.rows(select(SnapshotChanges.object_id))}
    assert {f"kept {number}" for number in range(3 * STEPS)} <= names
