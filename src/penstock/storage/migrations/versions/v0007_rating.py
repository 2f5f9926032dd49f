"""Price books, and what usage was rated at."""

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables, then the walls."""


def downgrade() -> None:
    """Take the tables down, with all they hold."""
