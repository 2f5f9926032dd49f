"""SQLite engines: how connections are opened and how transactions begin."""

import asyncio
import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

import aiosqlite
from sqlalchemy import URL, Connection, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

BUSY_TIMEOUT_MS = 2_000
"""How long a statement waits for another process's lock."""
POOL_TIMEOUT_S = 5.0
"""How long a session waits for a connection of our own process."""
READ_CONNECTIONS = 4
_ROWS_AT_A_TIME = 64

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

    _is_open = True

    def close(self) -> None:
        """Undo what was not committed, and close; the second time nothing."""
        if self._is_open and self.in_transaction:
            self.rollback()
        super().close()
        self._is_open = False


class _Driver(aiosqlite.Connection):
    """A connection with a thread of its own, which is told once that it is to end.

    Who is cancelled while closing one tells it again. Nobody may be there any more to hear that,
    and who waits for the answer does so for ever, and with it the end of the process.
    """

    _stopped: asyncio.Future[Any] | None = None

    @classmethod
    async def open(cls, uri: str) -> "_Driver":
        """Connect to a file that is there: one that is gone is no new, empty database."""

        def connect() -> sqlite3.Connection:
            return sqlite3.connect(
                f"{uri}?mode=rw",
                uri=True,
                timeout=BUSY_TIMEOUT_MS / 1000,
                # The driver's own, late BEGIN would let a reader become a writer halfway, which
                # SQLite can only refuse; so `_create_engine` begins transactions.
                isolation_level=None,
                check_same_thread=False,
                factory=_Connection,
            )

        driver = cls(connect, iter_chunk_size=_ROWS_AT_A_TIME)
        driver._thread.daemon = True
        await driver
        return driver

    def stop(self) -> asyncio.Future[Any] | None:
        """Have the thread end when it has done what it was asked for; return what is set then."""
        self._stopped = self._stopped or super().stop()
        return self._stopped


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
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=str(path)),
        async_creator=partial(_Driver.open, path.resolve().as_uri()),
        pool_size=connections,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_S,
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
