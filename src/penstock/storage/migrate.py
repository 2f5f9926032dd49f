"""Schema migrations, run by the program itself at its start."""

import functools
from importlib import resources
from typing import TYPE_CHECKING

from sqlalchemy import Connection, column, func, inspect, select, table, text
from sqlalchemy.ext.asyncio import AsyncEngine

from penstock.storage.errors import SchemaUnknownError
from penstock.storage.postgresql import PLATFORM_SETTING

if TYPE_CHECKING:
    from alembic.config import Config

_SCRIPTS = "penstock.storage:migrations"
_MIGRATION_LOCK = 0x70656E74
"""Of PostgreSQL's advisory locks; SQLite has one writer anyway."""
_VERSIONS = table("alembic_version", column("version_num"))


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
    from alembic import command  # noqa: PLC0415  # start-up time: few starts migrate

    async with engine.begin() as connection:
        await connection.run_sync(_prepare)
        await connection.run_sync(
            lambda sync_connection: command.downgrade(configure(sync_connection), revision)
        )


def configure(connection: Connection | None = None) -> "Config":
    """Return what Alembic works by: our migrations, and the connection to run them on."""
    from alembic.config import Config  # noqa: PLC0415  # start-up time: few starts migrate

    config = Config()
    config.set_main_option("script_location", _SCRIPTS)
    config.attributes["connection"] = connection
    return config


@functools.cache
def newest_revision() -> str:
    """Return the revision that `head` stands for: the greatest in the names of the migrations."""
    folder = resources.files("penstock.storage.migrations") / "versions"
    return max(file.name[1:5] for file in folder.iterdir() if file.name.startswith("v"))


def _upgrade(connection: Connection, revision: str) -> None:
    _prepare(connection)
    current = _read_revisions(connection)
    # The usual start: to load Alembic and all migrations would take longer than all else here.
    if current != [newest_revision() if revision == "head" else revision]:
        _migrate(connection, current, revision)


def _prepare(connection: Connection) -> None:
    """Let this transaction see all rows, take as long as it needs, and be the only one.

    PostgreSQL hides those of organizations otherwise, and would end a statement that fills a table,
    or waits for another process' migration, as it ends those of requests.
    """
    if connection.dialect.name != "postgresql":
        return
    settings = {PLATFORM_SETTING: "on", "statement_timeout": "0", "lock_timeout": "0"}
    connection.execute(
        select(*(func.set_config(name, value, True) for name, value in settings.items()))  # noqa: FBT003 - local to the transaction
    )
    connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
    # Who waits for a table holds up everybody who comes after: that stays as short as it is.
    connection.execute(text("SET LOCAL lock_timeout TO DEFAULT"))


def _read_revisions(connection: Connection) -> list[str]:
    if not inspect(connection).has_table(_VERSIONS.name):
        return []
    return list(connection.scalars(select(_VERSIONS.c.version_num)))


def _migrate(connection: Connection, current: list[str], revision: str) -> None:
    from alembic import command  # noqa: PLC0415  # start-up time: few starts migrate
    from alembic.script import ScriptDirectory  # noqa: PLC0415  # as above
    from alembic.util import CommandError  # noqa: PLC0415  # as above

    config = configure(connection)
    scripts = ScriptDirectory.from_config(config)
    for known in current:
        try:
            scripts.get_revision(known)
        except CommandError as error:
            raise SchemaUnknownError from error
    command.upgrade(config, revision)
