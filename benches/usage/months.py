"""How long a month's usage of an organization takes to add up, where there are many events."""

import asyncio
import datetime as dt
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benches.usage.plane import Kind
from sqlalchemy import func, select
from tests.fakes.organizations import ALL
from tests.fakes.postgresql_server import run_cluster

from penstock.contract.usage import METERS
from penstock.metering.tables import UsageDays
from penstock.storage.bulk import Bulk
from penstock.storage.database import Database
from penstock.storage.scope import Scope

EVENTS = 10_000_000
DAYS = 365
KEYS = 200
"""Of the one large organization that has half of the events, each with two models."""
OTHERS = 100
"""Organizations with ten cells a day each."""
_LARGE = "org-large"
_START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
_NAMES = ("organization", "at", "project", "key_id", "model", "data_class", "region", *METERS)
_CELLS = Bulk(UsageDays, _NAMES)


@dataclass(frozen=True, slots=True)
class Months:
    """How long questions take, in ms: medians over the months of a year."""

    kind: Kind
    rows: int
    """In the figures of days."""
    by_model_ms: float
    by_key_ms: float
    year_ms: float
    """All of a year by model."""


def measure(kind: Kind, folder: Path) -> Months:
    """Fill the figures as 10 million events would, and ask."""
    if kind == "sqlite":
        return asyncio.run(_measure(kind, folder / "months.db"))
    with run_cluster(is_durable=True) as cluster:
        asyncio.run(cluster.server.prepare())
        name = asyncio.run(cluster.server.create())
        return asyncio.run(_measure(kind, cluster.server.role_dsn(name)))


async def _measure(kind: Kind, location: Path | str) -> Months:
    database = Database(location)
    await database.open()
    rows = await _fill(database)
    months = [_START + dt.timedelta(days=30 * number) for number in range(12)]
    by_model = [await _ask(database, "model", month, 30) for month in months]
    by_key = [await _ask(database, "key_id", month, 30) for month in months]
    year = [await _ask(database, "model", _START, DAYS) for _ in range(5)]
    await database.close()
    medians = (statistics.median(times) for times in (by_model, by_key, year))
    return Months(kind, rows, *medians)


async def _fill(database: Database) -> int:
    """Write what the events would have left, and return how many rows that is."""
    cells = [
        (_LARGE, f"project-{key % 10}", f"key-{key}", f"model-{key % 4 + model}")
        for key in range(KEYS)
        for model in range(2)
    ]
    others = [
        (f"org-{owner}", "project", f"key-{cell}", f"model-{cell % 4}")
        for owner in range(OTHERS)
        for cell in range(10)
    ]
    share = EVENTS // 2 // DAYS
    for day in range(DAYS):
        at_us = int((_START + dt.timedelta(days=day)).timestamp()) * 1_000_000
        rows = sorted(
            (owner, at_us, project, key, model, "", "eu", *_figures(share // len(each)))
            for each in (cells, others)
            for owner, project, key, model in each
        )
        async with database.write(ALL) as session:
            await session.insert_many(_CELLS, rows)
    return DAYS * (len(cells) + len(others))


def _figures(requests: int) -> list[int]:
    used = {"requests": 1, "input": 800, "cached_input": 100, "output": 250}
    return [requests * used.get(meter, 0) for meter in METERS]


async def _ask(database: Database, by: str, start: dt.datetime, days: int) -> float:
    column = getattr(UsageDays, by)
    start_us = int(start.timestamp()) * 1_000_000
    sums: list[Any] = [func.sum(getattr(UsageDays, meter)) for meter in METERS]
    statement = (
        select(column, *sums)
        .where(
            UsageDays.organization == _LARGE,
            UsageDays.at >= start_us,
            UsageDays.at < start_us + days * 86_400_000_000,
        )
        .group_by(column)
        .order_by(column)
    )
    begin = time.perf_counter()
    async with database.read(Scope.of(_LARGE)) as session:
        found = await session.rows(statement)
    elapsed_ms = (time.perf_counter() - begin) * 1e3
    cells = KEYS * 2
    wanted = EVENTS // 2 // DAYS // cells * cells * days
    # An answer of nothing would be quick, too.
    if sum(int(row[1]) for row in found) != wanted:
        message = "the month does not have its events"
        raise RuntimeError(message)
    return elapsed_ms
