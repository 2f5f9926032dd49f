"""The database: sessions, migrations and failures, on real SQLite files."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.unit.metering.usage_events import arrive, make_event

from penstock.metering import store
from penstock.metering.tables import UsageEvents
from penstock.storage.database import Database
from penstock.storage.engine import BUSY_TIMEOUT_MS, create_read_engine, create_write_engine
from penstock.storage.errors import DatabaseUnavailableError, SchemaUnknownError
from penstock.storage.migrate import downgrade, upgrade
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession, WriteSession

ALL = Scope.all_organizations()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """A database with nothing in it."""
    database = Database(tmp_path / "data" / "usage.db")
    await database.open()
    yield database
    await database.close()


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    """An engine on a file without any table."""
    path = tmp_path / "empty.db"
    path.touch()
    engine = create_write_engine(path)
    yield engine
    await engine.dispose()


async def _write(session: WriteSession, number: int) -> None:
    await store.record_events(session, ALL, arrive(make_event(number)))


async def _count(database: Database) -> int:
    async with database.read(ALL) as session:
        return (await session.rows(select(func.count(UsageEvents.event_id))))[0][0]


def _file_names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def _table_names(path: Path) -> set[str]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    connection.close()
    # SQLite's own begin with its name.
    return {name for (name,) in rows if not name.startswith("sqlite_")}


async def test_a_write_session_commits_at_its_end(database: Database) -> None:
    """What a use case wrote is there once its context has ended, and not before."""
    async with database.write(ALL) as session:
        await _write(session, 1)
        assert await _count(database) == 0
    assert await _count(database) == 1


async def test_a_write_session_rolls_back_on_failure(database: Database) -> None:
    """A use case that failed leaves nothing behind."""

    async def write_and_fail() -> None:
        async with database.write(ALL) as session:
            await _write(session, 1)
            raise LookupError

    with pytest.raises(LookupError):
        await write_and_fail()
    assert await _count(database) == 0


async def test_a_write_session_rolls_back_on_cancellation(database: Database) -> None:
    """A use case that was cancelled leaves nothing behind and blocks nobody."""
    is_written = asyncio.Event()

    async def write_and_wait() -> None:
        async with database.write(ALL) as session:
            await _write(session, 1)
            is_written.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write_and_wait())
    await is_written.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with database.write(ALL) as session:
        await _write(session, 2)
    assert await _count(database) == 1


def test_sessions_cannot_commit() -> None:
    """No session has a commit: services cannot end a transaction early."""
    assert not {"commit", "rollback", "begin"} & {*dir(ReadSession), *dir(WriteSession)}


async def test_connections_that_read_refuse_to_write(tmp_path: Path, database: Database) -> None:
    """A connection of a read session cannot write, whatever statement it is given."""
    assert await _count(database) == 0
    engine = create_read_engine(tmp_path / "data" / "usage.db")
    async with engine.connect() as connection:
        with pytest.raises(OperationalError, match="readonly"):
            await connection.exec_driver_sql("DELETE FROM usage_events")
    await engine.dispose()


async def test_connections_are_durable_and_checked(engine: AsyncEngine) -> None:
    """Commits are synced to the disk, foreign keys are held, and locks are waited for."""
    async with engine.connect() as connection:
        pragmas = {
            name: (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 2_000,
    }


async def test_writers_queue(database: Database) -> None:
    """Many writers at once all get their turn."""

    async def write(number: int) -> None:
        async with database.write(ALL) as session:
            await _write(session, number)

    await asyncio.gather(*(write(number) for number in range(40)))
    assert await _count(database) == 40


async def test_the_file_is_private(tmp_path: Path, database: Database) -> None:
    """Only their owner can read the database and the files beside it."""
    assert await _count(database) == 0
    folder = tmp_path / "data"
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes.keys() >= {"usage.db", "usage.db-wal", "usage.db-shm"}
    assert set(modes.values()) == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["a b", "50%", "who?", "#1", "é", "a=b&mode=memory"])
async def test_a_path_is_just_a_path(tmp_path: Path, name: str) -> None:
    """No character of a folder's name has a meaning for the database."""
    database = Database(tmp_path / name / "usage.db")
    await database.open()
    async with database.write(ALL) as session:
        await _write(session, 1)
    await database.close()
    assert _file_names(tmp_path) == [name]
    assert _file_names(tmp_path / name) == ["usage.db"]


async def test_a_second_start_keeps_the_data(tmp_path: Path, database: Database) -> None:
    """Opening a database again changes nothing in it."""
    async with database.write(ALL) as session:
        await _write(session, 1)
    again = Database(tmp_path / "data" / "usage.db")
    await again.open()
    assert await _count(again) == 1
    await again.close()


