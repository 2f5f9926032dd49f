"""The database of the control plane, of either kind, and the only two ways to a session."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from sqlalchemy import literal, select
from sqlalchemy.exc import (
    DatabaseError,
    DBAPIError,
    InterfaceError,
    InternalError,
    OperationalError,
)
from sqlalchemy.exc import (
    TimeoutError as PoolTimeoutError,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from penstock.storage import engine as sqlite
from penstock.storage import log_events, postgresql
from penstock.storage.errors import DatabaseUnavailableError
from penstock.storage.migrate import upgrade
from penstock.storage.partitions import create_missing_parts, tables_by_day
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession, WriteSession

MIGRATION_PATIENCE_S = 30.0
"""How long opening waits for another process that writes to a SQLite file."""


class Database:
    """A SQLite file or a PostgreSQL database.

    Args:
        location: The file, created, readable by its owner only, when `open` finds none; or
            `postgresql://user@host/name`, an existing database whose user is no superuser.
        statement_timeout_ms: How long PostgreSQL lets one statement run.

    Raises:
        ValueError: The address cannot be read.
    """

    def __init__(
        self,
        location: Path | str,
        *,
        statement_timeout_ms: int = postgresql.STATEMENT_TIMEOUT_MS,
    ) -> None:
        """See the class; touches nothing yet."""
        self._location = location
        self.commit_count = 0
        """Write sessions of this process that were committed: tells cheaply that something may
        have changed. What other processes commit is not in it."""
        self._file: _File | None = None
        self._flusher: postgresql.Flusher | None = None
        if postgresql.is_dsn(location):
            dsn = str(location)
            self._reader = postgresql.create_read_engine(dsn, statement_timeout_ms)
            self._writer = postgresql.create_write_engine(dsn, statement_timeout_ms)
            self._flusher = postgresql.Flusher(dsn)
            connections = postgresql.READ_CONNECTIONS
        else:
            path = Path(location)
            self._file = _File(path)
            self._reader = sqlite.create_read_engine(path)
            self._writer = sqlite.create_write_engine(path)
            connections = sqlite.READ_CONNECTIONS
        self._long_reads = asyncio.Semaphore(connections // 2)

    @property
    def location(self) -> Path | str:
        """Where it is. An address may hold a password: it is not for logs."""
        return self._location

    async def open(self) -> None:
        """Create the file when there is none, and bring its schema up to date.

        Raises:
            DatabaseUnavailableError: It cannot be opened, or stays locked for
                `MIGRATION_PATIENCE_S`.
            SchemaUnknownError: A newer version wrote it.
        """
        try:
            if self._file is not None:
                await asyncio.to_thread(self._file.create)
            with _translated():
                await self._upgrade()
        except OSError as error:
            raise _unavailable(error) from None

    async def _upgrade(self) -> None:
        """Bring the schema up to date, behind whoever is doing that.

        On PostgreSQL a lock is waited for. SQLite's is given up after a moment, which is right for
        requests; another process that migrates at its own start takes longer.
        """
        deadline_s = time.monotonic() + MIGRATION_PATIENCE_S
        while True:
            try:
                await upgrade(self._writer)
            except OperationalError as error:
                if not sqlite.is_locked(error) or time.monotonic() > deadline_s:
                    raise
            else:
                return

    async def close(self) -> None:
        """Close all connections; open sessions end with an error."""
        await self._reader.dispose()
        await self._writer.dispose()
        if self._flusher is not None:
            await self._flusher.close()

    @asynccontextmanager
    async def read(self, scope: Scope, *, is_long: bool = False) -> AsyncIterator[ReadSession]:
        """Hand out a session that sees one state of the database.

        Args:
            scope: Whose data; PostgreSQL shows no other.
            is_long: It will read whole tables. Half of the connections are there for such, who
                wait for each other as long as it takes: those that must be quick have the rest.

        Raises:
            DatabaseUnavailableError: See there.
        """
        async with AsyncExitStack() as stack:
            if is_long:
                await stack.enter_async_context(self._long_reads)
            with _translated():
                async with self._connect(self._reader, scope) as connection:
                    yield ReadSession(connection, scope)

    @asynccontextmanager
    async def write(self, scope: Scope, *, is_alone: bool = False) -> AsyncIterator[WriteSession]:
        """Hand out a session that is committed, and on the disk, when the context has ended.

        An exception, or a cancellation, inside the context rolls everything back.

        Args:
            scope: Whose data; PostgreSQL shows and takes no other.
            is_alone: Make it the one that writes configuration from its beginning: what
                `WriteSession.lock_configuration` does later, and with a round trip more. The next
                one begins when it is committed and does not wait for its disk.

        Raises:
            DatabaseUnavailableError: See there.
        """
        with _translated():
            async with self._connect(self._writer, scope, is_alone=is_alone) as connection:
                session = WriteSession(connection, scope, is_alone=is_alone)
                yield session
                await session.flush()
            if is_alone:
                await self._wait_for_disk()
        self.commit_count += 1

    async def _wait_for_disk(self) -> None:
        if self._flusher is None:
            return
        try:
            await self._flusher.flush()
        except OSError as error:
            raise _unavailable(error) from None

    async def check(self) -> None:
        """Make sure that the database answers.

        Raises:
            DatabaseUnavailableError: It does not.
        """
        async with self.read(Scope.all_organizations()) as session:
            await session.rows(select(literal(1)))

    async def create_parts(self, today: int) -> list[str]:
        """Create the parts of the next days of tables that PostgreSQL keeps by day.

        Args:
            today: Days since the Unix epoch.

        Returns:
            The names of new parts; none on SQLite, which keeps a table in one piece.

        Raises:
            DatabaseUnavailableError: See there.
        """
        if self._file is not None:
            return []
        everybody, created = Scope.all_organizations(), list[str]()
        with _translated():
            async with self._connect(self._writer, everybody) as connection:
                tables = await tables_by_day(connection)
            for table in tables:
                async with self._connect(self._writer, everybody) as connection:
                    created += await create_missing_parts(connection, table, today)
        return created

    @asynccontextmanager
    async def _connect(
        self, engine: AsyncEngine, scope: Scope, *, is_alone: bool = False
    ) -> AsyncIterator[AsyncConnection]:
        if self._file is not None:
            self._file.check()
        try:
            stack, connection = await self._begin(engine, scope, is_alone=is_alone)
        except DBAPIError as error:
            # Its server ended the connection while it stood in the pool. Nothing was done yet, and
            # all that are as old went with it: the next one is new.
            if not error.connection_invalidated:
                raise
            stack, connection = await self._begin(engine, scope, is_alone=is_alone)
        async with stack:
            try:
                yield connection
            except DBAPIError as error:
                if engine is not self._writer or not postgresql.is_read_only(error):
                    raise
                # All connections lead to a server that is not the primary one any more. Those that
                # are in use are not closed by their pool: this one would be left to the collector.
                await connection.invalidate()
                await self._writer.dispose()
                await self._reader.dispose()
                raise _unavailable(error.orig or error) from None

    async def _begin(
        self, engine: AsyncEngine, scope: Scope, *, is_alone: bool
    ) -> tuple[AsyncExitStack, AsyncConnection]:
        """Return a connection with an open transaction, and what ends both."""
        async with AsyncExitStack() as stack:
            try:
                connection = await stack.enter_async_context(engine.connect())
            except OSError as error:
                # The driver of PostgreSQL lets refused connections and time-outs through.
                raise _unavailable(error) from None
            await stack.enter_async_context(connection.begin())
            if self._file is None:
                await postgresql.set_scope(connection, scope, is_alone=is_alone)
            return stack.pop_all(), connection


class _File:
    """The file of a SQLite database, watched so that nothing is written into another one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identity: tuple[int, int] | None = None

    def create(self) -> None:
        self._identity = _create_file(self._path)

    def check(self) -> None:
        # SQLite goes on writing to a file that was deleted or replaced under it, and everything
        # that we then confirm is lost.
        try:
            identity = _identify(self._path)
        except OSError as error:
            raise _unavailable(error) from None
        if identity != self._identity:
            log_events.DATABASE_REPLACED.log(path=self._path)
            raise DatabaseUnavailableError


def _create_file(path: Path) -> tuple[int, int]:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    return _identify(path)


def _identify(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _unavailable(error: BaseException) -> DatabaseUnavailableError:
    log_events.DATABASE_UNAVAILABLE.log(kind=type(error).__name__, error=error)
    return DatabaseUnavailableError()


@contextmanager
def _translated() -> Iterator[None]:
    # The log has the driver's words; its tracebacks are long and say no more.
    try:
        yield
    except (OperationalError, InterfaceError, InternalError) as error:
        raise _unavailable(error.orig or error) from None
    except PoolTimeoutError as error:
        raise _unavailable(error) from None
    except DatabaseError as error:
        # The driver says so of a damaged file; its subclasses are mistakes of ours.
        if type(error) is not DatabaseError:
            raise
        raise _unavailable(error.orig or error) from None
    except DBAPIError as error:
        if not postgresql.is_unavailable(error):
            raise
        raise _unavailable(error.orig or error) from None
