"""Schema migrations, run by the program itself at its start."""

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, func, literal, select
from sqlalchemy.ext.asyncio import AsyncEngine

from penstock.storage.errors import SchemaUnknownError
from penstock.storage.postgresql import PLATFORM_SETTING

_SCRIPTS = "penstock.storage:migrations"
_MIGRATION_LOCK = 0x70656E74
"""Of PostgreSQL's advisory locks; SQLite has one writer anyway."""


async def upgrade(engine: AsyncEngine, revision: str = "head") -> None:
    """Bring the schema up to a revision, in one transaction; nothing happens when it is there.

    Processes that start at the same time wait for each other.

    Raises:
        SchemaUnknownError: The database has a revision that this version does not know.
    """
    async with engine.begin() as connection:
        await connection.run_sync(_upgrade, revision)


async def downgrade(engine: AsyncEngine, revision: str) -> None:
    """Take the schema down to a revision, `base` for none, in one transaction.

    Data that the older schema has no place for is lost.
    """
    async with engine.begin() as connection:
        await connection.run_sync(
            lambda sync_connection: command.downgrade(_configure(sync_connection), revision)
        )


def _configure(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", _SCRIPTS)
    config.attributes["connection"] = connection
    return config


def _upgrade(connection: Connection, revision: str) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        connection.execute(
            select(func.set_config(literal(PLATFORM_SETTING), literal("on"), True))  # noqa: FBT003 - local to the transaction
        )
    config = _configure(connection)
    scripts = ScriptDirectory.from_config(config)
    for current in MigrationContext.configure(connection).get_current_heads():
        try:
            scripts.get_revision(current)
        except CommandError as error:
            raise SchemaUnknownError from error
    command.upgrade(config, revision)
