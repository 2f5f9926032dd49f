"""Upstreams whose engines tell of their KV caches, and how prompts are looked up there."""

from alembic import op

from penstock.storage.migrations.columns import words

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

_COLUMNS = (("upstreams", "kv_events"), ("deployments", "tokenizer"))


def upgrade() -> None:
    """Nobody listens to those that are there."""
    for table, name in _COLUMNS:
        op.add_column(table, words(name, nullable=True))


def downgrade() -> None:
    """Nobody listens any more."""
    for table, name in _COLUMNS:
        op.drop_column(table, name)
