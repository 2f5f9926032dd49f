"""The database: schema of both kinds, and what PostgreSQL does for us."""

import asyncio
import importlib
import logging
import re
from collections.abc import AsyncIterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import (
    Column,
    Connection,
    MetaData,
    Select,
    Table,
    Text,
    cast,
    delete,
    func,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from tests.fakes.postgresql_server import PostgresqlServer
from tests.unit.metering.usage_events import arrive, make_event

import penstock
from penstock.access.tables import ApiKeys
from penstock.audit.tables import AuditHeads
from penstock.contract.usage import METERS
from penstock.metering import figure_store, store
from penstock.metering.figure_rules import add_up
from penstock.metering.rules import day_of
from penstock.metering.tables import (
    UsageDays,
    UsageEighths,
    UsageEvents,
    UsageLabelDays,
    UsageLatencyHours,
    UsageModelEighths,
    UsageModelQuarters,
    UsageProjectEighths,
    UsageProjectQuarters,
    UsageQuarters,
)
from penstock.metering.zone_rules import EIGHTH_US, QUARTER_US
from penstock.rating.tables import (
    ChargeEighths,
    ChargeLabelDays,
    ChargeModelEighths,
    ChargeModelQuarters,
    ChargeProjectEighths,
    ChargeProjectQuarters,
    ChargeQuarters,
)
from penstock.storage import engine as sqlite
from penstock.storage import migrate
from penstock.storage import postgresql as pg
from penstock.storage.base import Base, Json
from penstock.storage.changes import get_last_change, list_changes, record_change
from penstock.storage.database import Database
from penstock.storage.errors import DatabaseUnavailableError, RowConflictError
from penstock.storage.migrate import downgrade, upgrade
from penstock.storage.scope import Scope
from penstock.storage.sessions import WriteSession
from penstock.tenancy.tables import Organizations, Projects

ALL = Scope.all_organizations()
ACME = Scope.of("acme")

for _path in Path(str(penstock.__file__)).parent.glob("*/*tables.py"):
    importlib.import_module(f"penstock.{_path.parent.name}.{_path.stem}")


_OLD_EVENTS = Table(
    "usage_events",
    MetaData(),
    *(
        Column(name, UsageEvents.__table__.columns[name].type)
        for name in (
            "event_id", "started_at", "input_tokens", "output_tokens", "organization", "project",
            "key_id", "model", "request_id", "served_model", "upstream", "operation", "is_stream",
            "outcome", "status", "error_code", "usage_source", "cached_input_tokens",
            "reasoning_output_tokens", "attempt_count", "first_byte_at", "finished_at", "flags",
            "content_hash", "producer", "epoch", "recorded_at",
        )
    ),
)  # fmt: skip
_OLD_ROW = {
    column.name: {
        "VARCHAR": "x",
        "JSON": [],
        "BLOB": b"",
        "BOOLEAN": True,
    }.get(str(column.type), 1)
    for column in _OLD_EVENTS.columns
} | {"started_at": 1_750_000_000_123_456, "output_tokens": 7}
"""Of the first version: one of the seven output tokens was for reasoning."""


HASTE_MS = 500
"""Of a server that waits for no statement longer."""


@pytest.fixture
async def pg_database(postgresql: PostgresqlServer) -> AsyncIterator[Database]:
    """An empty, migrated PostgreSQL database."""
    name = await postgresql.create()
    database = Database(postgresql.role_dsn(name), statement_timeout_ms=HASTE_MS)
    await database.open()
    yield database
    await database.close()
    await postgresql.drop(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest) -> PostgresqlServer | None:
    """The PostgreSQL server, or None for SQLite."""
    is_postgresql = request.param == "postgresql"
    return request.getfixturevalue("postgresql") if is_postgresql else None


@pytest.fixture
async def engine(server: PostgresqlServer | None, tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    """An engine on a database of each kind without any table."""
    if server is None:
        (tmp_path / "empty.db").touch()
        engine = sqlite.create_write_engine(tmp_path / "empty.db")
        yield engine
        await engine.dispose()
        return
    name = await server.create(is_migrated=False)
    engine = pg.create_write_engine(server.role_dsn(name))
    yield engine
    await engine.dispose()
    await server.drop(name)


async def _write(session: WriteSession, number: int, organization: str = "acme") -> None:
    arrivals = arrive(make_event(number, organization=organization))
    await store.record_events(session, ALL, arrivals)


async def _count(database: Database, scope: Scope) -> int:
    async with database.read(scope) as session:
        return (await session.rows(select(func.count(UsageEvents.event_id))))[0][0]


async def test_migrations_make_what_the_tables_say(engine: AsyncEngine) -> None:
    """The migrated schema is the one that the code works with."""

    def is_whole(name: str | None, kind: str, _parents: object) -> bool:
        # Days of tables that PostgreSQL keeps by day are tables for it, too.
        return kind != "table" or re.search(r"_(\d+|default)$", name or "") is None

    def is_another(
        _context: object, _found: object, column: Column[Any], *defaults: Any
    ) -> bool | None:
        found, _, wanted = defaults
        if isinstance(column.type, Json):
            # PostgreSQL does not compare JSON.
            return bool((found or "").removesuffix("::json") != (wanted or ""))
        # Each kind of database has a number of its own for a transaction.
        return False if column.name == "transaction_number" else None

    def compare(connection: Connection) -> list[object]:
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                "compare_server_default": is_another,
                "include_name": is_whole,
            },
        )
        return list(compare_metadata(context, Base.metadata))

    await upgrade(engine)
    async with engine.connect() as connection:
        assert await connection.run_sync(compare) == []


