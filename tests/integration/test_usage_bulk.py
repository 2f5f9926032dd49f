"""Many rows at a time, tables by day and rows that are only added, on both kinds of database."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import ColumnClause, Select, column, delete, false, func, select, text, update
from tests.fakes.postgresql_server import PostgresqlServer
from tests.unit.metering.usage_events import STARTED_AT_NS, arrive, make_event

from penstock.metering import store
from penstock.metering.rules import day_of
from penstock.metering.tables import UsageEvents, UsageProducers, UsageQuarters
from penstock.storage.bulk import HIGH, MAX_SUM, Bulk, Values
from penstock.storage.database import Database
from penstock.storage.errors import RowConflictError
from penstock.storage.partitions import DAYS_AHEAD
from penstock.storage.scope import Scope

ALL = Scope.all_organizations()
TODAY = 40_000
"""Long after every part that a migration makes."""

_PRODUCERS = Bulk(
    UsageProducers,
    (
        "epoch", "producer", "position_segment", "position_offset", "event_count", "first_day",
        "last_day", "seen_at",
    ),
    sums=("event_count",),
    amounts=(("first_day", "position_segment", "position_offset"),),
)  # fmt: skip


def _row(
    epoch: int,
    producer: str = "one",
    *,
    high: int = 0,
    amount: int = 0,
    rest: int = 0,
    count: int = 0,
    at_us: int = 1_750_000_000_123_456,
) -> Values:
    return epoch, producer, amount, rest, count, high, 0, at_us


async def _producers(database: Database) -> list[tuple[object, ...]]:
    async with database.read(ALL) as session:
        columns = [getattr(UsageProducers, name) for name in _PRODUCERS.names]
        rows = await session.rows(select(*columns).order_by(UsageProducers.epoch))
    return [tuple(row) for row in rows]


async def test_many_rows_are_inserted_as_they_are(database: Database) -> None:
    """Every value comes back, in its column, whatever the order of the names."""
    texts = ["", "NULL", "a'b\"c\\d{},NULL", "\\", '"', " new\nline\t\x01 ", "ü\N{PARTY POPPER}"]
    # Before the epoch, and long after a binary fraction has no microseconds left.
    moments = [-1, 0, 1_750_000_000_123_456, 9_223_372_036_854_775, 250_000_000_000_000_001]
    rows = [
        _row(number, texts[number % 7], count=MAX_SUM - number, at_us=moments[number % 5])
        for number in range(1_000)
    ]
    async with database.write(ALL) as session:
        await session.insert_many(_PRODUCERS, rows)
        await session.insert_many(_PRODUCERS, [])
    assert await _producers(database) == rows


async def test_only_new_rows_are_told(database: Database) -> None:
    """Of many rows those are told whose key was not there; the others stay as they were."""
    async with database.write(ALL) as session:
        first = await session.insert_many_new(_PRODUCERS, [_row(1, count=7), _row(2)])
        assert first == {("one", 1), ("one", 2)}
        second = await session.insert_many_new(_PRODUCERS, [_row(1, count=8), _row(3)])
        assert second == {("one", 3)}
        assert await session.insert_many_new(_PRODUCERS, [_row(1)]) == set()
        assert await session.insert_many_new(_PRODUCERS, []) == set()
    assert await _producers(database) == [_row(1, count=7), _row(2), _row(3)]


async def test_a_row_that_is_there_is_refused_where_it_must_be_new(database: Database) -> None:
    """A plain insertion of many fails as a whole, as one of a single row does."""

    async def insert() -> None:
        async with database.write(ALL) as session:
            await session.insert_many(_PRODUCERS, [_row(1), _row(2), _row(1)])

    with pytest.raises(RowConflictError):
        await insert()
    assert await _producers(database) == []


async def test_figures_are_added_up(database: Database) -> None:
    """Sums and exact amounts are added, downwards too, and no sum passes what a column holds."""
    steps = [
        _row(1, amount=1, rest=999_999_999, count=5),
        _row(1, amount=-2, rest=1, count=-2),
        _row(2, count=MAX_SUM - 1),
        _row(2, count=3),
        _row(2, count=MAX_SUM),
        _row(3, count=0),
        _row(3, count=MAX_SUM),
        # What a row has of before the column for the highest part, and all that a new one can have.
        _row(4, amount=MAX_SUM, rest=999_999_999),
        _row(4, high=9, amount=HIGH - 1, rest=999_999_999),
        _row(5, amount=-MAX_SUM),
        _row(5, high=-9, amount=-(HIGH - 1)),
        _row(6, high=1, amount=5),
        _row(6, amount=-7),
    ]
    async with database.write(ALL) as session:
        for step in steps:
            await session.add_many(_PRODUCERS, [step])
        await session.add_many(_PRODUCERS, [])
    assert await _producers(database) == [
        _row(1, amount=0, rest=0, count=3),
        _row(2, count=MAX_SUM),
        _row(3, count=MAX_SUM),
        _row(4, high=19, amount=MAX_SUM % HIGH, rest=999_999_998),
        _row(5, high=-19, amount=1 - MAX_SUM % HIGH),
        _row(6, high=1, amount=-2),
    ]


async def test_events_are_only_added(database: Database) -> None:
    """The database refuses to change or delete a usage event, whoever asks."""
    async with database.write(ALL) as session:
        await store.record_events(session, ALL, arrive(make_event(1)))

    async def change(statement: object) -> None:
        async with database.write(ALL) as session:
            await session.change(statement)  # type: ignore[arg-type]  # of either kind

    for statement in (update(UsageEvents).values(status=418), delete(UsageEvents)):
        with pytest.raises(RowConflictError, match="only added"):
            await change(statement)
    async with database.read(ALL) as reading:
        assert (await reading.rows(select(UsageEvents.status)))[0][0] == 200


@pytest.fixture
async def pg_database(postgresql: PostgresqlServer) -> AsyncIterator[Database]:
    """An empty, migrated PostgreSQL database."""
    name = await postgresql.create()
    database = Database(postgresql.role_dsn(name))
    await database.open()
    yield database
    await database.close()
    await postgresql.drop(name)


def _on(day: int, number: int = 0) -> str:
    text_of_time = f"{day * 86_400_000:012x}"
    return f"{text_of_time[:8]}-{text_of_time[8:]}-7000-8000-{number:012x}"


async def _store(database: Database, *ids: str) -> int:
    arrivals = arrive(*(make_event(event_id=event_id) for event_id in ids))
    async with database.write(ALL) as session:
        return len(await store.record_events(session, ALL, arrivals))


async def _parts(database: Database) -> dict[str, int]:
    """Return how many events are in each part that has any."""
    part = text("tableoid::regclass::text")
    async with database.read(ALL) as session:
        statement = select(part, func.count()).select_from(UsageEvents).group_by(part)
        return {row[0]: row[1] for row in await session.rows(statement)}


async def test_each_day_gets_its_part_ahead(pg_database: Database) -> None:
    """Parts of the next days are created once, and events go to that of their id's day."""
    names = {f"usage_events_{TODAY + ahead}" for ahead in range(DAYS_AHEAD + 1)}
    assert names <= {*await pg_database.create_parts(TODAY)}
    assert await pg_database.create_parts(TODAY) == []
    assert f"usage_events_{TODAY + DAYS_AHEAD + 1}" in await pg_database.create_parts(TODAY + 1)
    assert (
        await _store(pg_database, _on(TODAY), _on(TODAY, 1), _on(TODAY + 2), "made-elsewhere") == 4
    )
    assert await _parts(pg_database) == {
        f"usage_events_{TODAY}": 2,
        f"usage_events_{TODAY + 2}": 1,
        "usage_events_default": 1,
    }


