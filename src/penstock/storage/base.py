"""The base of every table: how Python's types are kept and how constraints are named."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any, NewType

from sqlalchemy import JSON, BigInteger, Boolean, MetaData, Text
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


Microseconds = NewType("Microseconds", int)
"""A moment in Python: microseconds since the Unix epoch."""


class Timestamp(TypeDecorator[int]):
    """A moment, to the microsecond.

    Kept as `timestamptz` in PostgreSQL, and as the number that it is in Python elsewhere: SQLite
    has no type for it, and integers sort, compare and index exactly.
    """

    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the column type of the database."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(TIMESTAMP(timezone=True))
        return dialect.type_descriptor(BigInteger())

    def process_bind_param(self, value: int | None, dialect: Dialect) -> Any:
        """Turn microseconds into what the database keeps."""
        if value is None or dialect.name != "postgresql":
            return value
        return _EPOCH + value * _MICROSECOND

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:
        """Turn what the database keeps into microseconds."""
        if value is None or dialect.name != "postgresql":
            return value  # type: ignore[no-any-return]  # the driver's integer
        return (value - _EPOCH) // _MICROSECOND  # type: ignore[no-any-return]  # two datetimes


class seconds_after(FunctionElement[int]):  # noqa: N801 - a function of SQL
    """The moment that is some seconds behind another one: `seconds_after(created_at, 60)`."""

    type = Timestamp()
    inherit_cache = True


@compiles(seconds_after, "postgresql")
def _add_interval(element: seconds_after, compiler: SQLCompiler, **options: Any) -> str:
    moment, seconds = (compiler.process(clause, **options) for clause in element.clauses)
    return f"({moment} + {seconds} * INTERVAL '1 second')"


@compiles(seconds_after)
def _add_microseconds(element: seconds_after, compiler: SQLCompiler, **options: Any) -> str:
    moment, seconds = (compiler.process(clause, **options) for clause in element.clauses)
    return f"({moment} + {seconds} * 1000000)"


class hour_start(FunctionElement[int]):  # noqa: N801 - a function of SQL
    """When the hour of UTC begins that a moment is in."""

    type = Timestamp()
    inherit_cache = True


@compiles(hour_start, "postgresql")
def _truncate(element: hour_start, compiler: SQLCompiler, **options: Any) -> str:
    return f"date_trunc('hour', {compiler.process(element.clauses, **options)}, 'UTC')"


@compiles(hour_start)
def _round_down(element: hour_start, compiler: SQLCompiler, **options: Any) -> str:
    moment = compiler.process(element.clauses, **options)
    return f"({moment} - {moment} % 3600000000)"


class by_code_point(FunctionElement[str]):  # noqa: N801 - a function of SQL
    """A text that is compared as Python does, whatever language a database sorts in."""

    type = Text()
    inherit_cache = True


@compiles(by_code_point, "postgresql")
def _collate(element: by_code_point, compiler: SQLCompiler, **options: Any) -> str:
    return f'({compiler.process(element.clauses, **options)} COLLATE "C")'


@compiles(by_code_point)
def _leave(element: by_code_point, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(element.clauses, **options)


def read_json(kept: Any) -> Any:
    """Return the value of a JSON text that a database keeps.

    A text that is no JSON, or is `null`, comes back as it is. So it harms its own row only, and is
    never taken for the NULL that means "all" in many a column: that would open what was closed.
    """
    try:
        value = json.loads(kept)
    except (TypeError, ValueError, RecursionError):
        return kept
    return kept if value is None else value


class Json(TypeDecorator[Any]):
    """JSON; None is NULL. For what somebody else wrote into the column, see `read_json`."""

    impl = JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the column type of the database."""
        if dialect.name == "sqlite":
            return dialect.type_descriptor(Text())
        return dialect.type_descriptor(JSON(none_as_null=True))

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Turn a value into what the database keeps."""
        if value is None or dialect.name != "sqlite":
            return value
        return json.dumps(value, separators=(",", ":"))

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Turn what the database keeps into a value."""
        if value is None or dialect.name != "sqlite":
            return value  # engines of PostgreSQL are told to read it with `read_json`
        return read_json(value)


class Flag(Boolean):
    """Yes or no; what is neither comes back as it is, so that it is not taken for yes.

    PostgreSQL keeps nothing else, but SQLite keeps what anybody writes into the file.
    """

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:  # noqa: ARG002 - the base class' argument
        """Return what turns what the database keeps into a value."""
        return None if dialect.supports_native_boolean else _read_flag


def _read_flag(kept: Any) -> Any:
    return bool(kept) if kept in {0, 1} else kept


class Base(DeclarativeBase):
    """Base of the tables of all rooms. Names of constraints are fixed, so migrations find them."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - the name and the kind that SQLAlchemy asks for
        Microseconds: Timestamp,
        int: BigInteger,
        bool: Flag,
    }


class Versioned:
    """Columns of objects that are changed one version after the other."""

    version: Mapped[int]
    created_at: Mapped[Microseconds]
    updated_at: Mapped[Microseconds]
