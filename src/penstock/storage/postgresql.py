"""PostgreSQL engines: how connections are opened, and how a transaction says whose data it is."""

import asyncio

from sqlalchemy import URL, bindparam, func, literal, make_url, select
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from penstock.storage.base import read_json
from penstock.storage.scope import Scope

WRITE_CONNECTIONS = 8
READ_CONNECTIONS = 8
POOL_TIMEOUT_S = 5.0
"""How long a session waits for a connection of our own process."""
CONNECT_TIMEOUT_S = 5.0
STATEMENT_TIMEOUT_MS = 15_000
"""How long one statement may run."""
LOCK_TIMEOUT_MS = 5_000
"""How long a statement waits for another transaction's lock."""
IDLE_TIMEOUT_MS = 60_000
"""How long a transaction may stand still before the server ends it."""

CONFIGURATION_LOCK = 0x70656E73
"""Any number that no other program takes an advisory lock of in our database."""
ORGANIZATION_SETTING = "app.organization_id"
PLATFORM_SETTING = "app.is_platform"
"""What the row-level policies of the migrations compare rows with."""

_SET_SCOPE = select(
    func.set_config(literal(ORGANIZATION_SETTING), bindparam("organization"), True),  # noqa: FBT003 - local to the transaction
    func.set_config(literal(PLATFORM_SETTING), bindparam("is_platform"), True),  # noqa: FBT003 - as above
)
_BEGIN_ALONE = _SET_SCOPE.add_columns(
    func.set_config("synchronous_commit", "off", True),  # noqa: FBT003 - as above
    func.pg_advisory_xact_lock(CONFIGURATION_LOCK),
)
_FLUSH = select(func.pg_logical_emit_message(True, "penstock", ""))  # noqa: FBT003 - with a commit of its own, which waits for the disk

# Classes of SQLSTATE that say "not now": connection, log-in, no such database, resources, operator,
# system, internal; and deadlocks, serialization failures and locks that were not to be had.
_UNAVAILABLE_CLASSES = ("08", "28", "3D", "53", "57", "58", "XX", "40")
_LOCK_NOT_AVAILABLE = "55P03"
_READ_ONLY = "25006"


def is_dsn(location: object) -> bool:
    """Return whether a location is that of a PostgreSQL database."""
    return isinstance(location, str) and location.startswith(("postgresql://", "postgres://"))


def parse_dsn(dsn: str) -> URL:
    """Return the driver's URL of `postgresql://user:password@host:port/name?sslmode=...`.

    Raises:
        ValueError: It cannot be read. The message does not hold it: it has a password.
    """
    url: URL | None
    try:
        url = make_url(dsn).set(drivername="postgresql+asyncpg")
    except (ArgumentError, ValueError):
        url = None
    if url is None or not url.database:
        message = "the database's address is not of the form postgresql://user@host/name"
        raise ValueError(message)
    # The word of libpq for what the driver calls ssl.
    mode = url.query.get("sslmode")
    if mode is not None:
        url = url.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
    return url


def create_write_engine(dsn: str, statement_timeout_ms: int = STATEMENT_TIMEOUT_MS) -> AsyncEngine:
    """Return an engine whose transactions write, and see what others commit meanwhile."""
    return _create_engine(dsn, statement_timeout_ms, WRITE_CONNECTIONS, "READ COMMITTED")


def create_read_engine(dsn: str, statement_timeout_ms: int = STATEMENT_TIMEOUT_MS) -> AsyncEngine:
    """Return an engine whose transactions see one state and refuse to write."""
    engine = _create_engine(dsn, statement_timeout_ms, READ_CONNECTIONS, "REPEATABLE READ")
    return engine.execution_options(postgresql_readonly=True)


def _create_engine(
    dsn: str,
    statement_timeout_ms: int,
    connections: int,
    isolation: str,
    *,
    pool_pre_ping: bool = False,
) -> AsyncEngine:
    settings = {
        "application_name": "penstock",
        "statement_timeout": str(statement_timeout_ms),
        "lock_timeout": str(LOCK_TIMEOUT_MS),
        "idle_in_transaction_session_timeout": str(IDLE_TIMEOUT_MS),
        "timezone": "UTC",
    }
    return create_async_engine(
        parse_dsn(dsn),
        isolation_level=isolation,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_S,
        pool_pre_ping=pool_pre_ping,
        connect_args={"server_settings": settings, "timeout": CONNECT_TIMEOUT_S},
        json_deserializer=read_json,
        # Values of callers have no place in error messages.
        hide_parameters=True,
    )


class Flusher:
    """Waits for the disk outside of transactions, once for all who wait at the same time.

    Writers of configuration queue for the end of each other. If that end waited for the disk, too,
    the disk would set their pace; so they commit without it, and wait here before they answer.

    Args:
        dsn: Address of the database.
    """

    def __init__(self, dsn: str) -> None:
        """See the class; touches nothing yet."""
        self._engine = _create_engine(
            dsn, STATEMENT_TIMEOUT_MS, connections=1, isolation="AUTOCOMMIT", pool_pre_ping=True
        )
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    async def flush(self) -> None:
        """Return when all that was committed before the call is on the disk, and replicated.

        Raises:
            DBAPIError, OSError: Nobody knows; it may be.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._run(self._running), name="flush")
        # Whoever gives up waiting must not take it away from the others.
        await asyncio.shield(self._next)

    async def close(self) -> None:
        """Let go of the connection."""
        await self._engine.dispose()

    async def _run(self, before: "asyncio.Task[None] | None") -> None:
        if before is not None:
            await asyncio.wait([before])
        # Who comes from here on has committed too late for this one.
        self._running, self._next = self._next, None
        async with self._engine.connect() as connection:
            await connection.execute(_FLUSH)


async def set_scope(connection: AsyncConnection, scope: Scope, *, is_alone: bool = False) -> None:
    """Tell the database whose rows this transaction may touch; forgotten when it ends.

    Args:
        connection: With a transaction that has just begun.
        scope: Whose.
        is_alone: Make it the one that writes configuration, too, in the same round trip. It will
            not wait for the disk when it commits: `Flusher` does.
    """
    is_platform = "on" if scope.organization is None else "off"
    await connection.execute(
        _BEGIN_ALONE if is_alone else _SET_SCOPE,
        {"organization": scope.organization or "", "is_platform": is_platform},
    )


def is_read_only(error: DBAPIError) -> bool:
    """Return whether an error says that the transaction may not write.

    If it was begun to write, another server is the primary one by now, or an operator wants that.
    """
    return getattr(error.orig, "sqlstate", None) == _READ_ONLY


def is_unavailable(error: DBAPIError) -> bool:
    """Return whether an error says that the server cannot do it now, rather than never."""
    state = getattr(error.orig, "sqlstate", None) or ""
    return (
        error.connection_invalidated
        or state.startswith(_UNAVAILABLE_CLASSES)
        or state == _LOCK_NOT_AVAILABLE
    )
