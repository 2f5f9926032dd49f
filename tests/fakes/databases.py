"""Migrated, empty databases of either kind, quickly."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection
from tests.fakes.postgresql_server import PostgresqlServer
from tests.unit.metering.usage_events import arrive, make_event

from penstock.metering import store
from penstock.metering.tables import UsageEvents
from penstock.storage.database import Database
from penstock.storage.postgresql import STATEMENT_TIMEOUT_MS
from penstock.storage.scope import Scope
from penstock.storage.sessions import WriteSession


def create_template(folder: Path) -> Path:
    """Return a migrated SQLite file to copy, which is quicker than to migrate."""
    path = folder / "template.db"

    async def create() -> None:
        database = Database(path)
        await database.open()
        await database.close()

    asyncio.run(create())
    return path


async def write_event(session: WriteSession, number: int, organization: str = "acme") -> None:
    """Store the usage event with a number, and nothing that follows from it."""
    arrivals = arrive(make_event(number, organization=organization))
    await store.record_events(session, Scope.all_organizations(), arrivals)


async def count_events(database: Database, scope: Scope) -> int:
    """Return how many usage events a session sees that says nothing of whose."""
    async with database.read(scope) as session:
        return (await session.rows(select(func.count(UsageEvents.event_id))))[0][0]


async def forget_usage(database: Database) -> None:
    """Remove all usage events behind the back of the triggers that stand against it."""
    async with database.write(Scope.all_organizations()) as session:
        connection = session._connection
        if connection.dialect.name == "postgresql":
            await connection.exec_driver_sql("ALTER TABLE usage_events DISABLE TRIGGER USER")
            await connection.exec_driver_sql("DELETE FROM usage_events")
            await connection.exec_driver_sql("ALTER TABLE usage_events ENABLE TRIGGER USER")
            return
        made = "SELECT sql FROM sqlite_master WHERE name = 'usage_events_no_delete'"
        (trigger,) = (await connection.exec_driver_sql(made)).scalars()
        await connection.exec_driver_sql("DROP TRIGGER usage_events_no_delete")
        await connection.exec_driver_sql("DELETE FROM usage_events")
        await connection.exec_driver_sql(trigger)


async def until_somebody_waits(connection: AsyncConnection) -> None:
    """Return once a lock is waited for in this database of PostgreSQL, whatever goes on in others.

    Locks of rows say nothing of a database; who waits for one has others, which do.
    """
    waiting = text(
        "SELECT 1 FROM pg_locks AS wanted JOIN pg_locks AS held USING (pid) "
        "JOIN pg_database ON pg_database.oid = held.database "
        "WHERE NOT wanted.granted AND datname = current_database()"
    )
    async with asyncio.timeout(60):
        while not (await connection.execute(waiting)).all():  # noqa: ASYNC110 - nobody would tell
            await asyncio.sleep(0.02)


async def current_database(database: Database) -> str:
    """Return the name of a database of PostgreSQL."""
    async with database.read(Scope.all_organizations()) as session:
        return str((await session.rows(select(func.current_database())))[0][0])


@asynccontextmanager
async def sqlite_database(template: Path, folder: Path) -> AsyncIterator[Database]:
    """Hand out a copy of the template."""
    database = Database(Path(shutil.copy(template, folder / "usage.db")))
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def postgresql_database(
    server: PostgresqlServer, statement_timeout_ms: int = STATEMENT_TIMEOUT_MS
) -> AsyncIterator[Database]:
    """Hand out a database of its own on a server."""
    name = await server.create()
    database = Database(server.role_dsn(name), statement_timeout_ms=statement_timeout_ms)
    await database.open()
    try:
        yield database
    finally:
        await database.close()
        await server.drop(name)
