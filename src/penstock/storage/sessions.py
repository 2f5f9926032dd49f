"""Sessions as two types: a function's signature says whether it writes."""

import functools
from collections import ChainMap
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, TypeVarTuple

from sqlalchemy import Delete, Insert, Row, Select, Update, bindparam, func, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import InstrumentedAttribute

from penstock.storage.base import Base
from penstock.storage.bulk import Bulk, Values, statements_of
from penstock.storage.errors import RowConflictError
from penstock.storage.postgresql import CONFIGURATION_LOCK
from penstock.storage.scope import Scope

Columns = TypeVarTuple("Columns")
Value = TypeVar("Value")

Parameters = Mapping[str, Any]
"""Values of what a statement leaves open, by name."""
Change = tuple[Insert | Update, Parameters]
"""A statement and the values of all that it leaves open."""

# To build a statement costs several times what it costs to run one that is there.
_SET = select(func.set_config(bindparam("name"), bindparam("value"), True))  # noqa: FBT003 - local to the transaction
_LOCK = select(func.pg_advisory_xact_lock(CONFIGURATION_LOCK))
_LOCK_WORK = select(func.pg_advisory_xact_lock(func.hashtextextended(bindparam("name"), 0)))


@functools.cache
def _insert_into(table: type[Base]) -> Insert:
    return Insert(table.__table__)  # type: ignore[arg-type]  # the table of a mapped class


@functools.cache
def _insert_new_into(table: type[Base], returning: Any, *, is_postgresql: bool) -> Any:
    insert = postgresql_insert if is_postgresql else sqlite_insert
    return (
        insert(table)
        .on_conflict_do_nothing(index_elements=list(table.__table__.primary_key))
        .returning(returning)
    )


@functools.cache
def _insert_named(table: type[Base], names: tuple[str, ...]) -> Insert:
    values: dict[str, Any] = {name: bindparam(_name_value(table, name)) for name in names}
    return _insert_into(table).values(values)


def _name_value(table: type[Base], name: str) -> str:
    return f"{table.__tablename__}__{name}"


@functools.cache
def _join(*statements: Insert | Update) -> Insert | Update:
    *others, last = statements
    return last.add_cte(*(other.cte(f"change_{place}") for place, other in enumerate(others)))


def insertion(table: type[Base], row: Parameters) -> Change:
    """Return the change that inserts a row, for `WriteSession.change_together`."""
    values = {_name_value(table, name): value for name, value in row.items()}
    return _insert_named(table, tuple(row)), values


class ReadSession:
    """A transaction that sees one state of the database and cannot change it."""

    __slots__ = ("_connection", "_scope")

    def __init__(self, connection: AsyncConnection, scope: Scope) -> None:
        """Wrap a connection whose transaction `Database` begins and ends."""
        self._connection = connection
        self._scope = scope

    @property
    def scope(self) -> Scope:
        """Whose data it was opened for; PostgreSQL shows it no other rows."""
        return self._scope

    async def tune(self, **settings: str) -> None:
        """Give settings of PostgreSQL other values until this transaction ends.

        SQLite has none of them.
        """
        if self.is_postgresql:
            for name, value in settings.items():
                await self.rows(_SET, {"name": name, "value": value})

    @property
    def has_snapshots(self) -> bool:
        """Whether transactions run side by side, so that an earlier one may end later."""
        return self.is_postgresql

    @property
    def is_postgresql(self) -> bool:
        """Which of the two kinds of database it is; for statements that are written out."""
        return self._connection.dialect.name == "postgresql"

    async def rows(
        self, statement: Select[*Columns], parameters: Parameters | None = None
    ) -> Sequence[Row[*Columns]]:
        """Return all rows of a query; `parameters` are the values that it leaves open."""
        return (await self._connection.execute(statement, parameters)).all()

    async def first(
        self, statement: Select[*Columns], parameters: Parameters | None = None
    ) -> Row[*Columns] | None:
        """Return the first row of a query, or None when it has none."""
        return (await self._connection.execute(statement, parameters)).first()


