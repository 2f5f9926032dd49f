"""Accounts, transfers, entries, grants; and the rules of the books, kept by the database itself.

A transfer is inserted after its entries. Its trigger counts and adds them up; as they have the
places 1 to `lines`, each taken once, none can be added later. What is booked is never changed.
"""

import sqlalchemy as sa
from alembic import op

from penstock.storage.migrations.columns import (
    foreign,
    index,
    key,
    moment,
    number,
    unique,
    versioned,
    wall,
    words,
)

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_IS_LEFT = "remaining > 0 OR remaining_rest > 0"
_KEYS = {"ledger_accounts": ("id",), "transfers": ("id",), "entries": ("transfer_id", "line")}
"""Tables whose rows are only ever added, and their primary keys."""


def upgrade() -> None:
    """Create the tables, then the walls, then what keeps the rules."""
    _create_terms()
    _create_accounts()
    _create_grants()
    _create_transfers()
    _create_entries()
    _create_snapshots()
    wall(
        "billing_terms",
        "ledger_accounts",
        "credit_grants",
        "transfers",
        "entries",
        "balance_snapshots",
    )
    if op.get_bind().dialect.name == "postgresql":
        _guard_postgresql()
    else:
        _guard_sqlite()


def downgrade() -> None:
    """Take the tables down, with all they hold."""
    for table in (
        "balance_snapshots",
        "entries",
        "transfers",
        "credit_grants",
        "ledger_accounts",
        "billing_terms",
    ):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION seal_transfer")
        op.execute("DROP FUNCTION refuse_change")


