"""Accounts, transfers, entries, grants."""

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables, then the walls."""


def downgrade() -> None:
    """Take the tables down, with all they hold."""