class WriteSession(ReadSession):
    """A transaction that is committed when its context ends without an exception.

    It has no commit of its own: what one use case writes becomes visible as a whole or not
    at all.
    """

    __slots__ = ("_is_alone", "_later")

    def __init__(
        self, connection: AsyncConnection, scope: Scope, *, is_alone: bool = False
    ) -> None:
        """See the base class; `is_alone` when it holds the lock of the configuration."""
        super().__init__(connection, scope)
        self._is_alone = is_alone or not self.is_postgresql
        self._later: dict[Insert | Update, list[Parameters]] = {}

    async def insert(self, table: type[Base], *rows: Mapping[str, Any]) -> None:
        """Insert rows, all with the same names of columns.

        Raises:
            RowConflictError: A rule of the table stands against one: it is there already, or
                names something that is not. The session cannot be used any more.
        """
        if rows:
            await self._change(_insert_into(table), list(rows))

    async def change(self, statement: Update | Delete, parameters: Parameters | None = None) -> int:
        """Run an update or a deletion and return how many rows it met.

        Args:
            statement: What to run.
            parameters: The values that it leaves open.

        Raises:
            RowConflictError: As `insert`.
        """
        return await self._change(statement, parameters)

    async def change_together(self, *changes: Change) -> None:
        """Make changes of different tables, of which none needs to see another, and those left.

        PostgreSQL gets all of them in one round trip: while one transaction has the lock of the
        configuration others wait for it. Rows may point at rows that are inserted before them.

        Args:
            *changes: Built once, each with names of its own for the values that it leaves open.

        Raises:
            RowConflictError: As `insert`.
        """
        if any(len(each) > 1 for each in self._later.values()):
            await self.flush()
        changes = (*((each, values) for each, [values] in self._later.items()), *changes)
        self._later.clear()
        if self.is_postgresql:
            statements, parameters = zip(*changes, strict=True)
            await self._change(_join(*statements), dict(ChainMap(*map(dict, parameters))))
            return
        for statement, values in changes:
            await self._change(statement, values)

    def change_later(self, change: Change) -> None:
        """Make a change with those that come next (`change_together`), or when the session ends.

        For rows that nothing looks at until then; what stands against them is raised there.
        """
        statement, values = change
        self._later.setdefault(statement, []).append(values)

    async def flush(self) -> None:
        """Make what was left for later; `Database` does it before it commits."""
        later, self._later = self._later, {}
        for statement, parameters in later.items():
            await self._change(statement, parameters)

    async def change_many(self, statement: Update, parameters: Sequence[Mapping[str, Any]]) -> None:
        """Run an update once for each set of parameters, in one round trip."""
        if parameters:
            await self._change(statement, list(parameters))

    async def insert_new(
        self,
        table: type[Base],
        rows: Sequence[Mapping[str, Any]],
        returning: InstrumentedAttribute[Value],
    ) -> list[Value]:
        """Insert the rows whose primary key is not there yet, many with one statement.

        A row that another transaction inserts at the same time is waited for and then counts
        as being there.

        Args:
            table: Where to.
            rows: Column names and values, all rows with the same names.
            returning: The column whose values tell which rows were new.

        Returns:
            The values of `returning` of the new rows, in no particular order.
        """
        if not rows:
            return []
        statement = _insert_new_into(table, returning, is_postgresql=self.is_postgresql)
        result = await self._connection.execute(statement, list(rows))
        return list(result.scalars())

    async def find_many(self, bulk: Bulk, keys: Sequence[Values]) -> set[Values]:
        """Return those of some primary keys, of texts and numbers, that are in a table."""
        if not keys:
            return set()
        statements = statements_of(bulk, self._connection.dialect)
        found = await self._connection.exec_driver_sql(statements.find, statements.keys_of(keys))
        return {tuple(row) for row in found}

    async def insert_many(self, bulk: Bulk, rows: Sequence[Values]) -> None:
        """Insert rows, many with one statement.

        Raises:
            RowConflictError: As `insert`.
        """
        if rows:
            await self._write_many(bulk, statements_of(bulk, self._connection.dialect).insert, rows)

    async def insert_many_new(self, bulk: Bulk, rows: Sequence[Values]) -> set[Values]:
        """Insert the rows whose primary key is not there yet; see `insert_new`.

        Args:
            bulk: Where to.
            rows: With different keys, in an order that all writers keep.

        Returns:
            The keys of the rows that were new.
        """
        if not rows:
            return set()
        statements = statements_of(bulk, self._connection.dialect)
        if self.is_postgresql:
            found = await self._write_many(bulk, statements.insert_new, rows)
            return {tuple(row) for row in found}
        places = [bulk.names.index(name) for name in bulk.key]
        keys = [tuple(row[place] for place in places) for row in rows]
        # Nobody else writes until this transaction ends.
        known = await self.find_many(bulk, keys)
        new = [row for row, key in zip(rows, keys, strict=True) if key not in known]
        if new:
            await self._write_many(bulk, statements.insert_new, new)
        return {*keys} - known

    async def add_many(self, bulk: Bulk, rows: Sequence[Values]) -> None:
        """Insert rows, or add their figures to those of the row that has their key.

        Args:
            bulk: Where to, and what is added up.
            rows: With different keys, in an order that all writers keep.
        """
        if rows:
            await self._write_many(bulk, statements_of(bulk, self._connection.dialect).add, rows)

    async def _write_many(self, bulk: Bulk, statement: str, rows: Sequence[Values]) -> Any:
        values = statements_of(bulk, self._connection.dialect).values_of(rows)
        try:
            return await self._connection.exec_driver_sql(statement, values)
        except IntegrityError as error:
            raise RowConflictError(str(error.orig).partition("\n")[0]) from None

    async def lock_configuration(self) -> None:
        """Make this the one transaction that writes configuration, until it ends.

        What is numbered in here becomes visible in the order of its numbers. Taken before any
        row is locked, it makes deadlocks between such writers impossible.
        """
        if not self._is_alone:
            await self.rows(_LOCK)
            self._is_alone = True

    async def lock_work(self, name: str) -> None:
        """Make this the one transaction that does something of that name, until it ends.

        For what takes long, and comes before the lock of the configuration: others write on.
        """
        if self.is_postgresql:
            await self.rows(_LOCK_WORK, {"name": name})

    async def _change(self, statement: Any, parameters: Any) -> int:
        try:
            result = await self._connection.execute(statement, parameters)
        except IntegrityError as error:
            raise RowConflictError(str(error.orig).partition("\n")[0]) from None
        return result.rowcount
