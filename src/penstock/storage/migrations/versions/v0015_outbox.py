"""What others must be told, and what budgets have told of their windows."""

import sqlalchemy as sa
from alembic import op

from penstock.storage.migrations.columns import index, json, key, moment, wall, words

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the outbox, and have windows remember."""
    is_postgresql = op.get_bind().dialect.name == "postgresql"
    # The number of the transaction, whoever writes the row.
    number = "(pg_current_xact_id()::text::bigint)" if is_postgresql else "0"
    op.create_table(
        "outbox",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column(
            "transaction_number", sa.BigInteger(), nullable=False, server_default=sa.text(number)
        ),
        words("id"),
        words("topic"),
        words("organization_id"),
        words("key"),
        json("payload"),
        moment("created_at"),
        key("outbox", "seq"),
        sqlite_autoincrement=True,
    )
    index("outbox", "transaction_number", "seq")
    index("outbox", "organization_id", "transaction_number", "seq")
    index("outbox", "created_at")
    wall("outbox")
    for column in (
        sa.Column("told_percentage", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column(
            "is_exhaustion_told", sa.Boolean(), nullable=False, server_default=sa.text("false")
        ),
    ):
        op.add_column("budget_windows", column)


def downgrade() -> None:
    """Forget both."""
    for column in ("is_exhaustion_told", "told_percentage"):
        op.drop_column("budget_windows", column)
    op.drop_table("outbox")
