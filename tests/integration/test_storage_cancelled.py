"""Sessions that are cancelled, at every step: nothing of them stays, no lock either."""

import asyncio
import threading
from pathlib import Path

from sqlalchemy import func, literal, select
from tests.fakes.databases import sqlite_database
from tests.fakes.organizations import ALL

from penstock.storage.changes import SnapshotChanges, record_change
from penstock.storage.database import Database

STEPS = 40

_NUMBERS = select(literal(1).label("number")).cte(recursive=True)
_NUMBERS = _NUMBERS.union_all(select(_NUMBERS.c.number + 1).where(_NUMBERS.c.number < 500_000))
SLOW = select(func.count()).select_from(_NUMBERS)
"""Takes SQLite some tenth of a second."""


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


async def test_who_is_cancelled_again_while_closing_ends(
    sqlite_template: Path, tmp_path: Path
) -> None:
    """What a reader leaves that is cancelled twice ends with its loop, and its thread does too."""
    before = asyncio.all_tasks()

    async def read(database: Database, begun: asyncio.Event) -> None:
        async with database.read(ALL) as session:
            begun.set()
            await session.rows(SLOW)

    async with sqlite_database(sqlite_template, tmp_path) as database:
        for number in range(10):
            begun = asyncio.Event()
            reading = asyncio.create_task(read(database, begun))
            await begun.wait()
            await asyncio.sleep(number * 0.003)
            while not reading.done():
                reading.cancel()
                await asyncio.sleep(0)
            left = asyncio.all_tasks() - before
            for task in left:
                task.cancel()
            if left:
                _, endless = await asyncio.wait(left, timeout=30.0)
                assert not endless
        await _write(database, "kept")
    for thread in threading.enumerate():
        if "connection_worker" in thread.name:
            await asyncio.to_thread(thread.join, 30.0)
            assert not thread.is_alive()