async def test_an_event_counts_once_whenever_its_part_is_made(pg_database: Database) -> None:
    """A day whose events came before its part stays in the default one; they count once there."""
    early = _on(TODAY + 1)
    assert await _store(pg_database, early) == 1
    created = await pg_database.create_parts(TODAY)
    assert f"usage_events_{TODAY + 1}" not in created
    assert f"usage_events_{TODAY + 2}" in created
    assert await _store(pg_database, early, _on(TODAY + 1, 1), _on(TODAY + 2)) == 2
    assert await _store(pg_database, early, _on(TODAY + 1, 1), _on(TODAY + 2)) == 0
    assert await _parts(pg_database) == {
        "usage_events_default": 2,
        f"usage_events_{TODAY + 2}": 1,
    }


async def test_what_is_being_written_keeps_its_day_from_a_part(pg_database: Database) -> None:
    """The first rows of a day may be on their way while parts are made: it has none, others do."""
    arrivals = arrive(make_event(event_id=_on(TODAY)))
    async with asyncio.TaskGroup() as group, pg_database.write(ALL) as session:
        await store.record_events(session, ALL, arrivals)
        creating = group.create_task(pg_database.create_parts(TODAY))
        await _until_somebody_waits(pg_database)
    created = creating.result()
    assert f"usage_events_{TODAY}" not in created
    assert f"usage_events_{TODAY + 1}" in created
    assert f"rated_usage_{TODAY}" in created
    assert await _parts(pg_database) == {"usage_events_default": 1}


