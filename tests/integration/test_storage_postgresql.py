"""Sessions of PostgreSQL, and what is told of a server that is slow, away or read-only."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Text, cast, column, func, select, table, text
from sqlalchemy.exc import DBAPIError
from tests.fakes.databases import (
    count_events,
    current_database,
    postgresql_database,
    write_event,
)
from tests.fakes.postgresql_server import PostgresqlServer

from penstock.audit.tables import AuditHeads
from penstock.metering.tables import UsageEvents
from penstock.storage import migrate
from penstock.storage import postgresql as pg
from penstock.storage.database import Database
from penstock.storage.errors import DatabaseUnavailableError, RowConflictError
from penstock.storage.scope import Scope

ALL = Scope.all_organizations()
HASTE_MS = 500
"""Of a server that waits for no statement longer."""


@pytest.fixture
async def hasty(postgresql: PostgresqlServer) -> AsyncIterator[Database]:
    """An empty, migrated database of a server that ends statements soon."""
    async with postgresql_database(postgresql, HASTE_MS) as database:
        yield database


async def test_a_read_session_cannot_write(pg_database: Database) -> None:
    """Whatever statement a read session is given, PostgreSQL refuses to write."""
    with pytest.raises(DBAPIError, match="read-only"):
        async with pg_database.read(ALL) as session:
            await session._connection.execute(text("DELETE FROM usage_events"))


async def test_a_read_session_sees_one_state(pg_database: Database) -> None:
    """What others commit meanwhile is not seen by a session that has begun to read."""
    async with pg_database.read(ALL) as session:
        count = select(func.count(UsageEvents.event_id))
        assert (await session.rows(count))[0][0] == 0
        async with pg_database.write(ALL) as other:
            await write_event(other, 1)
        assert (await session.rows(count))[0][0] == 0
    assert await count_events(pg_database, ALL) == 1


async def test_a_statement_ends_in_time(hasty: Database) -> None:
    """A statement that runs too long is ended by the server and counts as unavailable."""
    with pytest.raises(DatabaseUnavailableError):
        async with hasty.read(ALL) as session:
            await session.rows(select(cast(func.pg_sleep(5), Text)))
    await hasty.check()


async def test_a_migration_takes_as_long_as_it_needs(hasty: Database) -> None:
    """A migration that waits for another process' is not ended as statements of requests are."""
    async with hasty.write(ALL) as session:
        held = select(func.pg_advisory_xact_lock(migrate._MIGRATION_LOCK))
        await session._connection.execute(held)
        upgraded = asyncio.create_task(hasty.open())
        await asyncio.sleep(3 * HASTE_MS / 1_000)
        assert not upgraded.done()
    await upgraded


async def test_a_server_that_is_away_is_unavailable(
    postgresql: PostgresqlServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A refused connection, a missing database and a missing socket are one kind of error."""
    addresses = [
        "postgresql://penstock:hunter2@127.0.0.1:1/none",
        f"postgresql://penstock:hunter2@/none?host={tmp_path}",
        postgresql.role_dsn("never_made"),
    ]
    for address in addresses:
        database = Database(address)
        with caplog.at_level(logging.WARNING), pytest.raises(DatabaseUnavailableError):
            await database.open()
        with pytest.raises(DatabaseUnavailableError):
            await database.check()
        await database.close()
    assert "hunter2" not in caplog.text


async def test_ended_connections_are_replaced(
    postgresql: PostgresqlServer, pg_database: Database
) -> None:
    """After the server ended all connections the next session works."""
    assert await count_events(pg_database, ALL) == 0
    await postgresql.disconnect(await current_database(pg_database))
    assert await count_events(pg_database, ALL) == 0


async def test_a_connection_that_breaks_is_unavailable(
    postgresql: PostgresqlServer, pg_database: Database
) -> None:
    """A connection that is ended in the middle of a use case fails it as unavailable."""
    name = await current_database(pg_database)

    async def write_and_break() -> None:
        async with pg_database.write(ALL) as session:
            await write_event(session, 1)
            await postgresql.disconnect(name)
            await write_event(session, 2)

    with pytest.raises(DatabaseUnavailableError):
        await write_and_break()
    assert await count_events(pg_database, ALL) == 0


async def test_a_server_that_takes_no_writes_is_unavailable(
    postgresql: PostgresqlServer, pg_database: Database
) -> None:
    """After a failover to one that is read-only nothing is a bug of ours, and the next is asked."""
    name = await _forbid_writes(postgresql, pg_database)
    with pytest.raises(DatabaseUnavailableError):
        await _write(pg_database)
    assert await count_events(pg_database, ALL) == 0
    # The connection stays read-only, as one to a primary that is demoted and not stopped.
    await postgresql.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    await _write(pg_database)
    assert await count_events(pg_database, ALL) == 1


async def test_connections_that_are_given_up_are_closed(
    postgresql: PostgresqlServer, pg_database: Database
) -> None:
    """However often a server that takes no writes is tried, none is left for the collector."""
    await _forbid_writes(postgresql, pg_database)
    gc.disable()
    try:
        for _ in range(5):
            with pytest.raises(DatabaseUnavailableError):
                await _write(pg_database)
        async with asyncio.timeout(20):
            while await _count_connections(pg_database) > 1:  # noqa: ASYNC110 - nobody would tell
                await asyncio.sleep(0.05)
    finally:
        gc.enable()


async def _forbid_writes(postgresql: PostgresqlServer, database: Database) -> str:
    """Let new connections only read, end those that are there, and return the database's name."""
    name = await current_database(database)
    await postgresql.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await postgresql.disconnect(name)
    return name


async def _write(database: Database) -> None:
    async with database.write(ALL) as session:
        await write_event(session, 1)


async def _count_connections(database: Database) -> int:
    """Return how many there are, with the one that asks."""
    activity = table("pg_stat_activity", column("datname"))
    mine = activity.c.datname == func.current_database()
    async with database.read(ALL) as session:
        return (await session.rows(select(func.count()).select_from(activity).where(mine)))[0][0]


@pytest.mark.parametrize("address", ["postgresql://[", "postgresql://a:b:c@x:port/y"])
def test_an_address_that_cannot_be_read_is_refused(address: str) -> None:
    """The error of a malformed address does not repeat it: it may hold a password."""
    with pytest.raises(ValueError, match="postgresql://user@host/name") as caught:
        Database(address)
    assert address not in str(caught.value)


def test_the_word_of_libpq_for_encryption_is_understood() -> None:
    """`sslmode` of an address becomes what the driver calls ssl."""
    url = pg.parse_dsn("postgresql://a@b/c?sslmode=require")
    assert url.query == {"ssl": "require"}
    assert url.drivername == "postgresql+asyncpg"


async def test_a_broken_rule_is_an_error_of_its_own(database: Database) -> None:
    """What stands against a row is told apart from a database that is away."""

    async def write_twice() -> None:
        async with database.write(ALL) as session:
            row = {"chain": "a", "number": 1, "hash": b""}
            await session.insert(AuditHeads, row, row)

    with pytest.raises(RowConflictError):
        await write_twice()
