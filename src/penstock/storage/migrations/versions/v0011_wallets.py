"""Wallets: budgets that the ledger fills, and what was taken beyond what was free in them.

Those of organizations that are prepaid already begin to count when the control plane has started.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from penstock.storage.migrations.columns import (
    flag,
    index,
    key,
    moment,
    number,
    only_added,
    wall,
    words,
)

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_TABLE = "wallet_overdrafts"


def upgrade() -> None:
    """Add the columns, and the table."""
    _add("budgets", flag("is_wallet"), "false")
    for name in ("balance", "balance_rest"):
        _add("budget_windows", number(name), "0")
    op.create_table(
        _TABLE,
        words("organization_id"),
        words("source"),
        words("cause"),
        words("currency"),
        number("amount"),
        number("amount_rest"),
        moment("recorded_at"),
        key(_TABLE, "organization_id", "source", "cause"),
        sa.CheckConstraint("amount_rest BETWEEN 0 AND 999999999", name=f"ck_{_TABLE}_amount_rest"),
    )
    index(_TABLE, "organization_id", "recorded_at")
    wall(_TABLE)
    only_added(_TABLE)


def downgrade() -> None:
    """Take down what was added: wallets bind nobody any more."""
    op.drop_table(_TABLE)
    if op.get_bind().dialect.name == "postgresql":  # the wall would hide all rows
        op.execute("SELECT set_config('app.is_platform', 'on', true)")
    wallets = "(SELECT id FROM budgets WHERE is_wallet)"
    for table in ("budget_charges", "budget_holds", "budget_windows"):
        op.execute(f"DELETE FROM {table} WHERE budget_id IN {wallets}")  # noqa: S608 - names of ours
    op.execute("DELETE FROM budgets WHERE is_wallet")
    op.drop_column("budgets", "is_wallet")
    for name in ("balance", "balance_rest"):
        op.drop_column("budget_windows", name)


def _add(table: str, column: sa.Column[Any], value: str) -> None:
    """Add a column to a table that has rows."""
    column.server_default = sa.DefaultClause(sa.text(value))
    op.add_column(table, column)
