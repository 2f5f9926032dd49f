"""Endpoints that engines register themselves, and the tokens that they do it with."""

import sqlalchemy as sa
from alembic import op

from penstock.storage.migrations.columns import (
    foreign,
    index,
    key,
    moment,
    number,
    unique,
    versioned,
    words,
)

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

_TOKENS, _LEASES = "registration_tokens", "registrations"


def upgrade() -> None:
    """Create their tables."""
    op.create_table(
        _TOKENS,
        words("id"),
        words("upstream_id"),
        sa.Column("mac", sa.LargeBinary(), nullable=False),
        *versioned(),
        key(_TOKENS),
        foreign(_TOKENS, "upstream_id", "upstreams", ondelete="CASCADE"),
    )
    index(_TOKENS, "created_at", "id")
    op.create_table(
        _LEASES,
        words("id"),
        words("upstream_id"),
        words("url"),
        number("ttl_s"),
        number("weight"),
        words("engine"),
        moment("expires_at"),
        moment("lapsed_at", nullable=True),
        *versioned(),
        key(_LEASES),
        foreign(_LEASES, "upstream_id", "upstreams", ondelete="CASCADE"),
    )
    unique("uq_registrations_upstream_id_url", _LEASES, "upstream_id", "url")
    index(_LEASES, "created_at", "id")


def downgrade() -> None:
    """Forget them."""
    op.drop_table(_LEASES)
    op.drop_table(_TOKENS)
