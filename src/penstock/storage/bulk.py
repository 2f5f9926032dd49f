"""Many rows with one statement: what the drivers do best, and no thought about each row.

PostgreSQL gets a column as the text of an array; SQLite runs a prepared statement for each row, in
one go.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from sqlalchemy import JSON, Table
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeEngine

from penstock.storage.array_texts import write_json, writer_of
from penstock.storage.base import Base, Json, Timestamp

Values: TypeAlias = tuple[Any, ...]
"""Those of a row, in the order of the names of the `Bulk` that it is for."""

MAX_SUM = 2**63 - 1
REST = 1_000_000_000
"""How much of an exact amount's last column is one of the one before."""
HIGH = 10**18
"""How much of its middle column is one of its first; two of that fit in a column, many times."""


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
    amounts: tuple[tuple[str, str, str], ...] = ()
    """The same of exact amounts of any size: columns of how often they have `HIGH`, of the whole
    ones besides, less than `HIGH` in a new row, and of their rest, 0..REST-1."""
    replaced: tuple[str, ...] = ()
    """What `WriteSession.add_many` writes over: whoever calls it holds these rows."""

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
    """Returns those of some keys that are there."""
    values_of: Callable[[Sequence[Values]], Any]
    """Returns rows as what the driver is given with the first three."""
    keys_of: Callable[[Sequence[Values]], Any]
    """Returns keys as what it is given with `find`."""


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
        columns = dict(zip(map(quote, bulk.names), types, strict=True))
        chosen = ", ".join(_read(name, kind) for name, kind in columns.items())
        values = f"SELECT {chosen} FROM {_unnest(columns, dialect)}"  # noqa: S608 - types and names of ours
    else:
        values = f"VALUES ({', '.join('?' * len(types))})"
    insert = f"INSERT INTO {table.name} AS old ({names}) {values}"
    nothing = f"{insert} ON CONFLICT ({key}) DO NOTHING"
    changes = ", ".join(_changes(bulk, quote, "LEAST" if is_postgresql else "MIN"))
    keys = {quote(name): table.columns[name].type for name in bulk.key}
    return Statements(
        insert=insert,
        insert_new=f"{nothing} RETURNING {key}" if is_postgresql else nothing,
        add=f"{insert} ON CONFLICT ({key}) DO UPDATE SET {changes}",
        find=_find(keys, table.name, dialect),
        values_of=_write_columns(types) if is_postgresql else _bind_rows(types, dialect),
        keys_of=_write_columns(list(keys.values())) if is_postgresql else _write_keys,
    )


def _unnest(columns: Mapping[str, TypeEngine[Any]], dialect: Dialect) -> str:
    """Return what PostgreSQL takes rows from: a text for each column, read as an array."""
    arrays = [
        f"CAST(${place}::text AS {_array_of(kind, dialect)}[])"
        for place, kind in enumerate(columns.values(), 1)
    ]
    return f"unnest({', '.join(arrays)}) AS new ({', '.join(columns)})"


def _array_of(kind: TypeEngine[Any], dialect: Dialect) -> str:
    return "bigint" if isinstance(kind, Timestamp) else kind.compile(dialect)


def _read(name: str, kind: TypeEngine[Any]) -> str:
    if not isinstance(kind, Timestamp):
        return f"new.{name}"
    # Exact, for both parts are: seconds, and what is left of one.
    rest = f"new.{name} % 1000000 * interval '1 microsecond'"
    return f"to_timestamp(new.{name} / 1000000) + {rest}"


def _write_columns(types: Sequence[TypeEngine[Any]]) -> Callable[[Sequence[Values]], Any]:
    writers = [writer_of(kind) for kind in types]

    def write(rows: Sequence[Values]) -> tuple[str, ...]:
        columns = zip(*rows, strict=True)
        return tuple(write(column) for write, column in zip(writers, columns, strict=True))

    return write


def _bind_rows(
    types: Sequence[TypeEngine[Any]], dialect: Dialect
) -> Callable[[Sequence[Values]], Any]:
    processors = [
        (place, process)
        for place, process in enumerate(_processor(kind, dialect) for kind in types)
        if process is not None
    ]

    def bind(rows: Sequence[Values]) -> list[Values]:
        columns: list[Sequence[Any]] = list(zip(*rows, strict=True))
        for place, process in processors:
            columns[place] = [None if value is None else process(value) for value in columns[place]]
        return list(zip(*columns, strict=True))

    return bind


def _write_keys(keys: Sequence[Values]) -> tuple[str]:
    return (write_json(keys),)


def _processor(kind: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    if isinstance(kind, JSON | Json):
        return write_json
    processor: Callable[[Any], Any] | None = kind.dialect_impl(dialect).bind_processor(dialect)
    return processor


def _changes(bulk: Bulk, quote: Callable[[str], str], least: str) -> list[str]:
    most = {"LEAST": "GREATEST", "MIN": "MAX"}[least]
    changes = []
    for name in map(quote, bulk.sums):
        new = f"EXCLUDED.{name}"
        room = f"{MAX_SUM} - {most}({new}, 0)"
        changes.append(f"{name} = {least}(old.{name}, {room}) + {new}")
    changes += [f"{name} = EXCLUDED.{name}" for name in map(quote, bulk.replaced)]
    for names in bulk.amounts:
        high, whole, rest = map(quote, names)
        rests = f"old.{rest} + EXCLUDED.{rest}"
        # Both kinds of database divide towards 0. No part of this passes 63 bits.
        wholes = f"old.{whole} % {HIGH} + EXCLUDED.{whole} + ({rests}) / {REST}"
        highs = f"old.{high} + EXCLUDED.{high} + old.{whole} / {HIGH} + ({wholes}) / {HIGH}"
        changes.append(f"{high} = {highs}")
        changes.append(f"{whole} = ({wholes}) % {HIGH}")
        changes.append(f"{rest} = ({rests}) % {REST}")
    return changes


def _find(keys: Mapping[str, TypeEngine[Any]], table: str, dialect: Dialect) -> str:
    columns = ", ".join(f"there.{name}" for name in keys)
    if dialect.name == "postgresql":
        asked = _unnest(keys, dialect)
        equal = [f"there.{name} = new.{name}" for name in keys]
    else:
        asked = "json_each(?) AS new"
        equal = [f"there.{name} = new.value ->> {place}" for place, name in enumerate(keys)]
    # CROSS keeps SQLite to the order: each key is looked up in the table's own index.
    return (
        f"SELECT {columns} FROM {asked} CROSS JOIN {table} AS there "  # noqa: S608 - names of ours
        f"WHERE {' AND '.join(equal)}"
    )
