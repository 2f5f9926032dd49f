"""What migrations from 0025 on create tables of figures with, and fill them from finer ones.

Migrations of databases that are in use depend on it: what a function here makes never changes.
"""

# ruff: noqa: S608 - statements are put together from names of ours alone

from typing import Final

import sqlalchemy as sa
from alembic import op

from penstock.storage.migrations.columns import index, key, moment, number, wall, words

_LATER_METERS: Final = ("audio_seconds", "characters")
_METERS: Final = (
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
_NAMES: Final = {
    "usage": ("organization", "at", "project", "key_id", "model", "data_class", "region"),
    "charge": (
        "organization",
        "project",
        "key_id",
        "model",
        "data_class",
        "currency",
        "kind",
        "at",
    ),
}
_BY_TIME: Final = ("organization", "at")
_WITHOUT: Final = {"": (), "project_": ("key_id",), "model_": ("key_id", "project")}
KINDS: Final = tuple(_WITHOUT)
"""What figures are of: of keys, of projects, of models; a part of the name of a table."""
ROOMS: Final = tuple(_NAMES)
_MOST: Final = 2**63 - 1


def create_figures(width: str, kinds: tuple[str, ...] = KINDS, *, is_by_time: bool = False) -> None:
    """Create tables of usage and charges.

    Args:
        width: What their stretches of time are called.
        kinds: What the figures are of.
        is_by_time: Whether charges are found by time as usage is, and all by project; charges by
            organization and time without.
    """
    for kind in kinds:
        used, charged = (_names(room, kind) for room in ROOMS)
        if is_by_time:
            charged = (*_BY_TIME, *(name for name in charged if name not in _BY_TIME))
        _create_used(f"usage_{kind}{width}", used)
        _create_charged(f"charge_{kind}{width}", charged)
        for table, names in ((f"usage_{kind}{width}", used), (f"charge_{kind}{width}", charged)):
            index(table, *(("at",) if names[: len(_BY_TIME)] == _BY_TIME else _BY_TIME))
            # Of two that seem as good SQLite takes the newer one: of one key that is better by far.
            if is_by_time and "project" in names:
                index(table, "project", "at")
            if "key_id" in names:
                index(table, "key_id", "at")
            wall(table, column="organization")


def fold(room: str, kind: str, table: str, source: str, *, postgresql_at: str, at: str) -> None:
    """Add rows of a table up, as what they are in another one, in the order of time.

    Args:
        room: Of usage or of charges.
        kind: What the figures of the other table are of.
        table: The other table.
        source: The table that is read.
        postgresql_at: Where a row is in the other table, on PostgreSQL.
        at: The same on SQLite.
    """
    names = _names(room, kind)
    place = postgresql_at if op.get_bind().dialect.name == "postgresql" else at
    cells = ", ".join(place if name == "at" else name for name in names)
    columns = _METERS if room == "usage" else ("amount", "amount_rest")
    sums = [_most(name) for name in _METERS] if room == "usage" else _amounts()
    op.execute(
        f"INSERT INTO {table} ({', '.join((*names, *columns))})"
        f" SELECT {cells}, {', '.join(sums)} FROM {source} GROUP BY {cells} ORDER BY {place}"
    )


def _names(room: str, kind: str) -> tuple[str, ...]:
    return tuple(name for name in _NAMES[room] if name not in _WITHOUT[kind])


def _create_used(table: str, names: tuple[str, ...]) -> None:
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


def _create_charged(table: str, names: tuple[str, ...]) -> None:
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