async def test_each_migration_goes_down_and_up_again(engine: AsyncEngine) -> None:
    """Every migration can be undone, and done again."""
    for revision in ("0001", "base"):
        await upgrade(engine)
        await downgrade(engine, revision)
    await upgrade(engine)


async def test_an_older_database_keeps_its_usage(engine: AsyncEngine) -> None:
    """Usage that was stored before an upgrade is there after it, and after going back."""
    tokens = {
        "01977f5e-3c00-7000-8000-000000000001": (2**63 - 1, 7),
        "01977f5e-3c00-7000-8000-000000000002": (2**63 - 1, 2),
        "ffffffff-ffff-7fff-bfff-ffffffffffff": (10, 4),
        "01977F5E-3C00-7000-8000-000000000003": (5, 9),
        "made-elsewhere": (3, None),
    }
    await upgrade(engine, "0001")
    async with engine.begin() as connection:
        for event_id, (input_tokens, cached) in tokens.items():
            row = _OLD_ROW | {"event_id": event_id}
            row |= {"input_tokens": input_tokens, "cached_input_tokens": cached}
            await connection.execute(insert(_OLD_EVENTS).values(row))
    await upgrade(engine)
    async with engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            await pg.set_scope(connection, ALL)
        found = await connection.execute(select(UsageEvents.event_id, UsageEvents.day))
        assert {row.event_id: row.day for row in found} == {
            event_id: day_of(event_id) for event_id in tokens
        }
        hours = UsageQuarters
        figures = select(hours.at, hours.requests, hours.input, hours.cached_input, hours.output)
        at, *sums = (await connection.execute(figures)).one()
        assert at == 1_750_000_000_123_456 // 3_600_000_000 * 3_600_000_000
        assert sums == [5, 2**63 - 1, 7 + 2 + 4 + 5, 5 * 6]
    await downgrade(engine, "0001")
    async with engine.connect() as connection:
        found = await connection.execute(text("SELECT event_id FROM usage_events ORDER BY 1"))
        assert {*found.scalars()} == {*tokens}


