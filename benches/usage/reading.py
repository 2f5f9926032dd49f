"""How long a year of a large organization takes: 500 keys, 5 models, 365 days, on both databases.

usage: python benches/usage/reading.py [--keys N] [--only sqlite|postgresql] [--check]
"""
# ruff: noqa: S608 - names and figures of ours

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

sys.path.insert(0, str(Path(__file__).parents[2]))

from benches.usage.databases import measure_each, numbers, starts
from benches.usage.plane import KINDS, Kind
from sqlalchemy import text

from penstock.contract.usage import METERS
from penstock.metering.bucket_model import BucketPage, BucketQuery
from penstock.metering.bucket_service import list_usage_buckets
from penstock.rating.cost_model import CostResult
from penstock.rating.cost_service import list_costs, month_charges
from penstock.storage.database import Database
from penstock.storage.scope import Scope

ALL = Scope.all_organizations()
ORGANIZATION = "org_4mJ0wq8ZtK1c"
FIRST_US = 1_735_689_600_000_000
"""2025 begins."""
DAY_US = 86_400_000_000
MODELS = 5
PROJECTS = 20
DAYS = 365
PARTS = 20
"""Statements that the days are written with: PostgreSQL ends those that take long."""
LIMIT_MS = 300
ROUNDS = 7

_WIDE: dict[str, dict[str, Any]] = {
    "by month": {"width": "month"},
    "by month and model": {"width": "month", "group_by": ("model",)},
    "by month and project": {"width": "month", "group_by": ("project",)},
    "by month and key": {"width": "month", "group_by": ("key_id",)},
    "by month of one key": {"width": "month", "filters": {"key_id": "key-77"}},
    "by day": {"width": "day"},
    "by day and model": {"width": "day", "group_by": ("model",)},
    "by day and class": {"width": "day", "group_by": ("data_class",)},
    "by day and project": {"width": "day", "group_by": ("project",)},
    "by day and key": {"width": "day", "group_by": ("key_id",)},
    "by day, key and model": {"width": "day", "group_by": ("key_id", "model")},
    "by day of one model": {"width": "day", "filters": {"model": "model-3"}},
    "by day of one project": {"width": "day", "filters": {"project": "project-7"}},
    "by day and key of one project": {
        "width": "day",
        "group_by": ("key_id",),
        "filters": {"project": "project-7"},
    },
    "by day of one key": {"width": "day", "filters": {"key_id": "key-77"}},
}
_HOURS: dict[str, dict[str, Any]] = {
    "by hour": {"width": "hour"},
    "by hour and model": {"width": "hour", "group_by": ("model",)},
    "by hour and project": {"width": "hour", "group_by": ("project",)},
    "by hour and key": {"width": "hour", "group_by": ("key_id",)},
    "by hour of one project": {"width": "hour", "filters": {"project": "project-7"}},
    "by hour of one key": {"width": "hour", "filters": {"key_id": "key-77"}},
}
ZONES = ("Europe/Berlin", "Pacific/Auckland", "Asia/Kathmandu", "America/St_Johns")
_QUERIES = (
    _WIDE
    | _HOURS
    | {
        f"{name}, {zone.rpartition('/')[2]}": {**members, "zone": ZoneInfo(zone)}
        for zone in ZONES
        for name, members in _WIDE.items()
    }
)
"""A page is of 1,000 results: of groups, a part of the year."""
KEY_DAYS = (0, 1, 2, 3, 30, 31, 58, 59)
"""Days of which all keys have quarters: those that pages of days and months are read from."""
PROJECT_DAYS = 45
"""The same of the keys of the one project. Of the other days one key of a hundred has quarters."""


def _at(day: str, *, is_postgresql: bool) -> str:
    """Return when a day begins, counted from the first."""
    if is_postgresql:
        return f"to_timestamp({FIRST_US // 1_000_000}::bigint + {day} * 86400)"
    return f"{FIRST_US} + {day} * {DAY_US}"


def _rows(keys: int, first: int, last: int, *, is_postgresql: bool) -> str:
    """Return a query of one row for each key, model and day, of those of these numbers."""
    # As usage comes: one day after the other.
    day, key = f"(n / {MODELS * keys})", f"(n % {keys})"
    at = _at(day, is_postgresql=is_postgresql)
    return (
        f"SELECT '{ORGANIZATION}' AS organization, 'project-' || ({key} % {PROJECTS}) AS project, "
        f"'key-' || {key} AS key_id, 'model-' || (n / {keys} % {MODELS}) AS model, "
        f"'internal' AS data_class, 'eu' AS region, {at} AS at, 1000 + n % 977 AS figure "
        f"FROM {numbers('n', first, last, is_postgresql=is_postgresql)}"
    )


