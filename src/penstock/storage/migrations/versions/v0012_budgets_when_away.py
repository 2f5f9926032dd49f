"""What workers do with a hard budget that they cannot reach."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Budgets that are there go on as before."""
    column = sa.Column("when_away", sa.String(), nullable=False, server_default="spend_held")
    op.add_column("budgets", column)


def downgrade() -> None:
    """Forget it."""
    op.drop_column("budgets", "when_away")
