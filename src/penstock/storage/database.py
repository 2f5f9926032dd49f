"""The database of the control plane and the only two ways to a session."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from sqlalchemy import literal, select
from sqlalchemy.exc import (
    DatabaseError,
    InterfaceError,
    InternalError,
    OperationalError,
)
from sqlalchemy.exc import (
    TimeoutError as PoolTimeoutError,
)

from penstock.storage.engine import create_read_engine, create_write_engine
from penstock.storage.errors import DatabaseUnavailableError
from penstock.storage.migrate import upgrade
from penstock.storage.sessions import ReadSession, WriteSession

_logger = logging.getLogger(__name__)


class Database:
    """A SQLite file.

    Args:
        path: The file; created, readable by its owner only, when `open` finds none.
    """

    def __init__(self, path: Path) -> None:
        """See the class; touches nothing yet."""
        self._path = path
        self._reader = create_read_engine(path)
        self._writer = create_write_engine(path)
        self._identity: tuple[int, int] | None = None

    async def open(self) -> None:
        """Create the file when there is none, and bring its schema up to date.

        Raises:
            DatabaseUnavailableError: It cannot be opened or is locked.
            SchemaUnknownError: A newer version wrote it.
        """
        try:
            self._identity = await asyncio.to_thread(_create_file, self._path)
        except OSError as error:
            raise _unavailable(error) from None
        with _translated():
            await upgrade(self._writer)

    async def close(self) -> None:
        """Close all connections; open sessions end with an error."""
        await self._reader.dispose()
        await self._writer.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[ReadSession]:
        """Hand out a session that sees one state of the database.

        Raises:
            DatabaseUnavailableError: See there.
        """
        with _translated():
            self._check_file()
            async with self._reader.connect() as connection, connection.begin():
                yield ReadSession(connection)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[WriteSession]:
        """Hand out a session that is committed, on disk, when the context ends.

        An exception, or a cancellation, inside the context rolls everything back.

        Raises:
            DatabaseUnavailableError: See there.
        """
        with _translated():
            self._check_file()
            async with self._writer.begin() as connection:
                yield WriteSession(connection)

    async def check(self) -> None:
        """Make sure that the database answers.

        Raises:
            DatabaseUnavailableError: It does not.
        """
        async with self.read() as session:
            await session.rows(select(literal(1)))

    def _check_file(self) -> None:
        # SQLite goes on writing to a file that was deleted or replaced under it, and everything
        # that we then confirm is lost.
        try:
            identity = _identify(self._path)
        except OSError as error:
            raise _unavailable(error) from None
        if identity != self._identity:
            detail = "the database file is not the one that was opened; restart to use it"
            _logger.warning("%s", detail)
            raise DatabaseUnavailableError


def _create_file(path: Path) -> tuple[int, int]:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    return _identify(path)


def _identify(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _unavailable(error: BaseException) -> DatabaseUnavailableError:
    _logger.warning("database unavailable: %s: %s", type(error).__name__, error)
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