async def test_a_day_that_keeps_no_part_locks_nothing(pg_database: Database) -> None:
    """Once all parts are made that can be, whoever writes is not waited for, nor held up."""
    await _store(pg_database, _on(TODAY))
    assert f"usage_events_{TODAY + 1}" in await pg_database.create_parts(TODAY)
    async with asyncio.timeout(20), pg_database.write(ALL) as session:
        await session.rows(_lock("usage_events"))
        assert await pg_database.create_parts(TODAY) == []


async def test_parts_wait_for_nobody_who_waits_for_them(pg_database: Database) -> None:
    """Who writes into one table, then into the other, ends, whatever order parts are made in."""
    names = "usage_events", "rated_usage"
    for day, (first, other) in enumerate((names, names[::-1]), TODAY):
        async with asyncio.TaskGroup() as group, pg_database.write(ALL) as session:
            await session.rows(_lock(first))
            creating = group.create_task(pg_database.create_parts(day))
            await _until_somebody_waits(pg_database)
            await session.rows(_lock(other))
        assert {f"{name}_{day + DAYS_AHEAD}" for name in names} <= {*creating.result()}


def _lock(table: str) -> Select[int]:
    """Return what has a table's lock as whoever writes has it, and writes nothing."""
    day: ColumnClause[int] = column("day")
    return select(day).select_from(text(table)).where(false()).with_for_update()


async def _until_somebody_waits(database: Database) -> None:
    """Return once a lock of a table is asked for and not given."""
    locks = text("pg_locks JOIN pg_database ON pg_database.oid = database")
    here = text("datname = current_database() AND NOT granted AND locktype = 'relation'")
    statement = select(func.count()).select_from(locks).where(here)
    async with asyncio.timeout(20):
        while True:
            async with database.read(ALL) as session:
                if (await session.rows(statement))[0][0]:
                    return
            await asyncio.sleep(0.01)


async def test_nobody_sees_a_part_around_the_table(pg_database: Database) -> None:
    """Asked directly, parts show no row, not even to the platform; changes are refused there."""
    await pg_database.create_parts(TODAY)
    await _store(pg_database, _on(TODAY), "made-elsewhere")
    async with pg_database.read(ALL) as session:
        for part in (f"usage_events_{TODAY}", "usage_events_default"):
            statement = select(func.count()).select_from(text(part))
            assert (await session.rows(statement))[0][0] == 0


async def test_sqlite_keeps_tables_in_one_piece(database: Database) -> None:
    """Where there are no parts none are created."""
    if not isinstance(database.location, str):
        assert await database.create_parts(TODAY) == []
    assert day_of(_on(TODAY)) == TODAY


async def test_the_hour_of_an_event_is_that_of_its_start(database: Database) -> None:
    """Moments come back as they were given, in bulk as one by one."""
    hours = Bulk(UsageQuarters, ("organization", "at", *_REST), sums=())
    started_at_us = STARTED_AT_NS // 1_000
    async with database.write(ALL) as session:
        row = ("acme", started_at_us, "p", "k", "m", "", "", *[1] * 9)
        await session.insert_many(hours, [row])
    async with database.read(ALL) as reading:
        assert (await reading.rows(select(UsageQuarters.at)))[0][0] == started_at_us


_REST = (
    "project", "key_id", "model", "data_class", "region", "requests", "input", "cached_input",
    "cache_write_input", "audio_input", "output", "reasoning_output", "audio_output", "images",
)  # fmt: skip
