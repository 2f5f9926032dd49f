"""How long all books take to be verified: a year of 10 million events, on both databases.

Twenty organizations with ten keys and models each, three batches an hour; each event has a charge
and a cost. Rows are written by SQL, as ingest leaves them, and past no rule of the tables.

usage: python benches/usage/books.py [--only sqlite|postgresql] [--days N] [--check]
"""
# ruff: noqa: S608 - names and figures of ours

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).parents[2]))

from benches.usage.databases import measure_each, numbers, starts
from benches.usage.plane import KINDS, Kind
from sqlalchemy import text

from penstock.ledger import verify_store
from penstock.ledger.verifying import verify
from penstock.storage.database import Database
from penstock.storage.partitions import create_part
from penstock.storage.scope import Scope

ALL = Scope.all_organizations()
FIRST_DAY = 20_089
"""2025 begins."""
DAYS = 365
PER_HOUR = 1_152
PER_BATCH = 384
ORGANIZATIONS = 20
CELLS = 200
"""Keys of organizations, each with two models."""
DAYS_AT_ONCE = 20
"""What a statement writes: PostgreSQL ends those that take long."""
LIMIT_S = 60
_CHARGED = "organization, project, key_id, model, data_class, currency, kind"
_ACCOUNTS = {"charge": ("accrued_usage", "revenue"), "cost": ("provider_cogs", "provider_payable")}


class _Sql:
    """The statements that fill the books, for one kind of database."""

    def __init__(self, *, is_postgresql: bool) -> None:
        """See the class."""
        self._is_postgresql = is_postgresql

    def accounts(self) -> Iterator[str]:
        """Yield what makes accounts."""
        owners = self._numbers("o", 0, ORGANIZATIONS - 1)
        for kind in (name for pair in _ACCOUNTS.values() for name in pair):
            yield (
                "INSERT INTO ledger_accounts (id, organization_id, kind, currency, qualifier) "
                f"SELECT '{kind}-' || o, 'org_' || o, '{kind}', 'EUR', '' FROM {owners}"
            )

    def days(self, first: int, last: int) -> Iterator[str]:
        """Yield what books the events of some days, counted from the first."""
        rows = self._rows(first * 24 * PER_HOUR, (last + 1) * 24 * PER_HOUR - 1)
        yield (
            "INSERT INTO rated_usage (day, event_id, kind, run_id, organization, currency, "
            "price_id, amount, amount_rest, transfer_id, recorded_at) "
            f"SELECT day, event_id, kind, '', organization, 'EUR', 'prc_' || model, "
            f"amount, rest, transfer_id, at FROM {rows}"
        )
        sums = "sum(amount) AS whole, sum(rest) AS rests"
        booked = (
            f"(SELECT transfer_id, organization, kind, min(at) AS at, {sums} FROM {rows} "
            "GROUP BY 1, 2, 3) AS booked"
        )
        entry = (
            "INSERT INTO entries (transfer_id, line, lines, organization_id, currency, booked_at, "
            "account_id, amount, amount_rest) SELECT transfer_id"
        )
        for kind, (debit, credit) in _ACCOUNTS.items():
            owner, only = "organization, 'EUR', at", f"FROM {booked} WHERE kind = '{kind}'"
            number = "substr(organization, 5)"
            yield f"{entry}, 1, 2, {owner}, '{debit}-' || {number}, whole, rests {only}"
            yield (
                f"{entry}, 2, 2, {owner}, '{credit}-' || {number}, -whole - 1, "
                f"1000000000 - rests {only}"
            )
        yield (
            "INSERT INTO transfers (id, organization_id, kind, idempotency_key, currency, "
            "booked_at, recorded_at, lines) "
            f"SELECT transfer_id, organization, kind, transfer_id, 'EUR', at, at, 2 FROM {booked}"
        )
        yield (
            f"INSERT INTO charge_quarters ({_CHARGED}, at, amount, amount_rest) "
            f"SELECT organization, project, key_id, model, 'internal', 'EUR', kind, at, "
            f"sum(amount), sum(rest) FROM {rows} GROUP BY 1, 2, 3, 4, 7, 8"
        )

    def folds(self) -> Iterator[str]:
        """Yield what adds hours up."""
        eighth, day, month = starts(is_postgresql=self._is_postgresql)
        projects = _CHARGED.replace("key_id, ", "")
        models = projects.replace("project, ", "")
        for table, source, names, at in (
            ("charge_days", "charge_quarters", _CHARGED, day),
            ("charge_months", "charge_days", _CHARGED, month),
            ("charge_project_quarters", "charge_quarters", projects, "at"),
            ("charge_project_days", "charge_days", projects, "at"),
            ("charge_model_quarters", "charge_project_quarters", models, "at"),
            ("charge_eighths", "charge_quarters", _CHARGED, eighth),
            ("charge_project_eighths", "charge_eighths", projects, "at"),
            ("charge_model_eighths", "charge_project_eighths", models, "at"),
        ):
            yield (
                f"INSERT INTO {table} ({names}, at, amount, amount_rest) SELECT {names}, {at}, "
                f"sum(amount), sum(amount_rest) FROM {source} GROUP BY {names}, {at}"
            )

    def _rows(self, first: int, last: int) -> str:
        """Return a query of the rated rows of some events."""
        at_s = f"{FIRST_DAY * 86_400} + n / {PER_HOUR} * 3600"
        at = f"to_timestamp({at_s})" if self._is_postgresql else f"({at_s}) * 1000000"
        cell = f"(n % {CELLS})"
        owner, key = f"({cell} % {ORGANIZATIONS})", f"({cell} / {ORGANIZATIONS} % 5)"
        transfer = f"((n / {PER_BATCH} * {ORGANIZATIONS} + {owner}) * 2 + is_cost)"
        return (
            f"(SELECT {FIRST_DAY} + n / {24 * PER_HOUR} AS day, {at} AS at, "
            f"'0194199d-5400-7000-8000-' || {self._hex('n')} AS event_id, "
            f"'tra_' || {self._hex(transfer)} AS transfer_id, 'org_' || {owner} AS organization, "
            f"'prj_' || {owner} || '_' || {key} AS project, "
            f"'key_' || {owner} || '_' || {key} AS key_id, "
            f"'model-' || {cell} / {CELLS // 2} AS model, kind, "
            "1000000 + n % 9973 * 7919 % 100003 AS amount, 1 + n % 1000 AS rest "
            f"FROM {self._numbers('n', first, last)}, "
            "(SELECT 'charge' AS kind, 0 AS is_cost UNION ALL SELECT 'cost', 1) AS kinds) AS rows"
        )

    def _numbers(self, name: str, first: int, last: int) -> str:
        return numbers(name, first, last, is_postgresql=self._is_postgresql)

    def _hex(self, number: str) -> str:
        if self._is_postgresql:
            return f"lpad(to_hex({number}), 12, '0')"
        return f"printf('%012x', {number})"


