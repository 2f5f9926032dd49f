"""Amounts that are added up in their row have a column for what passes 10**9 units.

Nothing is rewritten: rows of before have none of it, and are read as they are.
"""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None

# In the order in which usage is written: it may come meanwhile, to a control plane of before.
_COLUMNS = (
    *(
        (table, "amount_high")
        for table in (
            "rated_meters",
            "charge_quarters",
            "charge_project_quarters",
            "charge_model_quarters",
            "charge_eighths",
            "charge_project_eighths",
            "charge_model_eighths",
            "charge_days",
            "charge_months",
            "charge_project_days",
            "charge_label_days",
        )
    ),
    ("budget_windows", "balance_high"),
    ("wallet_overdrafts", "amount_high"),
)


def upgrade() -> None:
    """No amount passed them before."""
    for table, name in _COLUMNS:
        op.add_column(
            table, sa.Column(name, sa.BigInteger(), nullable=False, server_default=sa.text("0"))
        )


def downgrade() -> None:
    """Forget them; what passed 10**9 units is wrong from then on, and `ledger verify` says so."""
    for table, name in _COLUMNS:
        op.drop_column(table, name)
