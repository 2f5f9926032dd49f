"""Whether an organization that pays for what it uses may use what has no price."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Refuse it to all that have terms, and have their nodes hear of it."""
    if op.get_bind().dialect.name == "postgresql":
        # Who migrates is no platform by itself, and would see no row.
        op.execute("SELECT set_config('app.is_platform', 'on', true)")
    op.add_column(
        "billing_terms",
        sa.Column("unpriced", sa.String(), nullable=False, server_default="refuse"),
    )
    op.execute(
        "INSERT INTO snapshot_changes (kind, object_id, recorded_at) "
        "SELECT 'terms', organization_id, updated_at FROM billing_terms ORDER BY organization_id"
    )


def downgrade() -> None:
    """Forget it."""
    op.execute("DELETE FROM snapshot_changes WHERE kind = 'terms'")
    op.drop_column("billing_terms", "unpriced")
