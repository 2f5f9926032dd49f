"""Figures of labels are kept by project, too."""

# ruff: noqa: S608 - statements are put together from names of ours alone

from collections.abc import Iterable

import sqlalchemy as sa
from alembic import op

from penstock.storage.migrations.columns import key, moment, number, wall, words

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

_USAGE = "usage_label_days"
_CHARGES = "charge_label_days"
_KEYS = {
    _USAGE: ("organization", "name", "at", "value", "model"),
    _CHARGES: ("organization", "name", "value", "currency", "kind", "at"),
}
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
    "audio_seconds",
    "characters",
)
_LATER = ("audio_seconds", "characters")
"""Those of them that were added to a table, and have a default."""
_AMOUNT = ("amount", "amount_rest")


def upgrade() -> None:
    """Figures that are there stay those of their organization: their project is not known."""
    for table, names in _KEYS.items():
        figures = _METERS if table == _USAGE else _AMOUNT
        _replace(table, (*names, "project"), f"{_listed(names)}, '', {_listed(figures)}")


def downgrade() -> None:
    """Add the figures of projects up."""
    for table, names in _KEYS.items():
        sums = [f"CAST(sum({name}) AS BIGINT)" for name in _METERS]
        if table == _CHARGES:
            whole, rest = (f"CAST(sum({name}) AS BIGINT)" for name in _AMOUNT)
            sums = [f"{whole} + {rest} / 1000000000", f"{rest} % 1000000000"]
        _replace(table, names, f"{_listed(names)}, {_listed(sums)}", f"GROUP BY {_listed(names)}")


def _replace(table: str, names: tuple[str, ...], columns: str, how: str = "") -> None:
    op.execute(f"CREATE TEMPORARY TABLE kept AS SELECT * FROM {table}")
    op.drop_table(table)
    figures = _METERS if table == _USAGE else _AMOUNT
    checks = []
    if table == _CHARGES:
        name = op.f(f"ck_{table}_amount_rest")
        checks.append(sa.CheckConstraint("amount_rest BETWEEN 0 AND 999999999", name=name))
    op.create_table(
        table,
        *(moment(name) if name == "at" else words(name) for name in names),
        *(number(name) for name in figures if name not in _LATER),
        *(
            sa.Column(name, sa.BigInteger(), nullable=False, server_default=sa.text("0"))
            for name in figures
            if name in _LATER
        ),
        key(table, *names),
        *checks,
    )
    op.execute(
        f"INSERT INTO {table} ({_listed((*names, *figures))}) SELECT {columns} FROM kept {how}"
    )
    op.execute("DROP TABLE kept")
    wall(table, column="organization")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
