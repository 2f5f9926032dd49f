"""Hours of projects, and charges by the hour: what days of time zones have at their edges."""

# ruff: noqa: S608 - statements are put together from names of ours alone

import sqlalchemy as sa
from alembic import op

from penstock.storage.migrations.columns import index, key, moment, number, wall, words

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_CELLS = ("organization", "at", "project", "model", "data_class", "region")
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
_CHARGED = ("organization", "project", "key_id", "model", "data_class", "currency", "kind")
_CHARGED_PROJECT = tuple(name for name in _CHARGED if name != "key_id")
_MOST = 2**63 - 1


def upgrade() -> None:
    """Create the tables, and add up what there is."""
    table = "usage_project_hours"
    op.create_table(
        table,
        words("organization"),
        moment("at"),
        *(words(name) for name in _CELLS[2:]),
        *(number(name) for name in _METERS),
        key(table, *_CELLS),
    )
    index(table, "at")
    index("usage_hours", "key_id", "at")
    for table, names in (
        ("charge_hours", _CHARGED),
        ("charge_project_hours", _CHARGED_PROJECT),
    ):
        op.create_table(
            table,
            *(words(name) for name in names),
            moment("at"),
            number("amount"),
            number("amount_rest"),
            key(table, *names, "at"),
            sa.CheckConstraint(
                "amount_rest BETWEEN 0 AND 999999999", name=op.f(f"ck_{table}_amount_rest")
            ),
        )
        index(table, "organization", "at")
    index("charge_hours", "key_id", "at")
    _fill_usage()
    _fill_charges()
    wall("usage_project_hours", "charge_hours", "charge_project_hours", column="organization")


def downgrade() -> None:
    """Take the tables down."""
    op.drop_index("ix_usage_hours_key_id_at", "usage_hours")
    for table in ("charge_project_hours", "charge_hours", "usage_project_hours"):
        op.drop_table(table)


def _fill_usage() -> None:
    cells = ", ".join(_CELLS)
    # A sum stops at the greatest number that there is, as those of all figures do.
    half = 2**32
    sums = []
    for name in _METERS:
        tops, rests = (f"CAST(sum({name} {sign} {half}) AS BIGINT)" for sign in "/%")
        high = f"({tops} + {rests} / {half})"
        low = f"{high} * {half} + {rests} % {half}"
        sums.append(f"CASE WHEN {high} >= {half // 2} THEN {_MOST} ELSE {low} END")
    op.execute(
        f"INSERT INTO usage_project_hours ({', '.join((*_CELLS, *_METERS))})"
        f" SELECT {cells}, {', '.join(sums)} FROM usage_hours GROUP BY {cells}"
    )


def _fill_charges() -> None:
    """Add up what each event was rated at, then the hours of projects."""
    at = "started_at - started_at % 3600000000"
    if op.get_bind().dialect.name == "postgresql":
        at = "date_trunc('hour', started_at, 'UTC')"
    rated = {name: f"rated.{name}" for name in ("organization", "currency", "kind")}
    names = ", ".join(rated.get(name, f"events.{name}") for name in _CHARGED)
    _fold(
        "charge_hours",
        _CHARGED,
        f"{names}, {at}",
        "rated_usage AS rated JOIN usage_events AS events"
        " ON events.day = rated.day AND events.event_id = rated.event_id",
    )
    projects = ", ".join(_CHARGED_PROJECT)
    _fold("charge_project_hours", _CHARGED_PROJECT, f"{projects}, at", "charge_hours")


def _fold(table: str, names: tuple[str, ...], cells: str, source: str) -> None:
    whole, rest = (f"CAST(sum({name}) AS BIGINT)" for name in ("amount", "amount_rest"))
    op.execute(
        f"INSERT INTO {table} ({', '.join(names)}, at, amount, amount_rest)"
        f" SELECT {cells}, {whole} + {rest} / 1000000000, {rest} % 1000000000"
        f" FROM {source} GROUP BY {cells} HAVING sum(amount) <> 0 OR sum(amount_rest) <> 0"
    )