async def test_keys_that_read_usage_go_on_reading_costs(engine: AsyncEngine) -> None:
    """An upgrade gives keys with `usage:read` the scope of costs as well, and no other key."""
    kept = {"reader0000000": ["usage:read"], "caller0000000": ["inference", "models:read"]}
    await upgrade(engine, "0008")
    async with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            await pg.set_scope(connection, ALL)
        await _insert_keys(connection, kept)
    for target, costs in (("0009", ["costs:read"]), ("0008", [])):
        await (upgrade if costs else downgrade)(engine, target)
        async with engine.connect() as connection:
            if connection.dialect.name == "postgresql":
                await pg.set_scope(connection, ALL)
            rows = await connection.execute(select(ApiKeys.id, ApiKeys.scopes))
            assert {row.id: row.scopes for row in rows} == kept | {
                "reader0000000": [*costs, "usage:read"]
            }


async def test_labels_of_before_have_no_project(engine: AsyncEngine) -> None:
    """An upgrade keeps figures of labels under no project; going back adds projects up, exactly."""
    label: dict[str, Any] = {"organization": "a", "name": "cost", "value": "x", "at": 0}
    usage = label | {"model": "m", **dict.fromkeys(map(str, METERS), 3)}
    charge = {**label, "currency": "EUR", "kind": "charge"}
    charge |= {"amount": -1, "amount_rest": 600_000_000}
    await upgrade(engine, "0022")
    await _insert_labels(engine, usage, charge)
    await upgrade(engine, "0023")
    await _insert_labels(engine, {**usage, "project": "p"}, {**charge, "project": "p"})
    read = "SELECT usage.project, input, amount, amount_rest FROM usage_label_days AS usage"
    join = "JOIN charge_label_days AS charges ON charges.name = usage.name"
    found = await _read_all(engine, f"{read} {join} AND charges.project = usage.project ORDER BY 1")
    assert found == [("", 3, -1, 600_000_000), ("p", 3, -1, 600_000_000)]
    await downgrade(engine, "0022")
    assert await _read_all(engine, f"{read.replace('usage.project, ', '')} {join}") == [
        (6, -1, 200_000_000)
    ]


async def test_eighths_are_made_of_quarters(engine: AsyncEngine) -> None:
    """An upgrade adds quarters of hours up by eighths of days, exactly, to what a column holds."""
    usage = dict.fromkeys(map(str, METERS), 2**62) | {"requests": 7}
    charge = {"amount": -1, "amount_rest": 600_000_000}
    eighths: dict[Any, Any] = {
        UsageQuarters: UsageEighths,
        UsageProjectQuarters: UsageProjectEighths,
        UsageModelQuarters: UsageModelEighths,
        ChargeQuarters: ChargeEighths,
        ChargeProjectQuarters: ChargeProjectEighths,
        ChargeModelQuarters: ChargeModelEighths,
    }
    await upgrade(engine, "0027")
    for table in eighths:
        figures = usage if hasattr(table, "requests") else charge
        names = {column.name for column in table.__table__.columns} - {"at", *figures}
        cell = dict.fromkeys(names, "x")
        # The first and the last quarter of one eighth of a day, and the first one of the next.
        rows = [{**cell, **figures, "at": quarter * QUARTER_US} for quarter in (12, 23, 24)]
        await _insert(engine, table, rows)
    await upgrade(engine, "0028")
    for table in eighths.values():
        figures = usage if hasattr(table, "requests") else charge
        statement = select(table.at, *(getattr(table, name) for name in figures))
        first, second = await _read_all(engine, statement.order_by(table.at))
        assert (first[0], second) == (EIGHTH_US, (2 * EIGHTH_US, *figures.values()))
        is_used = figures is usage
        assert first[1:] == (
            (14, *[2**63 - 1] * (len(METERS) - 1)) if is_used else (-1, 200_000_000)
        )


