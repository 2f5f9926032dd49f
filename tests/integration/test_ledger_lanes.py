"""Checks of the books run side by side, and leave connections to those that must be quick."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from tests.fakes.ledger_rig import post, posting
from tests.fakes.organizations import ALL

from penstock.ledger.verifying import verify
from penstock.storage import engine as sqlite
from penstock.storage import postgresql
from penstock.storage.database import Database
from penstock.storage.errors import DatabaseUnavailableError
from penstock.storage.sessions import ReadSession


async def test_long_reads_leave_half_of_the_connections(database: Database) -> None:
    """Whoever reads for long waits while half of the connections do; who is quick does not."""
    is_postgresql = postgresql.is_dsn(database.location)
    connections = (postgresql if is_postgresql else sqlite).READ_CONNECTIONS
    async with AsyncExitStack() as stack:
        for _ in range(connections // 2):
            await stack.enter_async_context(database.read(ALL, is_long=True))
        verified = asyncio.create_task(verify(lambda: database.read(ALL, is_long=True)))
        await database.check()
        assert not verified.done()
    assert await verified == []


async def test_checks_run_side_by_side(database: Database) -> None:
    """Several checks have a session at the same time, and never more than there are lanes."""
    await post(database, posting(1, cost=1))
    now, most = 0, 0
    side_by_side = asyncio.Event()

    @asynccontextmanager
    async def read() -> AsyncIterator[ReadSession]:
        nonlocal now, most
        async with database.read(ALL, is_long=True) as session:
            now += 1
            most = max(most, now)
            if now == 2:
                side_by_side.set()
            # A server may take longer to open the second one than the first one takes for all.
            await side_by_side.wait()
            yield session
            now -= 1

    async with asyncio.timeout(60):
        await verify(read, lanes=2)
    assert (now, most) == (0, 2)


async def test_a_check_that_fails_ends_the_others(database: Database) -> None:
    """What the database cannot do now is told as it is, and no check is left running."""
    opened = 0

    @asynccontextmanager
    async def read() -> AsyncIterator[ReadSession]:
        nonlocal opened
        opened += 1
        if opened == 2:
            raise DatabaseUnavailableError
        async with database.read(ALL, is_long=True) as session:
            yield session

    with pytest.raises(DatabaseUnavailableError):
        await verify(read, lanes=2)
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "verify"]


async def test_a_cancelled_check_is_cancelled_once(database: Database) -> None:
    """Checks that are given up have the time to close what they read with."""
    waiting = asyncio.Semaphore(0)
    cancelled: list[int] = []

    @asynccontextmanager
    async def read() -> AsyncIterator[ReadSession]:
        async with database.read(ALL, is_long=True) as session:
            waiting.release()
            try:
                await asyncio.Event().wait()
            finally:
                # The second has to close when the first has ended.
                for _ in range(10 * len(cancelled)):
                    await asyncio.sleep(0)
                mine = asyncio.current_task()
                assert mine is not None
                cancelled.append(mine.cancelling())
            yield session

    verified = asyncio.create_task(verify(read, lanes=2))
    for _ in range(2):
        await waiting.acquire()
    verified.cancel()
    await asyncio.wait([verified])
    assert verified.cancelled()
    assert cancelled == [1, 1]
