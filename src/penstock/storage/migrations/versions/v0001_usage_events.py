"""Usage events and their quarantine."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _timestamp() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    """Create the tables of the metering room."""
    op.create_table(
        "usage_events",
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("started_at", _timestamp(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("organization", sa.String(), nullable=False),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("served_model", sa.String(), nullable=False),
        sa.Column("upstream", sa.String(), nullable=False),
        sa.Column("operation", sa.String(), nullable=False),
        sa.Column("is_stream", sa.Boolean(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("status", sa.BigInteger(), nullable=False),
        sa.Column("error_code", sa.String(), nullable=True),
        sa.Column("usage_source", sa.String(), nullable=False),
        sa.Column("cached_input_tokens", sa.BigInteger(), nullable=True),
        sa.Column("reasoning_output_tokens", sa.BigInteger(), nullable=True),
        sa.Column("attempt_count", sa.BigInteger(), nullable=False),
        sa.Column("first_byte_at", _timestamp(), nullable=True),
        sa.Column("finished_at", _timestamp(), nullable=False),
        sa.Column("flags", sa.JSON(), nullable=False),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        sa.Column("producer", sa.String(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("recorded_at", _timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("event_id", name="pk_usage_events"),
    )
    for columns in (
        ("organization", "started_at"),
        ("project", "started_at"),
        ("key_id", "started_at"),
        ("request_id",),
        ("started_at", "event_id"),
    ):
        op.create_index("ix_usage_events_" + "_".join(columns), "usage_events", list(columns))
    op.create_table(
        "usage_event_conflicts",
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        sa.Column("organization", sa.String(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("producer", sa.String(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("recorded_at", _timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("event_id", "content_hash", name="pk_usage_event_conflicts"),
    )
    op.create_index(
        "ix_usage_event_conflicts_organization_recorded_at",
        "usage_event_conflicts",
        ["organization", "recorded_at"],
    )


def downgrade() -> None:
    """Drop them, with all usage."""
    op.drop_table("usage_event_conflicts")
    op.drop_table("usage_events")