async def test_two_first_starts_at_once(tmp_path: Path) -> None:
    """Processes that find no database at the same time make it together."""
    databases = [Database(tmp_path / "usage.db") for _ in range(4)]
    await asyncio.gather(*(database.open() for database in databases))
    assert [await _count(database) for database in databases] == [0, 0, 0, 0]
    for database in databases:
        await database.close()


async def test_migrations_go_down_and_up_again(tmp_path: Path, engine: AsyncEngine) -> None:
    """Every migration can be undone, and done again."""
    path = tmp_path / "empty.db"
    await upgrade(engine)
    tables = _table_names(path)
    assert tables >= {"usage_events", "usage_event_conflicts"}
    await downgrade(engine, "base")
    assert _table_names(path) == {"alembic_version"}
    await upgrade(engine)
    assert _table_names(path) == tables


async def test_a_database_from_the_future_is_left_alone(tmp_path: Path, database: Database) -> None:
    """A version that does not know the schema refuses it instead of guessing."""
    await database.close()
    path = tmp_path / "data" / "usage.db"
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    newer = Database(path)
    with pytest.raises(SchemaUnknownError):
        await newer.open()
    await newer.close()
    assert "usage_events" in _table_names(path)


async def test_a_locked_database_is_unavailable(tmp_path: Path, database: Database) -> None:
    """A lock of another process ends a write with one kind of error, and reading goes on."""
    other = sqlite3.connect(tmp_path / "data" / "usage.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseUnavailableError):
        async with database.write(ALL) as session:
            await _write(session, 1)
    assert await _count(database) == 0
    other.execute("ROLLBACK")
    other.close()
    async with database.write(ALL) as session:
        await _write(session, 1)
    assert await _count(database) == 1


async def test_a_database_that_is_gone_is_unavailable(tmp_path: Path, database: Database) -> None:
    """Nothing is written into a file that was deleted or replaced, and its return is noticed."""
    path = tmp_path / "data" / "usage.db"
    hidden = path.with_name("hidden.db")
    path.rename(hidden)
    with pytest.raises(DatabaseUnavailableError):
        await database.check()
    path.touch()
    with pytest.raises(DatabaseUnavailableError):
        async with database.write(ALL) as session:
            await _write(session, 1)
    path.unlink()
    hidden.rename(path)
    async with database.write(ALL) as session:
        await _write(session, 2)
    assert await _count(database) == 1


@pytest.mark.parametrize(
    "content", [b"no database" * 1_000, b"SQLite format 3\0" + b"\xff" * 8_000]
)
async def test_a_damaged_database_is_unavailable(tmp_path: Path, content: bytes) -> None:
    """A file that is no database is reported as such and not overwritten."""
    path = tmp_path / "usage.db"
    path.write_bytes(content)
    database = Database(path)
    with pytest.raises(DatabaseUnavailableError):
        await database.open()
    await database.close()
    assert path.read_bytes() == content


async def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    """A data folder below a file is reported at the start."""
    (tmp_path / "file").touch()
    database = Database(tmp_path / "file" / "usage.db")
    with pytest.raises(DatabaseUnavailableError):
        await database.open()
    await database.close()


async def test_a_full_database_is_unavailable(tmp_path: Path) -> None:
    """Without space a write fails as a whole, and works once there is some."""
    path = tmp_path / "usage.db"
    path.touch()
    engine = create_write_engine(path)
    await upgrade(engine)
    arrivals = arrive(*map(make_event, range(500)))
    async with engine.begin() as connection:
        size = (await connection.exec_driver_sql("PRAGMA page_count")).scalar()
        await connection.exec_driver_sql(f"PRAGMA max_page_count = {size}")
        with pytest.raises(OperationalError, match="full"):
            await store.record_events(WriteSession(connection, ALL), ALL, arrivals)
    async with engine.begin() as connection:
        await connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
        new = await store.record_events(WriteSession(connection, ALL), ALL, arrivals)
    assert len(new) == 500
    await engine.dispose()


async def test_opening_waits_for_who_migrates(tmp_path: Path) -> None:
    """A process that starts while another one migrates for long waits for it."""
    path = tmp_path / "usage.db"
    first, second = Database(path), Database(path)
    await first.open()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    opening = asyncio.ensure_future(second.open())
    await asyncio.sleep(BUSY_TIMEOUT_MS / 1_000 + 0.5)
    assert not opening.done()
    other.execute("COMMIT")
    other.close()
    await opening
    assert await _count(second) == 0
    for database in (first, second):
        await database.close()
