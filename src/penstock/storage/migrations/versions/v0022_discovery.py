"""Upstreams whose endpoints are found."""

from alembic import op

from penstock.storage.migrations.columns import words

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Those that are there list their endpoints."""
    op.add_column("upstreams", words("discover", nullable=True))


def downgrade() -> None:
    """Those whose endpoints are found have none then, and are not served from."""
    op.drop_column("upstreams", "discover")
