"""Keys and service accounts that the operator disabled, which only the operator enables again."""

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None

_TABLES = ("service_accounts", "api_keys")
_NAME = "is_disabled_by_operator"


def upgrade() -> None:
    """Of those that are disabled nobody knows any more who did it: their organization decides."""
    for table in _TABLES:
        op.add_column(
            table,
            sa.Column(_NAME, sa.Boolean(), nullable=False, server_default=sa.text("false")),
        )


def downgrade() -> None:
    """Their organizations may enable all of them again."""
    for table in _TABLES:
        op.drop_column(table, _NAME)
