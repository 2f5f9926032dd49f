"""Figures of embeddings by themselves; those of usage that is there are made from its events."""

# ruff: noqa: S608 - statements are put together from names of ours alone

import sqlalchemy as sa
from alembic import op

from penstock.storage.migrations.columns import index, key, moment, number, wall, words

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_TABLE = "usage_embedding_hours"
_CELLS = ("organization", "at", "project", "key_id", "model", "data_class", "region")
_METERS = (
    "requests",
    "input",
    "cached_input",
    "cache_write_input",
    "audio_input",
    "output",
    "reasoning_output",
    "audio_output",
    "images",
)
_MOST = 2**40
"""Tokens that no event has, and of which millions can be added up."""


def upgrade() -> None:
    """Create the table, then add up the embeddings that there are."""
    columns: list[sa.Column[int] | sa.Column[str]] = [
        moment(name) if name == "at" else words(name) for name in _CELLS
    ]
    op.create_table(_TABLE, *columns, *(number(name) for name in _METERS), key(_TABLE, *_CELLS))
    index(_TABLE, "at")
    _fill()
    wall(_TABLE, column="organization")


def downgrade() -> None:
    """Take the table down."""
    op.drop_table(_TABLE)


def _fill() -> None:
    """Add up events; what was corrected before counts here as it was delivered."""
    is_postgresql = op.get_bind().dialect.name == "postgresql"
    at = "date_trunc('hour', started_at, 'UTC')"
    if not is_postgresql:
        at = "started_at - started_at % 3600000000"
    whole = _least("input_tokens", str(_MOST))
    cached = _least("COALESCE(cached_input_tokens, 0)", whole)
    figures = {
        "requests": "CASE WHEN first_byte_at IS NULL THEN 0 ELSE 1 END",
        "input": f"{whole} - {cached}",
        "cached_input": cached,
        "output": _least("output_tokens", str(_MOST)),
    }
    sums = ", ".join(f"CAST(sum({figures.get(name, '0')}) AS BIGINT)" for name in _METERS)
    cells = ", ".join(at if name == "at" else name for name in _CELLS)
    op.execute(
        f"INSERT INTO {_TABLE} ({', '.join((*_CELLS, *_METERS))}) SELECT {cells}, {sums}"
        f" FROM usage_events WHERE operation = 'embeddings' GROUP BY {cells}"
    )


def _least(one: str, other: str) -> str:
    return f"CASE WHEN {one} < {other} THEN {one} ELSE {other} END"
