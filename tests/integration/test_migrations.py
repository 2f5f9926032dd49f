"""The schema of both kinds of database, and what becomes of data that is older."""

import asyncio
import importlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Column, Connection, MetaData, Select, Table, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from tests.fakes.databases import until_somebody_waits
from tests.fakes.postgresql_server import PostgresqlServer

import penstock
from penstock.access.tables import ApiKeys
from penstock.contract.usage import METERS
from penstock.limits.budget_tables import BudgetCharges, Budgets, BudgetWindows
from penstock.metering.rules import day_of
from penstock.metering.tables import (
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
from penstock.storage import postgresql as pg
from penstock.storage.base import Base, Json
from penstock.storage.database import Database
from penstock.storage.migrate import downgrade, upgrade
from penstock.storage.scope import Scope
from penstock.tenancy.tables import Organizations, Projects

ALL = Scope.all_organizations()

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
        names = {column.name for column in table.__table__.columns}
        names -= {"at", "amount_high", *figures}
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


async def test_usage_comes_while_large_amounts_get_their_columns(
    postgresql: PostgresqlServer,
) -> None:
    """Who writes usage meanwhile waits for the migration, or it for them, and never both."""
    name = await postgresql.create(is_migrated=False)
    engine = pg.create_write_engine(postgresql.role_dsn(name))
    await upgrade(engine, "0029")

    async def migrate() -> None:
        while True:
            try:
                return await upgrade(engine, "0030")
            except DBAPIError as error:
                if "lock timeout" not in str(error):
                    raise

    async with engine.begin() as usage:
        await usage.execute(text("LOCK TABLE rated_meters IN ROW EXCLUSIVE MODE"))
        migrating = asyncio.create_task(migrate())
        await until_somebody_waits(usage)
        for table in ("charge_quarters", "charge_label_days", "budget_windows"):
            await usage.execute(text(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE"))
    await migrating
    await engine.dispose()
    await postgresql.drop(name)


async def test_windows_say_what_was_spent(engine: AsyncEngine) -> None:
    """An upgrade adds up what ended at what a column holds; going back, it ends there again."""
    most = 2**63 - 1
    times = {"version": 1, "created_at": 1, "updated_at": 1}
    budget = {"currency": "VND", "amount": 1, "period": "once", "time_zone": "UTC", "per": ""}
    budget |= {"is_hard": False, "lowers_cap": True, "exhausted_status": 429}
    owner = {"organization_id": "org_a"}
    window = owner | {"subject": "", "starts_at": 0}
    charges = {
        "bud_huge": [(6 * 10**18 + 1, 600_000_000)] * 3,
        "bud_edge": [(most, 0)],
        "bud_small": [(5, 7), (most - 6, 3)],
    }
    settled = {"bud_huge": (most, 0), "bud_edge": (most, 0), "bud_small": (most - 1, 10)}
    await upgrade(engine, "0032")
    await _insert(
        engine, Organizations, [{"id": "org_a", "name": "a", "status": "active", **times}]
    )
    for number, (name, amounts) in enumerate(charges.items()):
        members = {"id": name, "owner_kind": "organization", "alert_percentages": [number]}
        await _insert(engine, Budgets, [owner | budget | times | members])
        names = ("settled", "settled_rest")
        spent = dict(zip(names, settled[name], strict=True))
        await _insert(engine, BudgetWindows, [window | spent | {"budget_id": name, "held": 0}])
        rows = [
            window
            | {"budget_id": name, "event_id": f"{place}", "amount": amount, "amount_rest": rest}
            for place, (amount, rest) in enumerate(amounts)
        ]
        await _insert(engine, BudgetCharges, rows)
    await upgrade(engine, "0033")
    read = "SELECT settled_high, settled, settled_rest FROM budget_windows ORDER BY budget_id"
    rest = most - 9 * 10**18
    assert await _read_all(engine, read) == [
        (9, rest, 0),
        (18, 4, 800_000_000),
        (0, most - 1, 10),
    ]
    await downgrade(engine, "0032")
    assert await _read_all(engine, read.replace("settled_high, ", "")) == [
        (most, 0),
        (most, 0),
        (most - 1, 10),
    ]


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
