"""Migrated, empty databases of either kind, quickly."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.fakes.postgresql_server import PostgresqlServer

from penstock.storage.database import Database
from penstock.storage.scope import Scope


def create_template(folder: Path) -> Path:
    """Return a migrated SQLite file to copy, which is quicker than to migrate."""
    path = folder / "template.db"

    async def create() -> None:
        database = Database(path)
        await database.open()
        await database.close()

    asyncio.run(create())
    return path


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
async def postgresql_database(server: PostgresqlServer) -> AsyncIterator[Database]:
    """Hand out a database of its own on a server."""
    name = await server.create()
    database = Database(server.role_dsn(name))
    await database.open()
    try:
        yield database
    finally:
        await database.close()
        await server.drop(name)