async def test_how_requests_ended_before_is_counted(engine: AsyncEngine) -> None:
    """An upgrade counts how the requests of before ended, by hour; their times stay unknown."""
    hour_us = 3_600_000_000
    ended = (("ok", 0), ("ok", hour_us - 1), ("timeout", 5), ("ok", hour_us))
    column = UsageEvents.__table__.columns
    row = {
        name: {"VARCHAR": "x", "JSON": [], "BLOB": b"", "BOOLEAN": True}.get(str(kind.type), 1)
        for name, kind in column.items()
    }
    rows = [
        row | {"event_id": f"e{number}", "outcome": outcome, "started_at": at_us}
        for number, (outcome, at_us) in enumerate(ended)
    ]
    await upgrade(engine, "0025")
    await _insert(engine, UsageEvents, rows)
    await upgrade(engine, "0026")
    hours = UsageLatencyHours
    read = select(hours.organization, hours.at, hours.project, hours.model, hours.counts)
    assert await _read_all(engine, read.order_by(hours.at)) == [
        ("x", 0, "x", "x", {"outcomes": {"ok": 2, "timeout": 1}}),
        ("x", hour_us, "x", "x", {"outcomes": {"ok": 1}}),
    ]


async def _insert(engine: AsyncEngine, table: type[Base], rows: list[dict[str, Any]]) -> None:
    async with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            await pg.set_scope(connection, ALL)
        await connection.execute(insert(table), rows)


async def _insert_labels(engine: AsyncEngine, usage: Any, charge: Any) -> None:
    async with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            await pg.set_scope(connection, ALL)
        for kept, row in ((UsageLabelDays, usage), (ChargeLabelDays, charge)):
            # As it was then: with the columns that the row has.
            columns = [Column(name, kept.__table__.columns[name].type) for name in row]
            table = Table(kept.__tablename__, MetaData(), *columns)
            await connection.execute(insert(table).values(row))


async def _read_all(engine: AsyncEngine, statement: str | Select[Any]) -> list[tuple[Any, ...]]:
    async with engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            await pg.set_scope(connection, ALL)
        read = text(statement) if isinstance(statement, str) else statement
        return [tuple(row) for row in await connection.execute(read)]


async def _insert_keys(connection: AsyncConnection, scopes: dict[str, list[str]]) -> None:
    times = {"version": 1, "created_at": 1, "updated_at": 1}
    named = {"name": "one", "status": "active", **times}
    await connection.execute(insert(Organizations).values(id="org_a", **named))
    await connection.execute(insert(Projects).values(id="prj_a", organization_id="org_a", **named))
    for key_id, key_scopes in scopes.items():
        members: dict[str, Any] = {"id": key_id, "name": key_id, "scopes": key_scopes}
        members |= {
            "project_id": "prj_a",
            "organization_id": "org_a",
            "role": "developer",
            "created_by": "admin_token",
        }
        members |= {"is_live": True, "is_disabled": False, "labels": {}}
        await connection.execute(insert(ApiKeys).values(**members, **times))


async def test_every_table_of_organizations_has_a_wall(pg_database: Database) -> None:
    """Every table but the platform's own has a row-level policy that is forced."""
    statement = text(
        "SELECT relname, relrowsecurity AND relforcerowsecurity FROM pg_class "
        "WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
    )
    async with pg_database._reader.connect() as connection:
        walled = {row[0]: row[1] for row in await connection.execute(statement)}
    organizations = {
        table.name
        for table in Base.metadata.tables.values()
        if {"organization_id", "organization", "chain"} & set(table.columns.keys())
    } | {"organizations"}
    assert {name for name, is_walled in walled.items() if is_walled} >= organizations


async def test_the_role_is_no_superuser(pg_database: Database) -> None:
    """Tests connect as somebody whom walls hold: otherwise they would prove nothing."""
    async with pg_database._reader.connect() as connection:
        row = (
            await connection.execute(
                text("SELECT rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user")
            )
        ).one()
    assert tuple(row) == (False, False)


async def test_a_forgotten_condition_shows_nothing_of_others(pg_database: Database) -> None:
    """A statement without any condition sees, changes and deletes the session's rows only."""
    events = [make_event(1), make_event(2, organization="other")]
    async with pg_database.write(ALL) as session:
        await store.record_events(session, ALL, arrive(*events))
        await figure_store.add_figures(session, ALL, add_up(events))
    assert await _count(pg_database, ALL) == 2
    assert await _count(pg_database, ACME) == 1
    assert await _count(pg_database, Scope.of("nobody")) == 0
    async with pg_database.write(ACME) as session:
        assert await session.change(update(UsageDays).values(images=4)) == 1
        assert await session.change(delete(UsageDays)) == 1
    async with pg_database.read(Scope.of("other")) as session:
        assert (await session.rows(select(UsageDays.images)))[0][0] == 0


