"""An empty database of each kind to fill and to ask, and what fills both alike."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from benches.usage.plane import KINDS, Kind
from tests.fakes.databases import create_template, postgresql_database, sqlite_database
from tests.fakes.postgresql_server import run_server

from penstock.storage.database import Database

Measure = Callable[[Kind, Database], Awaitable[float]]


def measure_each(measure: Measure, only: Kind | None) -> float:
    """Return the most that measuring a database of each kind came to.

    Args:
        measure: Fills it, and returns how long the slowest took.
        only: The one kind that is meant; all without.
    """
    kinds = KINDS if only is None else (only,)
    return max([_measure(kind, measure) for kind in kinds])


def numbers(name: str, first: int, last: int, *, is_postgresql: bool) -> str:
    """Return a source of rows: whole numbers, both ends among them."""
    if is_postgresql:
        return f"generate_series({first}, {last}) AS numbers({name})"
    return (
        f"(WITH RECURSIVE up({name}) AS (SELECT {first} UNION ALL SELECT {name} + 1 FROM up "  # noqa: S608 - names and figures of ours
        f"WHERE {name} < {last}) SELECT {name} FROM up) AS numbers"
    )


def starts(*, is_postgresql: bool) -> tuple[str, str, str]:
    """Return when the eighth of a day, the day and the month begin that `at` is in."""
    if is_postgresql:
        eighth = "date_bin('3 hours', at, TIMESTAMPTZ '1970-01-01 00:00:00+00')"
        return eighth, "date_trunc('day', at, 'UTC')", "date_trunc('month', at, 'UTC')"
    month = "strftime('%s', at / 1000000, 'unixepoch', 'start of month')"
    return "at - at % 10800000000", "at - at % 86400000000", f"CAST({month} AS INTEGER) * 1000000"


def _measure(kind: Kind, measure: Measure) -> float:
    if kind == "postgresql":
        with run_server() as server:

            async def ask_postgresql() -> float:
                async with postgresql_database(server) as database:
                    return await measure(kind, database)

            return asyncio.run(ask_postgresql())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        template = create_template(folder)

        async def ask_sqlite() -> float:
            async with sqlite_database(template, folder) as database:
                return await measure(kind, database)

        return asyncio.run(ask_sqlite())
