"""The change feed: whoever follows it misses nothing, and is told nothing that did not happen."""

import asyncio
from itertools import chain

import pytest
from sqlalchemy import literal, select

from penstock.storage.changes import get_last_change, list_changes, record_change
from penstock.storage.database import Database
from penstock.storage.scope import Scope

ALL = Scope.all_organizations()


async def test_changes_are_numbered_in_order_of_commit(database: Database) -> None:
    """Who follows the change feed misses nothing, however many transactions write at once."""
    seen: list[int] = []
    is_done = asyncio.Event()
    # Some lock the configuration from their beginning, some later; some make one change, some more.
    names = {
        number: [f"key-{number}-{part}" for part in range(1 + number % 3)] for number in range(30)
    }

    async def write(number: int) -> None:
        async with database.write(ALL, is_alone=number % 2 == 0) as session:
            for name in names[number]:
                await record_change(session, "key", name, number)
            await asyncio.sleep(0.001 * (number % 4))

    async def follow() -> None:
        while not (is_done.is_set() and len(seen) >= sum(map(len, names.values()))):
            async with database.read(ALL) as session:
                changes = await list_changes(session, seen[-1] if seen else 0, 7)
            seen.extend(seq for seq, _, _ in changes)
            await asyncio.sleep(0)

    follower = asyncio.create_task(follow())
    await asyncio.gather(*map(write, names))
    is_done.set()
    await asyncio.wait_for(follower, 20)
    async with database.read(ALL) as session:
        stored = await list_changes(session, 0, 100)
        assert await get_last_change(session) == stored[-1][0]
    assert seen == [seq for seq, _, _ in stored]
    assert sorted(object_id for _, _, object_id in stored) == sorted(
        chain.from_iterable(names.values())
    )


async def test_a_change_that_was_rolled_back_is_not_told(database: Database) -> None:
    """A change is in the feed if and only if it happened."""

    async def fail() -> None:
        async with database.write(ALL) as session:
            await record_change(session, "key", "a", 1)
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    async with database.read(ALL) as session:
        assert await get_last_change(session) == 0
        assert await session.first(select(literal(1)).where(literal(1) == 0)) is None