async def test_a_row_of_another_organization_is_not_taken(pg_database: Database) -> None:
    """PostgreSQL refuses what the store's own check let through."""
    with pytest.raises((ProgrammingError, DBAPIError), match="row-level security"):
        async with pg_database.write(ACME) as session:
            await _write(session, 1, "other")
    assert await _count(pg_database, ALL) == 0


async def test_a_connection_forgets_whose_it_was(pg_database: Database) -> None:
    """A connection that goes back to the pool shows nothing until the next scope is set."""
    async with pg_database.write(ALL) as session:
        await _write(session, 1)
    for _ in range(3):
        assert await _count(pg_database, ALL) == 1
    async with pg_database._reader.connect() as connection:
        count = await connection.execute(select(func.count(UsageEvents.event_id)))
        assert count.scalar() == 0


async def test_a_read_session_cannot_write(pg_database: Database) -> None:
    """Whatever statement a read session is given, PostgreSQL refuses to write."""
    with pytest.raises(DBAPIError, match="read-only"):
        async with pg_database.read(ALL) as session:
            await session._connection.execute(text("DELETE FROM usage_events"))


async def test_a_read_session_sees_one_state(pg_database: Database) -> None:
    """What others commit meanwhile is not seen by a session that has begun to read."""
    async with pg_database.read(ALL) as session:
        count = select(func.count(UsageEvents.event_id))
        assert (await session.rows(count))[0][0] == 0
        async with pg_database.write(ALL) as other:
            await _write(other, 1)
        assert (await session.rows(count))[0][0] == 0
    assert await _count(pg_database, ALL) == 1


async def test_a_statement_ends_in_time(pg_database: Database) -> None:
    """A statement that runs too long is ended by the server and counts as unavailable."""
    with pytest.raises(DatabaseUnavailableError):
        async with pg_database.read(ALL) as session:
            await session.rows(select(cast(func.pg_sleep(5), Text)))
    await pg_database.check()


async def test_a_migration_takes_as_long_as_it_needs(pg_database: Database) -> None:
    """A migration that waits for another process' is not ended as statements of requests are."""
    async with pg_database.write(ALL) as session:
        held = select(func.pg_advisory_xact_lock(migrate._MIGRATION_LOCK))
        await session._connection.execute(held)
        upgraded = asyncio.create_task(pg_database.open())
        await asyncio.sleep(3 * HASTE_MS / 1_000)
        assert not upgraded.done()
    await upgraded


