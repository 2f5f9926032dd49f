"""Many rows with one statement: what the drivers do best, and no thought about each row.

PostgreSQL gets a column as one array; SQLite runs a prepared statement for each row, in one go.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import msgspec
from sqlalchemy import JSON, Table
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeEngine

from penstock.storage.base import Base, Json

Values: TypeAlias = tuple[Any, ...]
"""Those of a row, in the order of the names of the `Bulk` that it is for."""

MAX_SUM = 2**63 - 1
REST = 1_000_000_000
"""How much of the second column of a pair is one of the first."""


@dataclass(frozen=True)
class Bulk:
    """Which columns of a table are written many rows at a time; made once, when importing.

    Keys of rows that may be there already are texts and numbers.
    """

    table: type[Base]
    names: tuple[str, ...]
    """All that the table has no other value for, in the order of the values of a row."""
    sums: tuple[str, ...] = ()
    """Of these: what `WriteSession.add_many` adds to; no sum passes `MAX_SUM`."""
    pairs: tuple[tuple[str, str], ...] = ()
    """The same of exact amounts: a column of whole ones, and one of their rest, 0..REST-1."""

    @property
    def key(self) -> tuple[str, ...]:
        """Names of the primary key."""
        return tuple(column.name for column in cast("Table", self.table.__table__).primary_key)


@dataclass(frozen=True, slots=True)
class Statements:
    """What a `Bulk` is written with, in one kind of database."""

    insert: str
    insert_new: str
    """On PostgreSQL it returns the keys of new rows."""
    add: str
    find: str
    """Returns those of some keys that are there: given as arrays, or to SQLite as JSON."""
    processors: tuple[tuple[int, Callable[[Any], Any]], ...]
    """Places of values that the driver does not take as they are, and what makes them so."""

    def columns_of(self, rows: Sequence[Values]) -> list[Sequence[Any]]:
        """Return rows as columns of what the driver takes."""
        columns: list[Sequence[Any]] = list(zip(*rows, strict=True))
        for place, process in self.processors:
            columns[place] = [None if value is None else process(value) for value in columns[place]]
        return columns


@functools.cache
def statements_of(bulk: Bulk, dialect: Dialect) -> Statements:
    """Return the statements of a database's kind."""
    is_postgresql = dialect.name == "postgresql"
    table = cast("Table", bulk.table.__table__)
    types = [table.columns[name].type for name in bulk.names]
    quote = dialect.identifier_preparer.quote
    names = ", ".join(map(quote, bulk.names))
    key = ", ".join(map(quote, bulk.key))
    if is_postgresql:
        arrays = ", ".join(
            f"${place}::{kind.compile(dialect)}[]" for place, kind in enumerate(types, 1)
        )
        values = f"SELECT * FROM unnest({arrays})"  # noqa: S608 - types and names of ours
    else:
        values = f"VALUES ({', '.join('?' * len(types))})"
    insert = f"INSERT INTO {table.name} AS old ({names}) {values}"
    nothing = f"{insert} ON CONFLICT ({key}) DO NOTHING"
    changes = ", ".join(_changes(bulk, quote, "LEAST" if is_postgresql else "MIN"))
    processors = (_processor(kind, dialect) for kind in types)
    return Statements(
        insert=insert,
        insert_new=f"{nothing} RETURNING {key}" if is_postgresql else nothing,
        add=f"{insert} ON CONFLICT ({key}) DO UPDATE SET {changes}",
        find=_find(bulk, table, dialect),
        processors=tuple(
            (place, process) for place, process in enumerate(processors) if process is not None
        ),
    )


def _processor(kind: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    if isinstance(kind, JSON | Json):
        return _write_json
    processor: Callable[[Any], Any] | None = kind.dialect_impl(dialect).bind_processor(dialect)
    return processor


def _write_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _changes(bulk: Bulk, quote: Callable[[str], str], least: str) -> list[str]:
    most = {"LEAST": "GREATEST", "MIN": "MAX"}[least]
    changes = []
    for name in map(quote, bulk.sums):
        new = f"EXCLUDED.{name}"
        room = f"{MAX_SUM} - {most}({new}, 0)"
        changes.append(f"{name} = {least}(old.{name}, {room}) + {new}")
    for whole, rest in bulk.pairs:
        rests = f"old.{quote(rest)} + EXCLUDED.{quote(rest)}"
        changes.append(
            f"{quote(whole)} = old.{quote(whole)} + EXCLUDED.{quote(whole)} + ({rests}) / {REST}"
        )
        changes.append(f"{quote(rest)} = ({rests}) % {REST}")
    return changes


def _find(bulk: Bulk, table: Table, dialect: Dialect) -> str:
    names = [dialect.identifier_preparer.quote(name) for name in bulk.key]
    columns = ", ".join(f"there.{name}" for name in names)
    if dialect.name == "postgresql":
        types = [table.columns[name].type.compile(dialect) for name in bulk.key]
        arrays = ", ".join(f"${place}::{kind}[]" for place, kind in enumerate(types, 1))
        asked = f"unnest({arrays}) AS asked ({', '.join(names)})"
        equal = [f"there.{name} = asked.{name}" for name in names]
    else:
        asked = "json_each(?) AS asked"
        equal = [f"there.{name} = asked.value ->> {place}" for place, name in enumerate(names)]
    # CROSS keeps SQLite to the order: each key is looked up in the table's own index.
    return (
        f"SELECT {columns} FROM {asked} CROSS JOIN {table.name} AS there "  # noqa: S608 - as above
        f"WHERE {' AND '.join(equal)}"
    )
