"""What is read behind a mark, while transactions that were there before it are really open."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import pytest
from tests.fakes.databases import postgresql_database
from tests.fakes.organizations import ALL, NOW_US, actor
from tests.fakes.postgresql_server import PostgresqlServer
from tests.unit.metering.usage_events import STARTED_AT_NS, make_event

from penstock.contract.usage import UsageBatch
from penstock.control.books import UsageBooks
from penstock.control.ratings import post_differences
from penstock.kit.errors import PenstockError
from penstock.metering import service as metering
from penstock.notices import service as notices
from penstock.notices.model import Notice
from penstock.rating.errors import RUN_WAITS
from penstock.rating.model import Run
from penstock.rating.runs import begin_run, continue_run
from penstock.storage.database import Database
from penstock.storage.sessions import WriteSession

HOUR_US = 3_600_000_000
READERS_S = 60.0


@pytest.fixture
async def database(postgresql: PostgresqlServer) -> AsyncIterator[Database]:
    """An empty PostgreSQL database."""
    async with postgresql_database(postgresql) as database:
        yield database


async def _tell(session: WriteSession, *keys: str) -> None:
    told = [Notice("budget.alert", "acme", key, {}) for key in keys]
    await notices.record_notices(session, told, NOW_US)


async def _read(database: Database, after: str | None, limit: int = 100) -> tuple[list[str], str]:
    async with database.read(ALL) as session:
        found, cursor = await notices.list_notices(session, after, limit=limit)
    return [one.key for one in found], cursor


async def test_a_notice_of_an_open_transaction_is_waited_for(database: Database) -> None:
    """One that was written before it and is committed after it is not skipped (C11)."""
    async with database.write(ALL) as late:
        await _tell(late, "first")
        async with database.write(ALL) as early:
            await _tell(early, "second")
        keys, cursor = await _read(database, None)
        assert keys == []
    keys, cursor = await _read(database, cursor)
    assert keys == ["first", "second"]
    assert await _read(database, cursor) == ([], cursor)


async def test_numbers_of_notices_decide_nothing(database: Database) -> None:
    """A lower number in a later transaction is behind the cursor of a higher one (C11)."""
    async with database.write(ALL) as later:
        async with database.write(ALL) as earlier:
            await _tell(earlier, "a")
            await _tell(later, "b")
            await _tell(earlier, "c")
        keys, cursor = await _read(database, None)
        assert keys == ["a", "c"]
    assert (await _read(database, cursor))[0] == ["b"]


async def test_every_committed_notice_is_read_once(database: Database) -> None:
    """Writers take long, and roll back; a reader misses none and repeats none (I10)."""
    pick = random.Random(11)
    committed: set[str] = set()

    async def write(writer: int) -> None:
        for turn in range(6):
            keys = {f"{writer}/{turn}/{place}" for place in range(pick.randrange(1, 4))}
            pauses = [pick.random() / 50 for _ in keys]
            is_kept = pick.random() < 0.7
            with contextlib.suppress(ZeroDivisionError):
                async with database.write(ALL) as session:
                    for key, pause in zip(sorted(keys), pauses, strict=True):
                        await _tell(session, key)
                        await asyncio.sleep(pause)
                    _ = 1 // is_kept
            if is_kept:
                committed.update(keys)

    writing = asyncio.gather(*(write(writer) for writer in range(5)))
    seen: list[str] = []
    cursor: str | None = None
    async with asyncio.timeout(READERS_S):
        while True:
            is_over = writing.done()
            keys, cursor = await _read(database, cursor, limit=3)
            seen += keys
            if is_over and not keys:
                break
    await writing
    assert len(seen) == len({*seen})
    assert {*seen} == committed


async def _store(session: WriteSession, number: int) -> None:
    batch = UsageBatch(f"node-{number}/0", 1, (make_event(number),))
    delivery = metering.prepare_batch(batch, NOW_US)
    await metering.record_events(session, ALL, [delivery], UsageBooks("EUR"))


async def _begin(database: Database) -> Run:
    async with database.write(ALL) as session:
        return await begin_run(
            session,
            actor(),
            since_us=STARTED_AT_NS // 1_000 - HOUR_US,
            until_us=STARTED_AT_NS // 1_000 + HOUR_US,
            book_id=None,
            organization=None,
            reason="",
        )


async def _go_on(database: Database, run: Run) -> Run:
    async with database.write(ALL) as session:
        return await continue_run(session, actor(), run.id, post_differences)


async def test_a_run_waits_for_usage_that_is_being_stored(database: Database) -> None:
    """What a transaction stores that was open when a run began is in it: it waits (C15)."""
    async with database.write(ALL) as open_one:
        await _store(open_one, 1)
        run = await _begin(database)
        with pytest.raises(PenstockError) as refused:
            await _go_on(database, run)
        assert refused.value.error is RUN_WAITS
    run = await _go_on(database, run)
    assert (run.event_count, run.finished_at_us is not None) == (1, True)


async def test_the_next_run_finds_what_a_run_left_out(database: Database) -> None:
    """What a transaction stores that began after a run is left out, and in the next (C15)."""
    run = await _begin(database)
    async with database.write(ALL) as open_one:
        await _store(open_one, 1)
        run = await _go_on(database, run)
        assert (run.event_count, run.finished_at_us is not None) == (0, True)
        following = await _begin(database)
        with pytest.raises(PenstockError):
            await _go_on(database, following)
    assert (await _go_on(database, following)).event_count == 1
