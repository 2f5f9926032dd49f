"""SQLite engines: how connections are opened and how transactions begin."""

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

BUSY_TIMEOUT_MS = 2_000
"""How long a statement waits for another process's lock."""
POOL_TIMEOUT_S = 5.0
"""How long a session waits for a connection of our own process."""
READ_CONNECTIONS = 4

# In WAL mode FULL syncs the log at each commit: a receipt survives a power cut.
_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    f"busy_timeout={BUSY_TIMEOUT_MS}",
    "foreign_keys=ON",
    "temp_store=MEMORY",
    "journal_size_limit=67108864",
)


class _Connection(sqlite3.Connection):
    """A connection whose end is the end of its transaction.

    One that is closed because its task was cancelled may have a statement that nobody will read,
    and stays open for SQLite, with its lock, until that is collected as garbage.
    """

    def close(self) -> None:
        """Undo what was not committed, and close."""
        if self.in_transaction:
            self.rollback()
        super().close()


def is_locked(error: DBAPIError) -> bool:
    """Tell whether another process had the file for longer than we waited."""
    # The low byte is the kind; the rest says more of it.
    return getattr(error.orig, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def create_write_engine(path: Path) -> AsyncEngine:
    """Return an engine with the one connection that writes.

    SQLite has one writer at a time; with one connection our own writers queue in order instead
    of polling for a lock.
    """
    return _create_engine(path, connections=1, begin="BEGIN IMMEDIATE", pragmas=_PRAGMAS)


def create_read_engine(path: Path) -> AsyncEngine:
    """Return an engine whose connections refuse to write."""
    # What is too much for its cache it sorts on the disk: whole tables have no room in memory.
    pragmas = (*_PRAGMAS, "query_only=ON", "temp_store=FILE")
    return _create_engine(path, connections=READ_CONNECTIONS, begin="BEGIN", pragmas=pragmas)


def _create_engine(
    path: Path, *, connections: int, begin: str, pragmas: tuple[str, ...]
) -> AsyncEngine:
    # mode=rw: a file that is gone is an error and not a new, empty database.
    url = URL.create(
        "sqlite+aiosqlite",
        database=path.resolve().as_uri(),
        query={"uri": "true", "mode": "rw"},
    )
    engine = create_async_engine(
        url,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_S,
        # The driver's own, late BEGIN would let a reader become a writer halfway, which SQLite
        # can only refuse; so transactions are begun below.
        connect_args={
            "isolation_level": None,
            "timeout": BUSY_TIMEOUT_MS / 1000,
            "factory": _Connection,
        },
        # Values of callers have no place in error messages.
        hide_parameters=True,
    )

    def prepare(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine.sync_engine, "connect", prepare)
    event.listen(engine.sync_engine, "begin", start)
    return engine
