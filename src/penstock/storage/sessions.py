"""Sessions as two types: a function's signature says whether it writes."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, TypeVarTuple

from sqlalchemy import Row, Select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import InstrumentedAttribute

from penstock.storage.base import Base

Columns = TypeVarTuple("Columns")
Value = TypeVar("Value")


class ReadSession:
    """A transaction that sees one state of the database and cannot change it."""

    __slots__ = ("_connection",)

    def __init__(self, connection: AsyncConnection) -> None:
        """Wrap a connection whose transaction `Database` begins and ends."""
        self._connection = connection

    async def rows(self, statement: Select[*Columns]) -> Sequence[Row[*Columns]]:
        """Return all rows of a query."""
        return (await self._connection.execute(statement)).all()


class WriteSession(ReadSession):
    """A transaction that is committed when its context ends without an exception.

    It has no commit of its own: what one use case writes becomes visible as a whole or not
    at all.
    """

    __slots__ = ()

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
        is_postgresql = self._connection.dialect.name == "postgresql"
        insert = postgresql_insert if is_postgresql else sqlite_insert
        statement = (
            insert(table)
            .on_conflict_do_nothing(index_elements=list(table.__table__.primary_key))
            .returning(returning)
        )
        result = await self._connection.execute(statement, list(rows))
        return list(result.scalars())
