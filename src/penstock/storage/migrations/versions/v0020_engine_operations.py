"""What operators want engines to do, and what came of it."""

from alembic import op

from penstock.storage.migrations.columns import index, json, key, moment, versioned, words

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_TABLE = "engine_operations"


def upgrade() -> None:
    """Create their table."""
    op.create_table(
        _TABLE,
        words("id"),
        words("upstream_id"),
        words("upstream"),
        words("operation"),
        json("arguments"),
        words("endpoint", nullable=True),
        words("node_id", nullable=True),
        moment("claimed_at", nullable=True),
        moment("finished_at", nullable=True),
        json("outcomes"),
        words("fault", nullable=True),
        *versioned(),
        key(_TABLE),
    )
    index(_TABLE, "created_at", "id")


def downgrade() -> None:
    """Forget them."""
    op.drop_table(_TABLE)
