"""Invoices: particulars, drafts and what was issued, which charges each is over, and payments."""

import sqlalchemy as sa
from alembic import op

from penstock.storage.migrations.columns import (
    foreign,
    index,
    json,
    key,
    moment,
    number,
    only_added,
    unique,
    versioned,
    wall,
    words,
)

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_ISSUED = (
    "number IS NULL OR (number > 0 AND label IS NOT NULL AND issued_at IS NOT NULL "
    "AND net IS NOT NULL AND tax IS NOT NULL AND gross = net + tax "
    "AND content IS NOT NULL AND hash IS NOT NULL)"
)
_KIND = (
    "(kind = 'credit_note') = (preceding_id IS NOT NULL) "
    "AND (kind = 'invoice' OR number IS NOT NULL)"
)

_IS_ISSUED = "OLD.number IS NOT NULL"
_IS_OTHER = (
    "OLD.credit_note_id IS NOT NULL OR NEW.invoice_id <> OLD.invoice_id "
    "OR NEW.transfer_id <> OLD.transfer_id OR NEW.organization_id <> OLD.organization_id"
)
"""Of the charges of an invoice only what took them back is written, once."""


def upgrade() -> None:
    """Create the tables, then the walls, then what keeps what was issued as it is."""
    op.create_table(
        "billing_parties",
        words("organization_id"),
        json("particulars"),
        *versioned(),
        key("billing_parties", "organization_id"),
    )
    _create_invoices()
    _create_transfers()
    _create_payments()
    wall("billing_parties", "invoices", "invoice_transfers", "invoice_payments")
    only_added("invoice_payments")
    if op.get_bind().dialect.name == "postgresql":
        _guard_postgresql()
    else:
        _guard_sqlite()


def downgrade() -> None:
    """Take the tables down, with all they hold; what is booked stays in the ledger."""
    for table in ("invoice_payments", "invoice_transfers", "invoices", "billing_parties"):
        op.drop_table(table)


def _create_invoices() -> None:
    table = "invoices"
    op.create_table(
        table,
        words("id"),
        words("organization_id"),
        words("kind"),
        words("currency"),
        moment("since"),
        moment("until"),
        moment("created_at"),
        number("number", nullable=True),
        words("label", nullable=True),
        moment("issued_at", nullable=True),
        number("net", nullable=True),
        number("tax", nullable=True),
        number("gross", nullable=True),
        words("transfer_id", nullable=True),
        words("preceding_id", nullable=True),
        sa.Column("content", sa.Text(), nullable=True),
        words("hash", nullable=True),
        key(table),
        foreign(table, "transfer_id", "transfers"),
        foreign(table, "preceding_id", table),
        sa.CheckConstraint(_ISSUED, name=f"ck_{table}_issued"),
        sa.CheckConstraint(_KIND, name=f"ck_{table}_kind"),
    )
    unique("uq_invoices_number", table, "number")
    unique("uq_invoices_preceding_id", table, "preceding_id")
    draft = ("organization_id", "currency", "since")
    unique("uq_invoices_draft", table, *draft, where="number IS NULL")
    index(table, "organization_id", "created_at", "id")
    index(table, "created_at", "id")


def _create_transfers() -> None:
    table = "invoice_transfers"
    op.create_table(
        table,
        words("invoice_id"),
        words("transfer_id"),
        words("organization_id"),
        words("credit_note_id", nullable=True),
        key(table, "invoice_id", "transfer_id"),
        foreign(table, "invoice_id", "invoices"),
        foreign(table, "transfer_id", "transfers"),
        sa.ForeignKeyConstraint(
            ["credit_note_id"],
            ["invoices.id"],
            name=f"fk_{table}_credit_note_id_invoices",
            deferrable=True,
            initially="DEFERRED",
        ),
    )
    unique(f"uq_{table}_transfer_id", table, "transfer_id", where="credit_note_id IS NULL")


def _create_payments() -> None:
    table = "invoice_payments"
    op.create_table(
        table,
        words("invoice_id"),
        words("organization_id"),
        words("reference"),
        words("transfer_id", nullable=True),
        moment("paid_at"),
        key(table, "invoice_id"),
        foreign(table, "invoice_id", "invoices"),
        foreign(table, "transfer_id", "transfers"),
    )


def _guard_postgresql() -> None:
    _refuse_postgresql("invoices", "UPDATE OR DELETE", _IS_ISSUED)
    _refuse_postgresql("invoice_transfers", "UPDATE", _IS_OTHER)
    _refuse_postgresql("invoice_transfers", "DELETE", "true")
    for table in ("invoices", "invoice_transfers"):
        op.execute(
            f"CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )


def _refuse_postgresql(table: str, change: str, when: str) -> None:
    # The function is that of the ledger.
    name = "refuse_" + change.partition(" ")[0].lower()
    op.execute(
        f"CREATE TRIGGER {name} BEFORE {change} ON {table} "
        f"FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION refuse_change()"
    )


def _guard_sqlite() -> None:
    _refuse_sqlite("invoices", "UPDATE", _IS_ISSUED)
    _refuse_sqlite("invoices", "DELETE", _IS_ISSUED)
    _refuse_sqlite("invoice_transfers", "UPDATE", _IS_OTHER)
    _refuse_sqlite("invoice_transfers", "DELETE", "true")
    # `INSERT OR REPLACE` takes the old row away, and no trigger of deletions hears of it.
    _refuse_sqlite(
        "invoices",
        "INSERT",
        "EXISTS (SELECT 1 FROM invoices WHERE number IS NOT NULL "
        "AND (id = NEW.id OR number = NEW.number))",
    )
    _refuse_sqlite(
        "invoice_transfers",
        "INSERT",
        "EXISTS (SELECT 1 FROM invoice_transfers WHERE transfer_id = NEW.transfer_id "
        "AND (credit_note_id IS NULL OR invoice_id = NEW.invoice_id))",
    )


def _refuse_sqlite(table: str, change: str, when: str) -> None:
    op.execute(
        f"CREATE TRIGGER {table}_refuse_{change.lower()} BEFORE {change} ON {table} "
        f"WHEN {when} BEGIN SELECT RAISE(ABORT, 'rows of {table} are never changed'); END"
    )
