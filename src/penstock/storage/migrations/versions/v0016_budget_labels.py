"""Budgets for keys with a label."""

from alembic import op

from penstock.storage.migrations.columns import words

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Budgets that are there are for all keys of their owner."""
    op.add_column("budgets", words("label", nullable=True))


def downgrade() -> None:
    """Those for a label go, with what was spent of them: else they would be for all keys."""
    for table in ("budget_charges", "budget_holds", "budget_windows"):
        op.execute(
            f"DELETE FROM {table} WHERE budget_id IN"  # noqa: S608 - our own names
            " (SELECT id FROM budgets WHERE label IS NOT NULL)"
        )
    op.execute("DELETE FROM budgets WHERE label IS NOT NULL")
    op.drop_column("budgets", "label")
