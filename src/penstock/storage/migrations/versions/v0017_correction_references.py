"""What corrections are called by whoever makes them, and what they say that was used."""

import sqlalchemy as sa
from alembic import op

from penstock.storage.migrations.columns import json

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_TABLE = "usage_corrections"


def upgrade() -> None:
    """Corrections that are there have no reference: their ids are random, and never said again."""
    op.add_column(_TABLE, sa.Column("reference", sa.String(), nullable=False, server_default=""))
    op.add_column(_TABLE, json("quantities", nullable=True))


def downgrade() -> None:
    """Forget both."""
    for name in ("reference", "quantities"):
        op.drop_column(_TABLE, name)
