"""Whether the engines of an upstream serve urgent requests first."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nobody said so of any before."""
    op.add_column(
        "upstreams",
        sa.Column("takes_priority", sa.Boolean(), nullable=False, server_default=sa.text("false")),
    )


def downgrade() -> None:
    """Forget it."""
    op.drop_column("upstreams", "takes_priority")
