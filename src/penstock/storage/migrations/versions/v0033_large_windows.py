"""What is spent of a budget has a column for what passes 10**9 units, as other amounts that grow.

What had ended at what one column holds is added up anew.
"""

import sqlalchemy as sa
from alembic import op

from penstock.storage.migrations.columns import number

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None

_MOST = 2**63 - 1
_NANO = 10**9
_CHARGED = """
SELECT budget_id, subject, starts_at, sum(amount / :nano), sum(amount % :nano), sum(amount_rest)
FROM budget_charges AS charge WHERE EXISTS (
    SELECT 1 FROM budget_windows AS ended WHERE ended.budget_id = charge.budget_id
    AND ended.subject = charge.subject AND ended.starts_at = charge.starts_at
    AND ended.settled = :most)
GROUP BY budget_id, subject, starts_at
"""
_SETTLE = """
UPDATE budget_windows SET settled_high = :high, settled = :settled, settled_rest = :rest
WHERE budget_id = :budget_id AND subject = :subject AND starts_at = :starts_at
"""


def upgrade() -> None:
    """Windows of more than the column held say what was spent."""
    column = number("settled_high")
    column.server_default = sa.DefaultClause(sa.text("0"))
    op.add_column("budget_windows", column)
    connection = _see_all()
    charged = connection.execute(sa.text(_CHARGED), {"nano": _NANO, "most": _MOST}).all()
    for budget_id, subject, starts_at, units, nano, rest in charged:
        more, rest_now = divmod(int(rest), _NANO)
        high, settled = divmod(int(units) * _NANO + int(nano) + more, _NANO**2)
        values = {"high": high, "settled": settled, "rest": rest_now}
        key = {"budget_id": budget_id, "subject": subject, "starts_at": starts_at}
        connection.execute(sa.text(_SETTLE), values | key)


def downgrade() -> None:
    """Windows of more end at what the column holds."""
    _see_all().execute(
        sa.text(
            "UPDATE budget_windows SET settled = :most, settled_rest = 0 "
            "WHERE settled_high > 9 OR (settled_high = 9 AND settled > :rest)"
        ),
        {"most": _MOST, "rest": _MOST - 9 * _NANO**2},
    )
    op.execute(
        f"UPDATE budget_windows SET settled = settled_high * {_NANO**2} + settled "  # noqa: S608 - ours
        f"WHERE settled_high > 0 AND settled < {_MOST}"
    )
    op.drop_column("budget_windows", "settled_high")


def _see_all() -> sa.Connection:
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        op.execute("SELECT set_config('app.is_platform', 'on', true)")
    return connection
