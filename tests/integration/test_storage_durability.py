"""What was written is there after a crash of the database, however many wrote at once."""

import asyncio
import signal
from collections.abc import Iterator

import pytest
from tests.fakes.postgresql_server import Cluster, run_cluster

from penstock.storage.changes import list_changes, record_change
from penstock.storage.database import Database
from penstock.storage.errors import DatabaseUnavailableError
from penstock.storage.scope import Scope

ALL = Scope.all_organizations()
WRITERS = 12
CRASHES = 3


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A server that can be ended, and that keeps its promises."""
    with run_cluster(is_durable=True) as cluster:
        asyncio.run(cluster.server.prepare())
        yield cluster


async def _names(database: Database) -> set[str]:
    async with database.read(ALL) as session:
        return {name for _, _, name in await list_changes(session, 0, 10_000)}


async def test_what_was_confirmed_survives_a_crash(cluster: Cluster) -> None:
    """The database ends the moment that a writer is confirmed, and all confirmed rows are there."""
    database = Database(cluster.server.role_dsn(await cluster.server.create()))
    await database.open()
    confirmed: set[str] = set()

    async def write(name: str, crash: asyncio.Event) -> None:
        try:
            async with database.write(ALL, is_alone=True) as session:
                await record_change(session, "key", name, 1)
        except DatabaseUnavailableError:
            return  # nobody was told that it is there
        confirmed.add(name)
        if len(confirmed) % WRITERS == WRITERS // 2:
            crash.set()

    for number in range(CRASHES):
        crash = asyncio.Event()
        writers = [
            asyncio.create_task(write(f"{number}-{writer}", crash)) for writer in range(WRITERS)
        ]
        await asyncio.wait_for(crash.wait(), 60)
        # Without another turn of this loop: what is confirmed now is all that was promised.
        cluster.stop(signal.SIGQUIT)
        await asyncio.gather(*writers)
        await asyncio.to_thread(cluster.start)
        assert await _names(database) >= confirmed
    await database.close()
    assert len(confirmed) >= CRASHES


async def test_who_gives_up_waiting_takes_nothing_from_others(cluster: Cluster) -> None:
    """A writer that is cancelled while it waits for the disk leaves the others confirmed."""
    database = Database(cluster.server.role_dsn(await cluster.server.create()))
    await database.open()

    async def write(name: str) -> None:
        async with database.write(ALL, is_alone=True) as session:
            await record_change(session, "key", name, 1)

    writers = [asyncio.create_task(write(str(number))) for number in range(WRITERS)]
    await asyncio.wait(writers, return_when=asyncio.FIRST_COMPLETED)
    for writer in writers[::3]:
        writer.cancel()
    outcomes = await asyncio.gather(*writers, return_exceptions=True)
    done = {str(number) for number, outcome in enumerate(outcomes) if outcome is None}
    assert len(done) >= WRITERS // 2
    assert await _names(database) >= done
    await write("after")
    assert "after" in await _names(database)
    await database.close()
