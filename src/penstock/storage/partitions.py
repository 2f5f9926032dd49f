"""Tables that PostgreSQL keeps by day, each day's rows in a part of their own.

Their column `day` counts days since the Unix epoch. Rows of a day that has no part yet are in the
default one, and stay there: to which part a row goes never decides whether it is there already,
because the primary key begins with the day. A part that is old enough can be dropped as a whole.
"""

from collections.abc import Iterable

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

DAYS_AHEAD = 7
"""How many days behind today have a part before the first row of theirs comes."""

_LOCK = text("SELECT pg_advisory_xact_lock(1885695861)")
"""Any number that nothing else of ours locks: control planes make parts one after the other."""
_TABLES = text(
    "SELECT tables.relname FROM pg_partitioned_table AS kept "
    "JOIN pg_class AS tables ON tables.oid = kept.partrelid "
    "WHERE tables.relnamespace = current_schema()::regnamespace ORDER BY 1"
)
_PARTS = text(
    "SELECT parts.relname FROM pg_inherits "
    "JOIN pg_class AS parts ON parts.oid = inhrelid "
    "JOIN pg_class AS tables ON tables.oid = inhparent "
    "WHERE tables.relname = :table AND tables.relnamespace = current_schema()::regnamespace"
)


def name_part(table: str, day: int) -> str:
    """Return the name of the part of a table that has a day's rows."""
    return f"{table}_{day}"


def create_part(table: str, day: int | None) -> list[str]:
    """Return the statements that create the part of a day, or the default one.

    Row-level policies stand at the whole table. Around it nobody sees a row: a part has none that
    would let anybody in.
    """
    name = f"{table}_default" if day is None else name_part(table, day)
    which = "DEFAULT" if day is None else f"FOR VALUES FROM ({day}) TO ({day + 1})"
    return [
        f"CREATE TABLE {name} PARTITION OF {table} {which}",
        f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY",
    ]


async def tables_by_day(connection: AsyncConnection) -> list[str]:
    """Return the names of the tables that are kept by day."""
    return list((await connection.execute(_TABLES)).scalars())


async def create_missing_parts(connection: AsyncConnection, table: str, today: int) -> list[str]:
    """Create the parts of the next days of a table.

    A day whose first rows came before its part did has none. Nothing is locked when no other one
    lacks a part.

    Args:
        connection: To PostgreSQL, in a transaction of its own that sees the rows of all
            organizations: who writes into several tables would wait for us in one, and we for it
            in another.
        table: One that is kept by day.
        today: Days since the Unix epoch.

    Returns:
        The names of new parts.
    """
    days = await _free_days(connection, table, range(today, today + DAYS_AHEAD + 1))
    if not days:
        return []
    await connection.execute(_LOCK)
    # As whoever creates a part does, but before the last look: what is being written now would be
    # there behind it.
    await connection.exec_driver_sql(f"LOCK TABLE ONLY {table} IN ACCESS EXCLUSIVE MODE")
    days = await _free_days(connection, table, days)
    for day in days:
        for statement in create_part(table, day):
            await connection.exec_driver_sql(statement)
    return [name_part(table, day) for day in days]


async def _free_days(connection: AsyncConnection, table: str, days: Iterable[int]) -> list[int]:
    """Return those of some days that have neither a part nor a row."""
    there = set((await connection.execute(_PARTS, {"table": table})).scalars())
    missing = [day for day in days if name_part(table, day) not in there]
    find = text(f"SELECT 1 FROM {table} WHERE day = :day LIMIT 1")  # noqa: S608 - a name of ours
    return [
        day for day in missing if (await connection.execute(find, {"day": day})).scalar() is None
    ]
