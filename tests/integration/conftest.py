"""Databases that tests of rooms run on: each test on both kinds."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.admin_rig import make_document
from tests.fakes.databases import create_template, postgresql_database, sqlite_database
from tests.fakes.postgresql_server import PostgresqlServer, run_server

from penstock.storage.database import Database

OpenDatabase = Callable[[], AbstractAsyncContextManager[Database]]


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    return create_template(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="session")
def openapi(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The OpenAPI document of a control plane; nobody changes it."""
    return make_document(tmp_path_factory.mktemp("control"))


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    """A PostgreSQL server, one for all tests."""
    with run_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def open_database(request: pytest.FixtureRequest, tmp_path: Path) -> OpenDatabase:
    """Hands out empty databases of each kind, one by one."""
    # Asked for by name: a test of SQLite alone starts no server.
    if request.param == "sqlite":
        template = request.getfixturevalue("sqlite_template")
        return lambda: sqlite_database(template, tmp_path)
    server = request.getfixturevalue("postgresql")
    return lambda: postgresql_database(server)


@pytest.fixture
async def database(open_database: OpenDatabase) -> AsyncIterator[Database]:
    """An empty database of each kind."""
    async with open_database() as database:
        yield database


@pytest.fixture
async def pg_database(postgresql: PostgresqlServer) -> AsyncIterator[Database]:
    """An empty, migrated PostgreSQL database."""
    async with postgresql_database(postgresql) as database:
        yield database
