"""Figures of eighths of days, for days of time zones that begin far from those of UTC.

Charges of days and quarters of hours are found by project besides, as usage is: so that whoever may
see a single project reads no rows of others.
"""

from alembic import op

from penstock.storage.migrations.columns import index
from penstock.storage.migrations.figures import KINDS, ROOMS, create_figures, fold

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

_ON_POSTGRESQL = "date_bin('3 hours', at, TIMESTAMPTZ '1970-01-01 00:00:00+00')"
_FOUND = ("charge_days", "charge_quarters")
_BEFORE = ("organization", "at")
_BY_KEY = ("key_id", "at")
_NOW = (*_BEFORE, "project")


def upgrade() -> None:
    """Create the tables, and fill them from those of quarters of hours."""
    create_figures("eighths", is_by_time=True)
    for room in ROOMS:
        for kind in KINDS:
            names = f"{room}_{kind}eighths", f"{room}_{kind}quarters"
            fold(room, kind, *names, postgresql_at=_ON_POSTGRESQL, at="at - at % 10800000000")
    _find_by(_NOW, instead_of=_BEFORE)


def downgrade() -> None:
    """Take the tables down: all that they have is in those of quarters, too."""
    _find_by(_BEFORE, instead_of=_NOW)
    for room in ROOMS:
        for kind in KINDS:
            op.drop_table(f"{room}_{kind}eighths")


def _find_by(columns: tuple[str, ...], *, instead_of: tuple[str, ...]) -> None:
    for table in _FOUND:
        op.drop_index("_".join(["ix", table, *instead_of]))
        index(table, *columns)
        # Made anew, so that it is the newest one: see `create_figures`.
        op.drop_index("_".join(["ix", table, *_BY_KEY]))
        index(table, *_BY_KEY)