def _statements(keys: int, *, is_postgresql: bool) -> list[str]:
    meters = ", ".join(METERS)
    figures = ", ".join("figure" for _ in METERS)
    sums = ", ".join(f"sum({meter})" for meter in METERS)
    eighth, _, month = starts(is_postgresql=is_postgresql)
    fold = "sum(amount) + sum(amount_rest) / 1000000000, sum(amount_rest) % 1000000000"
    place, all_keys = "organization, project, model, data_class", "key_id, "
    amounts = "currency, kind, amount, amount_rest"
    count = keys * MODELS * DAYS
    step = -(-count // PARTS)
    statements = []
    for first in range(0, count, step):
        last = min(first + step, count) - 1
        rows = f"({_rows(keys, first, last, is_postgresql=is_postgresql)}) AS rows"
        names = f"{all_keys}{place}, at"
        day = f"INSERT INTO usage_days ({names}, region, {meters})"
        statements.append(f"{day} SELECT {names}, region, {figures} FROM {rows}")
        charged = "'EUR', 'charge', figure * 1000, figure"
        charge = f"INSERT INTO charge_days ({names}, {amounts})"
        statements.append(f"{charge} SELECT {names}, {charged} FROM {rows}")
    for suffix, key, at in (("months", all_keys, month), ("project_days", "", "at")):
        for kind, more, folded in (("usage", "region", sums), ("charge", "currency, kind", fold)):
            columns = meters if kind == "usage" else "amount, amount_rest"
            names = f"{key}{place}, {more}"
            into = f"INSERT INTO {kind}_{suffix} ({names}, at, {columns})"
            group = f"FROM {kind}_days GROUP BY {names}, {at} ORDER BY {at}"
            statements.append(f"{into} SELECT {names}, {at}, {folded} {group}")
    quarters = ", ".join(f"({quarter})" for quarter in range(96))
    later = "at + quarter * 900000000"
    whole = ", ".join(_at(str(day), is_postgresql=is_postgresql) for day in KEY_DAYS)
    early = f"at < {_at(str(PROJECT_DAYS), is_postgresql=is_postgresql)}"
    dense = f"at IN ({whole}) OR key_id LIKE '%77' OR project = 'project-7' AND {early}"
    if is_postgresql:
        later = "at + quarter * interval '15 minutes'"
    for kind, more, columns in (
        ("usage", "region", meters),
        ("charge", "currency, kind", "amount, amount_rest"),
    ):
        for suffix, key, which in (
            ("quarters", all_keys, f"WHERE {dense}"),
            ("project_quarters", "", ""),
        ):
            names = f"{key}{place}, {more}"
            days = suffix.replace("quarters", "days")
            listed = f"(SELECT column1 AS quarter FROM (VALUES {quarters}) AS listed) AS q"
            # As usage comes: one after the other.
            source = f"{kind}_{days}, {listed} {which} ORDER BY {later}"
            into = f"INSERT INTO {kind}_{suffix} ({names}, at, {columns})"
            statements.append(f"{into} SELECT {names}, {later}, {columns} FROM {source}")
        folded = sums if kind == "usage" else fold
        project = f"organization, project, model, data_class, {more}"
        model = project.replace("project, ", "")
        for table, source, names, at in (
            ("model_quarters", "project_quarters", model, "at"),
            ("eighths", "quarters", f"key_id, {project}", eighth),
            ("project_eighths", "project_quarters", project, eighth),
            ("model_eighths", "model_quarters", model, eighth),
        ):
            into = f"INSERT INTO {kind}_{table} ({names}, at, {columns})"
            rows = f"FROM {kind}_{source} GROUP BY {names}, {at} ORDER BY {at}"
            statements.append(f"{into} SELECT {names}, {at}, {folded} {rows}")
    return statements


async def _fill(database: Database, keys: int, *, is_postgresql: bool) -> None:
    for statement in _statements(keys, is_postgresql=is_postgresql):
        async with database.write(ALL) as session:
            await session.tune(statement_timeout="0")
            await session.change(cast("Any", text(statement)))
    if is_postgresql:
        # As its autovacuum does before long; nothing does it for SQLite.
        async with database.write(ALL) as session:
            await session.change(cast("Any", text("ANALYZE")))


async def _time(database: Database, name: str, members: dict[str, Any]) -> tuple[float, float]:
    """Return the milliseconds of a page of usage and of one of costs: medians."""
    scope = Scope.of(ORGANIZATION)
    query = BucketQuery(**({"filters": {}} | members), limit=1_000)
    usage_ms, costs_ms = [], []
    costs: BucketPage[CostResult] = BucketPage([], None)
    for _ in range(ROUNDS):
        async with database.read(scope) as session:
            begin = time.perf_counter()
            usage = await list_usage_buckets(session, scope, query)
            middle = time.perf_counter()
            if query.width != "hour":
                costs = await list_costs(session, scope, query, has_costs=False)
            end = time.perf_counter()
        usage_ms.append((middle - begin) * 1_000)
        costs_ms.append((end - middle) * 1_000)
    found = (statistics.median(usage_ms), statistics.median(costs_ms))
    print(
        f"| {name} | {len(usage.results):,} | {found[0]:.0f} | {len(costs.results):,} "
        f"| {found[1]:.0f} |"
    )
    return found


async def _measure(kind: Kind, database: Database, keys: int) -> float:
    begin = time.perf_counter()
    await _fill(database, keys, is_postgresql=kind == "postgresql")
    took_s = time.perf_counter() - begin
    print(f"\n{kind}: {keys * MODELS * DAYS:,} rows of days, written in {took_s:.0f} s\n")
    print("| a year | results | usage, ms | results | costs, ms |\n|---|--:|--:|--:|--:|")
    found = [await _time(database, name, members) for name, members in _QUERIES.items()]
    async with database.read(Scope.of(ORGANIZATION)) as session:
        begin = time.perf_counter()
        await month_charges(session, ORGANIZATION, FIRST_US)
        took_ms = (time.perf_counter() - begin) * 1_000
    print(f"\nA month's charges by model: {took_ms:.0f} ms")
    return max(max(pair) for pair in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=500)
    parser.add_argument("--only", choices=KINDS)
    parser.add_argument("--check", action="store_true", help="end with status 1 over the limit")
    options = parser.parse_args()

    async def measure(kind: Kind, database: Database) -> float:
        return await _measure(kind, database, options.keys)

    slowest = measure_each(measure, options.only)
    print(f"\nThe slowest page took {slowest:.0f} ms; the limit is {LIMIT_MS} ms.")
    if options.check and slowest > LIMIT_MS:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
