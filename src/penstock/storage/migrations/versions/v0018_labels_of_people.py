"""Labels of members and service accounts, which their keys carry, too."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_TABLES = ("members", "service_accounts")


def upgrade() -> None:
    """Who is there has none."""
    for table in _TABLES:
        kind = sa.JSON().with_variant(sa.Text(), "sqlite")
        column = sa.Column("labels", kind, nullable=False, server_default=sa.text("'{}'"))
        op.add_column(table, column)


def downgrade() -> None:
    """Forget them."""
    for table in _TABLES:
        op.drop_column(table, "labels")
