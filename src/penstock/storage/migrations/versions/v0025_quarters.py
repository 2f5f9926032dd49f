"""Quarters of hours in place of hours: days of time zones may begin at one.

What was used before counts at the beginning of its hour: nothing was kept that is finer.
"""

from alembic import op

from penstock.storage.migrations.columns import index
from penstock.storage.migrations.figures import ROOMS, create_figures, fold

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

_HOURS = ("", "project_")
"""What figures of hours were kept of."""


def upgrade() -> None:
    """Create the tables, fill them from those of hours, and take these down."""
    create_figures("quarters")
    for room in ROOMS:
        index(f"{room}_project_quarters", "project", "at")
    _fill(new="quarters", old="hours")
    for room in ROOMS:
        source = f"{room}_project_quarters"
        _fold(room, "model_", f"{room}_model_quarters", source)
        for kind in _HOURS:
            op.drop_table(f"{room}_{kind}hours")


def downgrade() -> None:
    """Bring back the tables of hours."""
    create_figures("hours", _HOURS)
    _fill(new="hours", old="quarters")
    for room in ROOMS:
        for kind in (*_HOURS, "model_"):
            op.drop_table(f"{room}_{kind}quarters")


def _fill(*, new: str, old: str) -> None:
    for room in ROOMS:
        for kind in _HOURS:
            _fold(room, kind, f"{room}_{kind}{new}", f"{room}_{kind}{old}")


def _fold(room: str, kind: str, table: str, source: str) -> None:
    hour = "date_trunc('hour', at, 'UTC')"
    fold(room, kind, table, source, postgresql_at=hour, at="at - at % 3600000000")