async def test_a_server_that_is_away_is_unavailable(
    postgresql: PostgresqlServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A refused connection, a missing database and a missing socket are one kind of error."""
    addresses = [
        "postgresql://penstock:hunter2@127.0.0.1:1/none",
        f"postgresql://penstock:hunter2@/none?host={tmp_path}",
        postgresql.role_dsn("never_made"),
    ]
    for address in addresses:
        database = Database(address)
        with caplog.at_level(logging.WARNING), pytest.raises(DatabaseUnavailableError):
            await database.open()
        with pytest.raises(DatabaseUnavailableError):
            await database.check()
        await database.close()
    assert "hunter2" not in caplog.text


async def test_ended_connections_are_replaced(
    postgresql: PostgresqlServer, pg_database: Database
) -> None:
    """After the server ended all connections the next session works."""
    assert await _count(pg_database, ALL) == 0
    await postgresql.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE usename = 'penstock' AND pid <> pg_backend_pid()"
    )
    assert await _count(pg_database, ALL) == 0


async def test_a_connection_that_breaks_is_unavailable(
    postgresql: PostgresqlServer, pg_database: Database
) -> None:
    """A connection that is ended in the middle of a use case fails it as unavailable."""

    async def write_and_break() -> None:
        async with pg_database.write(ALL) as session:
            await _write(session, 1)
            await postgresql.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE usename = 'penstock' AND pid <> pg_backend_pid()"
            )
            await _write(session, 2)

    with pytest.raises(DatabaseUnavailableError):
        await write_and_break()
    assert await _count(pg_database, ALL) == 0


async def test_a_server_that_takes_no_writes_is_unavailable(
    postgresql: PostgresqlServer, pg_database: Database
) -> None:
    """After a failover to one that is read-only nothing is a bug of ours, and the next is asked."""
    async with pg_database.read(ALL) as session:
        name = (await session.rows(select(func.current_database())))[0][0]

    async def write(number: int) -> None:
        async with pg_database.write(ALL) as session:
            await _write(session, number)

    await postgresql.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await postgresql.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE usename = 'penstock' AND pid <> pg_backend_pid()"
    )
    with pytest.raises(DatabaseUnavailableError):
        await write(1)
    assert await _count(pg_database, ALL) == 0
    # The connection stays read-only, as one to a primary that is demoted and not stopped.
    await postgresql.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    await write(2)
    assert await _count(pg_database, ALL) == 1


@pytest.mark.parametrize("address", ["postgresql://[", "postgresql://a:b:c@x:port/y"])
def test_an_address_that_cannot_be_read_is_refused(address: str) -> None:
    """The error of a malformed address does not repeat it: it may hold a password."""
    with pytest.raises(ValueError, match="postgresql://user@host/name") as caught:
        Database(address)
    assert address not in str(caught.value)


def test_the_word_of_libpq_for_encryption_is_understood() -> None:
    """`sslmode` of an address becomes what the driver calls ssl."""
    url = pg.parse_dsn("postgresql://a@b/c?sslmode=require")
    assert url.query == {"ssl": "require"}
    assert url.drivername == "postgresql+asyncpg"


async def test_a_broken_rule_is_an_error_of_its_own(database: Database) -> None:
    """What stands against a row is told apart from a database that is away."""

    async def write_twice() -> None:
        async with database.write(ALL) as session:
            row = {"chain": "a", "number": 1, "hash": b""}
            await session.insert(AuditHeads, row, row)

    with pytest.raises(RowConflictError):
        await write_twice()


async def test_changes_are_numbered_in_order_of_commit(database: Database) -> None:
    """Who follows the change feed misses nothing, however many transactions write at once."""
    seen: list[int] = []
    is_done = asyncio.Event()
    # Some lock the configuration from their beginning, some later; some make one change, some more.
    names = {
        number: [f"key-{number}-{part}" for part in range(1 + number % 3)] for number in range(30)
    }

    async def write(number: int) -> None:
        async with database.write(ALL, is_alone=number % 2 == 0) as session:
            for name in names[number]:
                await record_change(session, "key", name, number)
            await asyncio.sleep(0.001 * (number % 4))

    async def follow() -> None:
        while not (is_done.is_set() and len(seen) >= sum(map(len, names.values()))):
            async with database.read(ALL) as session:
                changes = await list_changes(session, seen[-1] if seen else 0, 7)
            seen.extend(seq for seq, _, _ in changes)
            await asyncio.sleep(0)

    follower = asyncio.create_task(follow())
    await asyncio.gather(*map(write, names))
    is_done.set()
    await asyncio.wait_for(follower, 20)
    async with database.read(ALL) as session:
        stored = await list_changes(session, 0, 100)
        assert await get_last_change(session) == stored[-1][0]
    assert seen == [seq for seq, _, _ in stored]
    assert sorted(object_id for _, _, object_id in stored) == sorted(
        chain.from_iterable(names.values())
    )


async def test_a_change_that_was_rolled_back_is_not_told(database: Database) -> None:
    """A change is in the feed if and only if it happened."""

    async def fail() -> None:
        async with database.write(ALL) as session:
            await record_change(session, "key", "a", 1)
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    async with database.read(ALL) as session:
        assert await get_last_change(session) == 0
        assert await session.first(select(literal(1)).where(literal(1) == 0)) is None
