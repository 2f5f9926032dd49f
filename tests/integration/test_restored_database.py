"""C8: a database that is restored from a copy gets back what nodes still have, each event once."""

import asyncio
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

from sqlalchemy import func, select
from tests.fakes.fake_worker import FakeJournal, make_event, make_open
from tests.fakes.postgresql_server import PostgresqlServer
from tests.fakes.rated_usage import RatedUsage
from tests.fakes.usage_room import RoomStore

from penstock.contract.journal import Close
from penstock.control.books import UsageBooks
from penstock.kit.clock import ManualClock
from penstock.ledger.chain import read_chain
from penstock.metering.tables import UsageEvents
from penstock.node.checkpoints import Checkpoints
from penstock.node.shipper import Shipper
from penstock.storage.database import Database
from penstock.storage.scope import Scope

STARTED_DAY = 1_750_000_000 // 86_400
"""When these requests began."""

Copy = Callable[[], Awaitable[Callable[[], Awaitable[Database]]]]
"""Copies the database; what it returns opens the copy in its place."""


class Node:
    """Journals of two workers, and a shipper."""

    def __init__(self, folder: Path, store: RoomStore) -> None:
        """Make them in a folder."""
        for name in ("journal", "shipper"):
            (folder / name).mkdir()
        self.journals = [FakeJournal(folder / "journal", slot, slot + 1) for slot in (0, 1)]
        self.clock = ManualClock(now_ns=1_800_000_000 * 10**9)
        self.count = 0
        self.shipper = Shipper(
            journals=folder / "journal",
            checkpoints=Checkpoints(folder / "shipper"),
            refused=folder / "refused",
            node_id="node-test",
            store=store,
            clock=self.clock,
            random=lambda: 0.5,
            retention_s=72 * 3600.0,
        )

    def serve(self, count: int) -> None:
        """Let the workers serve requests."""
        for journal in self.journals:
            for _ in range(count):
                opened = make_open(f"event-{self.count}")
                self.count += 1
                journal.write(opened)
                journal.write(Close(make_event(opened)))

    async def ship(self) -> None:
        """Ship all, and ask what is stored."""
        for _ in range(8):
            self.clock.advance(61)
            await self.shipper.ship_once()


async def _totals(database: Database) -> tuple[int, int]:
    """Return how many events are stored, and their output tokens."""
    statement = select(func.count(), func.sum(UsageEvents.output_tokens))
    async with database.read(Scope.all_organizations()) as session:
        count, tokens = (await session.rows(statement))[0]
    return count, int(tokens)


async def _is_booked(database: Database, count: int) -> None:
    """Every event is rated and booked once, and figures say the same."""
    async with database.read(Scope.all_organizations()) as session:
        chain = await read_chain(session, 0)  # ids of these events have no time in them
        figures = await read_chain(session, STARTED_DAY)
    assert sum(link.events for link in chain.links) == count
    assert sum(link.rated for link in chain.links) == count
    assert all(link.is_whole for link in chain.links)
    assert chain.differences == figures.differences == []


async def _check(folder: Path, database: Database, copy: Copy) -> None:
    await RatedUsage(database).set_price("emulated-70b")
    store = RoomStore(database, UsageBooks("EUR"))
    node = Node(folder, store)
    node.serve(30)
    await node.ship()
    assert await _totals(database) == (60, 60 * 11)
    restore = await copy()
    node.serve(40)
    await node.ship()
    node.journals[0].write(make_open("interrupted"))
    node.journals[0].die()  # and is done: nothing is on its way any more
    await node.ship()
    assert (await _totals(database))[0] == 141
    store.database = None
    await node.ship()
    restored = store.database = await restore()
    assert await _totals(restored) == (60, 60 * 11)
    await node.ship()
    assert await _totals(restored) == (141, 140 * 11)
    assert store.stored == 141 + 81
    assert node.shipper.totals.set_back == 2
    await node.ship()
    assert node.shipper.totals.set_back == 2
    await _is_booked(restored, 141)


async def test_a_restored_sqlite_file_is_filled_again(
    sqlite_template: Path, tmp_path: Path
) -> None:
    """What was stored since the copy comes back, from living journals and from done ones."""
    path, kept = tmp_path / "usage.db", tmp_path / "copy.db"
    await asyncio.to_thread(shutil.copy, sqlite_template, path)
    database = Database(path)
    await database.open()
    opened = [database]

    def back_up() -> None:
        with sqlite3.connect(path) as source, sqlite3.connect(kept) as target:
            source.backup(target)
        source.close()
        target.close()

    async def copy() -> Callable[[], Awaitable[Database]]:
        await asyncio.to_thread(back_up)

        async def restore() -> Database:
            await opened.pop().close()
            restored = Database(kept)
            await restored.open()
            opened.append(restored)
            return restored

        return restore

    try:
        await _check(tmp_path, database, copy)
    finally:
        for one in opened:
            await one.close()


async def test_a_restored_postgresql_database_is_filled_again(
    postgresql: PostgresqlServer, tmp_path: Path
) -> None:
    """The same on PostgreSQL."""
    name = await postgresql.create()
    database = Database(postgresql.role_dsn(name))
    await database.open()
    opened, kept = [database], f"{name}_copy"

    async def copy() -> Callable[[], Awaitable[Database]]:
        await database.close()  # a database that is in use cannot be copied
        await postgresql.execute(f"CREATE DATABASE {kept} TEMPLATE {name} STRATEGY FILE_COPY")
        await database.open()

        async def restore() -> Database:
            await opened.pop().close()
            restored = Database(postgresql.role_dsn(kept))
            await restored.open()
            opened.append(restored)
            return restored

        return restore

    try:
        await _check(tmp_path, database, copy)
    finally:
        for one in opened:
            await one.close()
        for made in (kept, name):
            await postgresql.drop(made)