async def _fill(database: Database, days: int, *, is_postgresql: bool) -> None:
    sql = _Sql(is_postgresql=is_postgresql)
    parts = range(0, days, DAYS_AT_ONCE)
    groups = [list(sql.accounts())]
    groups += [list(sql.days(first, min(first + DAYS_AT_ONCE, days) - 1)) for first in parts]
    groups.append(list(sql.folds()))
    if is_postgresql:
        kept = range(FIRST_DAY, FIRST_DAY + days)
        groups.insert(0, [part for day in kept for part in create_part("rated_usage", day)])
        # As its autovacuum does before long.
        groups.append(["ANALYZE"])
    for statements in groups:
        async with database.write(ALL) as session:
            await session.tune(statement_timeout="0")
            for statement in statements:
                await session.change(cast("Any", text(statement)))


async def _measure(kind: Kind, database: Database, days: int) -> float:
    begin = time.perf_counter()
    await _fill(database, days, is_postgresql=kind == "postgresql")
    took_s = time.perf_counter() - begin
    events = days * 24 * PER_HOUR
    print(f"\n{kind}: the books of {events:,} events, written in {took_s:.0f} s\n")
    print("| check | seconds |\n|---|--:|")
    total_s = 0.0
    for name in verify_store.NAMES:
        async with database.read(ALL) as session:
            begin = time.perf_counter()
            found = await verify_store.find_violations(session, ALL, name, 1)
            took_s = time.perf_counter() - begin
        if found:
            message = f"the books are wrong: {found[0]}"
            raise RuntimeError(message)
        print(f"| {name} | {took_s:.1f} |", flush=True)
        total_s += took_s
    print(f"| one after the other | {total_s:.1f} |")
    begin = time.perf_counter()
    await verify(lambda: database.read(ALL, is_long=True))
    took_s = time.perf_counter() - begin
    print(f"| side by side, as `ledger verify` does | {took_s:.1f} |")
    return took_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=KINDS)
    parser.add_argument("--days", type=int, default=DAYS)
    parser.add_argument("--check", action="store_true", help="end with status 1 over the limit")
    options = parser.parse_args()

    async def measure(kind: Kind, database: Database) -> float:
        return await _measure(kind, database, options.days)

    slowest = measure_each(measure, options.only)
    print(f"\nThe slower took {slowest:.0f} s; the limit is {LIMIT_S} s.")
    if options.check and slowest > LIMIT_S:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