def _check(table: str, name: str, condition: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(condition, name=f"ck_{table}_{name}")


def _rest(table: str, name: str) -> sa.CheckConstraint:
    return _check(table, name, f"{name} BETWEEN 0 AND 999999999")


def _index_where(name: str, table: str, column: str, where: str) -> None:
    condition = sa.text(where)
    op.create_index(name, table, [column], sqlite_where=condition, postgresql_where=condition)


def _same(table: str, other: str, column: str, *columns: str) -> sa.ForeignKeyConstraint:
    """Return the constraint that a row repeats what the row says that it points at."""
    return sa.ForeignKeyConstraint(
        [column, *columns],
        [f"{other}.{name}" for name in ("id", *columns)],
        name=f"fk_{table}_{other}",
        deferrable=True if other == "transfers" else None,
        initially="DEFERRED" if other == "transfers" else None,
    )


def _create_terms() -> None:
    op.create_table(
        "billing_terms",
        words("organization_id"),
        words("currency"),
        words("mode"),
        *versioned(),
        key("billing_terms", "organization_id"),
    )


def _create_accounts() -> None:
    table = "ledger_accounts"
    names = ("organization_id", "kind", "currency", "qualifier")
    op.create_table(table, words("id"), *(words(name) for name in names), key(table))
    unique("uq_ledger_accounts_organization_id", table, *names)
    unique("uq_ledger_accounts_id", table, "id", "organization_id", "currency")


def _create_grants() -> None:
    table = "credit_grants"
    op.create_table(
        table,
        words("id"),
        words("organization_id"),
        words("currency"),
        words("kind"),
        number("priority"),
        moment("expires_at", nullable=True),
        number("amount"),
        number("amount_rest"),
        number("remaining"),
        number("remaining_rest"),
        moment("created_at"),
        words("name"),
        key(table),
        _check(table, "amount", "amount >= 0"),
        _check(table, "remaining", "remaining >= 0"),
        _check(
            table,
            "within",
            "remaining < amount OR (remaining = amount AND remaining_rest <= amount_rest)",
        ),
        _rest(table, "amount_rest"),
        _rest(table, "remaining_rest"),
    )
    unique("uq_credit_grants_id", table, "id", "organization_id", "currency")
    index(table, "organization_id", "created_at", "id")
    _index_where("ix_credit_grants_expires_at", table, "expires_at", _IS_LEFT)


def _create_transfers() -> None:
    table = "transfers"
    op.create_table(
        table,
        words("id"),
        words("organization_id"),
        words("kind"),
        words("idempotency_key"),
        words("currency"),
        moment("booked_at"),
        moment("recorded_at"),
        words("reverses_id", nullable=True),
        number("lines"),
        key(table),
        foreign(table, "reverses_id", table),
        _check(table, "lines", "lines >= 2"),
    )
    unique("uq_transfers_organization_id", table, "organization_id", "kind", "idempotency_key")
    columns = ("id", "organization_id", "currency", "booked_at", "lines")
    unique("uq_transfers_id", table, *columns)
    index(table, "organization_id", "recorded_at", "id")
    where = "reverses_id IS NOT NULL"
    _index_where("ix_transfers_reverses_id", table, "reverses_id", where)


def _create_entries() -> None:
    table = "entries"
    owner = ("organization_id", "currency")
    op.create_table(
        table,
        words("transfer_id"),
        number("line"),
        number("lines"),
        words("organization_id"),
        words("currency"),
        moment("booked_at"),
        words("account_id"),
        number("amount"),
        number("amount_rest"),
        words("grant_id", nullable=True),
        key(table, "transfer_id", "line"),
        _same(table, "transfers", "transfer_id", *owner, "booked_at", "lines"),
        _same(table, "ledger_accounts", "account_id", *owner),
        _same(table, "credit_grants", "grant_id", *owner),
        _check(table, "line", "line BETWEEN 1 AND lines"),
        _rest(table, "amount_rest"),
    )
    index(table, "account_id", "booked_at")
    _index_where("ix_entries_grant_id", table, "grant_id", "grant_id IS NOT NULL")


def _create_snapshots() -> None:
    table = "balance_snapshots"
    op.create_table(
        table,
        words("account_id"),
        moment("at"),
        words("organization_id"),
        number("amount"),
        number("amount_rest"),
        key(table, "account_id", "at"),
        foreign(table, "account_id", "ledger_accounts"),
        _rest(table, "amount_rest"),
    )
    index(table, "organization_id")


def _guard_postgresql() -> None:
    op.execute("""
        CREATE FUNCTION seal_transfer() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE found record;
        BEGIN
            SELECT count(*) AS lines, sum(amount) * 1000000000 + sum(amount_rest) AS total
                INTO found FROM entries WHERE transfer_id = NEW.id;
            IF found.lines <> NEW.lines OR found.total <> 0 THEN
                RAISE EXCEPTION USING ERRCODE = 'integrity_constraint_violation',
                    MESSAGE = 'the entries of transfer ' || NEW.id || ' do not add up';
            END IF;
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION USING ERRCODE = 'integrity_constraint_violation',
                MESSAGE = 'rows of ' || TG_TABLE_NAME || ' are never changed';
        END $$
    """)
    op.execute(
        "CREATE TRIGGER seal AFTER INSERT ON transfers "
        "FOR EACH ROW EXECUTE FUNCTION seal_transfer()"
    )
    for table in _KEYS:
        _refuse_postgresql(table, "UPDATE OR DELETE", "ROW")
        _refuse_postgresql(table, "TRUNCATE", "STATEMENT")
    granted = "UPDATE OF id, organization_id, currency, kind, priority, expires_at, "
    granted += "amount, amount_rest, created_at, name OR DELETE"
    _refuse_postgresql("credit_grants", granted, "ROW")
    # Foreign keys lock rows that they point at, for which the right to change them is needed.
    op.execute("REVOKE UPDATE, DELETE, TRUNCATE ON entries FROM CURRENT_USER")
    op.execute("REVOKE DELETE, TRUNCATE ON transfers, ledger_accounts FROM CURRENT_USER")


def _refuse_postgresql(table: str, change: str, each: str) -> None:
    name = "refuse_" + change.partition(" ")[0].lower()
    op.execute(
        f"CREATE TRIGGER {name} BEFORE {change} ON {table} "
        f"FOR EACH {each} EXECUTE FUNCTION refuse_change()"
    )


def _guard_sqlite() -> None:
    # Sums in halves, for SQLite fails when one passes 63 bits; and what is no number adds up to 0.
    op.execute("""
        CREATE TRIGGER transfers_seal AFTER INSERT ON transfers BEGIN
            SELECT RAISE(ABORT, 'the entries of a transfer do not add up')
            FROM (
                SELECT count(*) AS found, sum(amount >> 32) AS high,
                    sum(amount & 4294967295) AS low, sum(amount_rest) AS rest,
                    sum(typeof(amount) <> 'integer' OR typeof(amount_rest) <> 'integer') AS wrong
                FROM entries WHERE transfer_id = NEW.id
            )
            WHERE found <> NEW.lines OR wrong > 0 OR rest % 1000000000 <> 0
                OR (low + rest / 1000000000) % 4294967296 <> 0
                OR high + (low + rest / 1000000000) / 4294967296 <> 0;
        END
    """)
    for table, columns in _KEYS.items():
        for change in ("UPDATE", "DELETE"):
            _refuse_sqlite(table, change)
        # `INSERT OR REPLACE` takes the old row away, and no trigger of deletions hears of it.
        same = " AND ".join(f"{column} = NEW.{column}" for column in columns)
        _refuse_sqlite(table, "INSERT", f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {same})")  # noqa: S608 - names of ours
    granted = "UPDATE OF id, organization_id, currency, kind, priority, expires_at, "
    granted += "amount, amount_rest, created_at, name"
    for change in (granted, "DELETE"):
        _refuse_sqlite("credit_grants", change)


def _refuse_sqlite(table: str, change: str, when: str = "") -> None:
    name = f"{table}_refuse_" + change.partition(" ")[0].lower()
    op.execute(
        f"CREATE TRIGGER {name} BEFORE {change} ON {table} {when} BEGIN "
        f"SELECT RAISE(ABORT, 'rows of {table} are never changed'); END"
    )
