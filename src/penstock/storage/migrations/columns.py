"""What migrations from 0004 on write columns, constraints, indexes and walls with.

Migrations of databases that are in use depend on it: what a function here makes never changes.
"""

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from penstock.storage.partitions import create_part


def words(name: str, *, nullable: bool = False) -> sa.Column[str]:
    """Return a column of texts."""
    return sa.Column(name, sa.String(), nullable=nullable)


def number(name: str, *, nullable: bool = False) -> sa.Column[int]:
    """Return a column of whole numbers."""
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def flag(name: str) -> sa.Column[bool]:
    """Return a column of yes or no."""
    return sa.Column(name, sa.Boolean(), nullable=False)


def moment(name: str, *, nullable: bool = False) -> sa.Column[int]:
    """Return a column of `storage.base.Timestamp`."""
    timestamp = sa.BigInteger().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
    return sa.Column(name, timestamp, nullable=nullable)


def json(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    """Return a column of `storage.base.Json`."""
    return sa.Column(name, sa.JSON().with_variant(sa.Text(), "sqlite"), nullable=nullable)


def versioned() -> list[sa.Column[int]]:
    """Return the columns of `storage.base.Versioned`."""
    return [number("version"), moment("created_at"), moment("updated_at")]


def key(table: str, *columns: str) -> sa.PrimaryKeyConstraint:
    """Return the primary key of a table: `id` unless columns are named."""
    return sa.PrimaryKeyConstraint(*(columns or ("id",)), name=f"pk_{table}")


def foreign(
    table: str, column: str, other: str, *, ondelete: str | None = None
) -> sa.ForeignKeyConstraint:
    """Return the constraint that a column names a row of another table."""
    name = f"fk_{table}_{column}_{other}"
    return sa.ForeignKeyConstraint([column], [f"{other}.id"], name=name, ondelete=ondelete)


def foreign_of_same(table: str, column: str, other: str) -> sa.ForeignKeyConstraint:
    """Return the constraint that a column names a row of the same organization in another table."""
    return sa.ForeignKeyConstraint(
        ["organization_id", column],
        [f"{other}.organization_id", f"{other}.id"],
        name=f"fk_{table}_organization_id_{column}_{other}",
    )


def index(table: str, *columns: str) -> None:
    """Create an index."""
    op.create_index("_".join(["ix", table, *columns]), table, list(columns))


def unique(name: str, table: str, *columns: str, where: str | None = None) -> None:
    """Create an index whose columns have no values twice, where a condition holds."""
    condition = None if where is None else sa.text(where)
    op.create_index(
        name,
        table,
        list(columns),
        unique=True,
        sqlite_where=condition,
        postgresql_where=condition,
    )


def wall(*tables: str, column: str = "organization_id") -> None:
    """Have PostgreSQL show a session the rows of its own organization only."""
    if op.get_bind().dialect.name != "postgresql":
        return
    for table in tables:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY {table}_organization ON {table} USING ("
            f"{column} = NULLIF(current_setting('app.organization_id', true), '') "
            "OR current_setting('app.is_platform', true) = 'on')"
        )


def only_added(table: str) -> None:
    """Have the database refuse to change or delete rows of a table, whoever asks.

    Parts of a table that PostgreSQL keeps by day can still be dropped as a whole.
    """
    if op.get_bind().dialect.name != "postgresql":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, 'rows of {table} are only added'); END"
            )
        return
    op.execute(
        "CREATE OR REPLACE FUNCTION refuse_other_than_adding() RETURNS trigger "
        "LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE EXCEPTION 'rows of % are only added', TG_TABLE_NAME "
        "USING ERRCODE = 'integrity_constraint_violation'; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {table}_only_added BEFORE UPDATE OR DELETE ON {table} "
        "FOR EACH ROW EXECUTE FUNCTION refuse_other_than_adding()"
    )
    op.execute(
        f"CREATE TRIGGER {table}_not_emptied BEFORE TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_other_than_adding()"
    )


def parts_by_day(table: str, days: Iterable[int] = ()) -> None:
    """Create the default part of a table that PostgreSQL keeps by day, and those of some days."""
    if op.get_bind().dialect.name == "postgresql":
        for day in (None, *days):
            for statement in create_part(table, day):
                op.execute(statement)
