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
from penstock.metering.bucket_model import BucketQuery
from penstock.metering.bucket_service import list_usage_buckets
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

_QUERIES: dict[str, dict[str, Any]] = {
    "by month": {"width": "month"},
    "by month and model": {"width": "month", "group_by": ("model",)},
    "by month and project": {"width": "month", "group_by": ("project",)},
    "by month and key, first 1,000": {"width": "month", "group_by": ("key_id",)},
    "by day": {"width": "day"},
    "by day and model, first 1,000": {"width": "day", "group_by": ("model",)},
    "by day and key, first 1,000": {"width": "day", "group_by": ("key_id",)},
    "by day of one project": {"width": "day", "filters": {"project": "project-7"}},
    "by day of one key": {"width": "day", "filters": {"key_id": "key-77"}},
    "by month of one key": {"width": "month", "filters": {"key_id": "key-77"}},
}
_BERLIN: dict[str, Any] = {"zone": ZoneInfo("Europe/Berlin")}
_QUERIES |= {f"{name}, Berlin": {**members, **_BERLIN} for name, members in _QUERIES.items()}
_AUCKLAND: dict[str, Any] = {"zone": ZoneInfo("Pacific/Auckland")}
_QUERIES |= {
    f"{name}, Auckland": {**_QUERIES[name], **_AUCKLAND}
    for name in (
        "by month",
        "by month and project",
        "by day",
        "by day and model, first 1,000",
        "by day of one project",
        "by day of one key",
    )
}
_QUERIES |= {
    "by day, New York": {"width": "day", "zone": ZoneInfo("America/New_York")},
    "by day, Tokyo": {"width": "day", "zone": ZoneInfo("Asia/Tokyo")},
    "by day, Kathmandu": {"width": "day", "zone": ZoneInfo("Asia/Kathmandu")},
}
KEY_DAYS = 4
"""The first days: of these all keys have quarters, and of the others one in fifty."""


def _rows(first: int, last: int, *, is_postgresql: bool) -> str:
    """Return a query of one row for each key, model and day, of those of these numbers."""
    at = f"{FIRST_US} + (n % {DAYS}) * {DAY_US}"
    if is_postgresql:
        at = f"to_timestamp({FIRST_US // 1_000_000}::bigint + (n % {DAYS}) * 86400)"
    key = f"n / {MODELS * DAYS}"
    return (
        f"SELECT '{ORGANIZATION}' AS organization, 'project-' || ({key} % {PROJECTS}) AS project, "
        f"'key-' || ({key}) AS key_id, 'model-' || (n / {DAYS} % {MODELS}) AS model, "
        f"'internal' AS data_class, 'eu' AS region, {at} AS at, 1000 + n % 977 AS figure "
        f"FROM {numbers('n', first, last, is_postgresql=is_postgresql)}"
    )


def _statements(keys: int, *, is_postgresql: bool) -> list[str]:
    meters = ", ".join(METERS)
    figures = ", ".join("figure" for _ in METERS)
    sums = ", ".join(f"sum({meter})" for meter in METERS)
    _, month = starts(is_postgresql=is_postgresql)
    fold = "sum(amount) + sum(amount_rest) / 1000000000, sum(amount_rest) % 1000000000"
    place, all_keys = "organization, project, model, data_class", "key_id, "
    amounts = "currency, kind, amount, amount_rest"
    count = keys * MODELS * DAYS
    step = -(-count // PARTS)
    statements = []
    for first in range(0, count, step):
        last = min(first + step, count) - 1
        rows = f"({_rows(first, last, is_postgresql=is_postgresql)}) AS rows"
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
    early = f"at < {FIRST_US + KEY_DAYS * DAY_US}"
    if is_postgresql:
        later = "at + quarter * interval '15 minutes'"
        early = f"at < to_timestamp({(FIRST_US + KEY_DAYS * DAY_US) // 1_000_000})"
    for kind, more, columns in (
        ("usage", "region", meters),
        ("charge", "currency, kind", "amount, amount_rest"),
    ):
        for suffix, key, which in (
            ("quarters", all_keys, f"WHERE {early} OR key_id LIKE '%77'"),
            ("project_quarters", "", ""),
        ):
            names = f"{key}{place}, {more}"
            days = suffix.replace("quarters", "days")
            listed = f"(SELECT column1 AS quarter FROM (VALUES {quarters}) AS listed) AS q"
            # As usage comes: one after the other.
            source = f"{kind}_{days}, {listed} {which} ORDER BY {later}"
            into = f"INSERT INTO {kind}_{suffix} ({names}, at, {columns})"
            statements.append(f"{into} SELECT {names}, {later}, {columns} FROM {source}")
        names = f"organization, model, data_class, {more}"
        into = f"INSERT INTO {kind}_model_quarters ({names}, at, {columns})"
        source = f"{kind}_project_quarters GROUP BY {names}, at ORDER BY at"
        folded = sums if kind == "usage" else fold
        statements.append(f"{into} SELECT {names}, at, {folded} FROM {source}")
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
    for _ in range(ROUNDS):
        async with database.read(scope) as session:
            begin = time.perf_counter()
            usage = await list_usage_buckets(session, scope, query)
            middle = time.perf_counter()
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
