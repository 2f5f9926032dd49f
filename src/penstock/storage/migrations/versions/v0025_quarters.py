"""Quarters of hours in place of hours: days of time zones may begin at one.

What was used before counts at the beginning of its hour: nothing was kept that is finer.
"""

# ruff: noqa: S608 - statements are put together from names of ours alone

import sqlalchemy as sa
from alembic import op

from penstock.storage.migrations.columns import index, key, moment, number, wall, words

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

_LATER_METERS = ("audio_seconds", "characters")
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
    *_LATER_METERS,
)
_USED = ("organization", "at", "project", "key_id", "model", "data_class", "region")
_CHARGED = ("organization", "project", "key_id", "model", "data_class", "currency", "kind", "at")
_MOST = 2**63 - 1


def upgrade() -> None:
    """Create the tables, fill them from those of hours, and take these down."""
    for kind in ("", "project_", "model_"):
        _create_used(f"usage_{kind}quarters", _names(_USED, kind), has_keys=not kind)
        _create_charged(f"charge_{kind}quarters", _names(_CHARGED, kind), has_keys=not kind)
    for room in ("usage", "charge"):
        index(f"{room}_project_quarters", "project", "at")
    _fill(new="quarters", old="hours")
    for room, names in (("usage", _USED), ("charge", _CHARGED)):
        _fold(room, f"{room}_model_quarters", f"{room}_project_quarters", _names(names, "model_"))
        for kind in ("", "project_"):
            op.drop_table(f"{room}_{kind}hours")


def downgrade() -> None:
    """Bring back the tables of hours."""
    for kind in ("", "project_"):
        _create_used(f"usage_{kind}hours", _names(_USED, kind), has_keys=not kind)
        _create_charged(f"charge_{kind}hours", _names(_CHARGED, kind), has_keys=not kind)
    _fill(new="hours", old="quarters")
    for room in ("usage", "charge"):
        for kind in ("", "project_", "model_"):
            op.drop_table(f"{room}_{kind}quarters")


def _names(names: tuple[str, ...], kind: str) -> tuple[str, ...]:
    without = {"": (), "project_": ("key_id",), "model_": ("key_id", "project")}[kind]
    return tuple(name for name in names if name not in without)


def _create_used(table: str, names: tuple[str, ...], *, has_keys: bool) -> None:
    nothing = sa.text("0")
    op.create_table(
        table,
        *(moment(name) if name == "at" else words(name) for name in names),
        *(number(name) for name in _METERS if name not in _LATER_METERS),
        *(
            sa.Column(name, sa.BigInteger(), nullable=False, server_default=nothing)
            for name in _LATER_METERS
        ),
        key(table, *names),
    )
    index(table, "at")
    if has_keys:
        index(table, "key_id", "at")
    wall(table, column="organization")


def _create_charged(table: str, names: tuple[str, ...], *, has_keys: bool) -> None:
    op.create_table(
        table,
        *(moment(name) if name == "at" else words(name) for name in names),
        number("amount"),
        number("amount_rest"),
        key(table, *names),
        sa.CheckConstraint(
            "amount_rest BETWEEN 0 AND 999999999", name=op.f(f"ck_{table}_amount_rest")
        ),
    )
    index(table, "organization", "at")
    if has_keys:
        index(table, "key_id", "at")
    wall(table, column="organization")


def _fill(*, new: str, old: str) -> None:
    for room, names in (("usage", _USED), ("charge", _CHARGED)):
        for kind in ("", "project_"):
            _fold(room, f"{room}_{kind}{new}", f"{room}_{kind}{old}", _names(names, kind))


def _fold(room: str, table: str, source: str, names: tuple[str, ...]) -> None:
    """Add rows up by hour, as what they are in the new table."""
    hour = "at - at % 3600000000"
    if op.get_bind().dialect.name == "postgresql":
        hour = "date_trunc('hour', at, 'UTC')"
    cells = ", ".join(hour if name == "at" else name for name in names)
    columns = _METERS if room == "usage" else ("amount", "amount_rest")
    sums = [_most(name) for name in _METERS] if room == "usage" else _amounts()
    op.execute(
        f"INSERT INTO {table} ({', '.join((*names, *columns))})"
        f" SELECT {cells}, {', '.join(sums)} FROM {source} GROUP BY {cells}"
    )


def _amounts() -> list[str]:
    whole, rest = (f"CAST(sum({name}) AS BIGINT)" for name in ("amount", "amount_rest"))
    return [f"{whole} + {rest} / 1000000000", f"{rest} % 1000000000"]


def _most(name: str) -> str:
    """Return a sum that stops at the greatest number that there is, as those of all figures do."""
    half = 2**32
    tops, rests = (f"CAST(sum({name} {sign} {half}) AS BIGINT)" for sign in "/%")
    high = f"({tops} + {rests} / {half})"
    return (
        f"CASE WHEN {high} >= {half // 2} THEN {_MOST} ELSE {high} * {half} + {rests} % {half} END"
    )
