"""Deployments that are LoRA adapters."""

from alembic import op

from penstock.storage.migrations.columns import words

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

_COLUMNS = ("adapter_of", "adapter_path")


def upgrade() -> None:
    """Those that are there are models."""
    for name in _COLUMNS:
        op.add_column("deployments", words(name, nullable=True))


def downgrade() -> None:
    """They are taken for models then, which engines serve where somebody loaded them."""
    for name in _COLUMNS:
        op.drop_column("deployments", name)
