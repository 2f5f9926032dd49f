"""Seconds of sound that was heard, and characters of text that was spoken."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_TABLES = (
    "usage_events",
    "usage_hours",
    "usage_embedding_hours",
    "usage_days",
    "usage_months",
    "usage_label_days",
    "usage_project_days",
    "usage_project_hours",
)
_METERS = ("audio_seconds", "characters")


def upgrade() -> None:
    """Add the columns: nothing was counted of either before."""
    for table in _TABLES:
        for name in _METERS:
            nothing = sa.text("0")
            column = sa.Column(name, sa.BigInteger(), nullable=False, server_default=nothing)
            op.add_column(table, column)


def downgrade() -> None:
    """Take the columns away."""
    for table in _TABLES:
        for name in _METERS:
            op.drop_column(table, name)
