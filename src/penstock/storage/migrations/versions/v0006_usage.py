"""What usage events say more; figures of hours and days; how far journals are stored."""

# ruff: noqa: S608 - statements are put together from names of ours alone

import sqlalchemy as sa
from alembic import op

from penstock.storage.migrations.columns import (
    index,
    key,
    moment,
    number,
    only_added,
    parts_by_day,
    wall,
    words,
)
from penstock.storage.partitions import DAYS_AHEAD

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_MAX_PARTS = 800
"""Days of usage that is there which get a part of their own; the default one has the rest."""
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
_KEPT = (
    "event_id", "started_at", "input_tokens", "output_tokens", "organization", "project", "key_id",
    "model", "request_id", "served_model", "upstream", "operation", "is_stream", "outcome",
    "status", "error_code", "usage_source", "cached_input_tokens", "reasoning_output_tokens",
    "attempt_count", "first_byte_at", "finished_at", "flags", "content_hash", "producer", "epoch",
    "recorded_at",
)  # fmt: skip
_INDEXES = (
    ("organization", "started_at"),
    ("project", "started_at"),
    ("key_id", "started_at"),
    ("request_id",),
    ("started_at", "event_id"),
)
_FIGURES = (
    "usage_hours",
    "usage_days",
    "usage_months",
    "usage_project_days",
    "usage_label_days",
)
_PROJECT_CELLS = ("organization", "at", "project", "model", "data_class", "region")
_CELLS = ("organization", "at", "project", "key_id", "model", "data_class", "region")


def upgrade() -> None:
    """Rebuild the events' table with its days, and fill the figures from what is there."""
    _rebuild(is_new=True)
    wall("usage_events", column="organization")
    only_added("usage_events")
    op.create_table(
        "usage_producers",
        words("producer"),
        number("epoch"),
        number("position_segment"),
        number("position_offset"),
        number("event_count"),
        number("first_day"),
        number("last_day"),
        moment("seen_at"),
        key("usage_producers", "producer", "epoch"),
    )
    _create_figures()
    wall(*_FIGURES, column="organization")
    _fill_figures("usage_hours", "hour", 3_600)
    _fill_figures("usage_days", "day", 86_400)
    _fold_days("usage_months", _CELLS, _month())
    _fold_days("usage_project_days", _PROJECT_CELLS, "at")


def downgrade() -> None:
    """Bring back the events' table as it was, without what they say more."""
    for table in (*_FIGURES, "usage_producers"):
        op.drop_table(table)
    _rebuild(is_new=False)
    wall("usage_events", column="organization")
    if _is_postgresql():
        op.execute("DROP FUNCTION refuse_other_than_adding()")


def _is_postgresql() -> bool:
    return op.get_bind().dialect.name == "postgresql"


def _rebuild(*, is_new: bool) -> None:
    if _is_postgresql():
        # Who migrates is no platform by itself, and would see no row.
        op.execute("SELECT set_config('app.is_platform', 'on', true)")
    op.rename_table("usage_events", "usage_events_old")
    if _is_postgresql():
        op.execute(
            "ALTER TABLE usage_events_old RENAME CONSTRAINT pk_usage_events TO pk_usage_events_old"
        )
    _create_events(is_new=is_new)
    kept = ", ".join(_KEPT)
    if is_new:
        op.execute(
            f"INSERT INTO usage_events (day, {kept}, labels, data_class, region, service_tier,"
            " upstream_request_id, image_count, earlier_attempts)"
            f" SELECT {_day()}, {kept}, '[]', '', '', '', '', 0, '[]' FROM usage_events_old"
        )
    else:
        op.execute(f"INSERT INTO usage_events ({kept}) SELECT {kept} FROM usage_events_old")
    op.drop_table("usage_events_old")
    for columns in _INDEXES:
        index("usage_events", *columns)


def _create_events(*, is_new: bool) -> None:
    added = (
        sa.Column("labels", sa.JSON(), nullable=False),
        words("data_class"),
        words("region"),
        words("service_tier"),
        words("upstream_request_id"),
        number("cache_write_input_tokens", nullable=True),
        number("audio_input_tokens", nullable=True),
        number("audio_output_tokens", nullable=True),
        number("image_count"),
        sa.Column("earlier_attempts", sa.JSON(), nullable=False),
    )
    op.create_table(
        "usage_events",
        *([number("day")] if is_new else []),
        words("event_id"),
        moment("started_at"),
        number("input_tokens"),
        number("output_tokens"),
        words("organization"),
        words("project"),
        words("key_id"),
        words("model"),
        words("request_id"),
        words("served_model"),
        words("upstream"),
        words("operation"),
        sa.Column("is_stream", sa.Boolean(), nullable=False),
        words("outcome"),
        number("status"),
        words("error_code", nullable=True),
        words("usage_source"),
        number("cached_input_tokens", nullable=True),
        number("reasoning_output_tokens", nullable=True),
        number("attempt_count"),
        moment("first_byte_at", nullable=True),
        moment("finished_at"),
        sa.Column("flags", sa.JSON(), nullable=False),
        *(added if is_new else ()),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        words("producer"),
        number("epoch"),
        moment("recorded_at"),
        key("usage_events", *(("day", "event_id") if is_new else ("event_id",))),
        postgresql_partition_by="RANGE (day)" if is_new else None,
    )
    if is_new and _is_postgresql():
        now = "floor(extract(epoch FROM now()) / 86400)::bigint"
        found = op.get_bind().execute(
            sa.text(
                f"SELECT day FROM (SELECT DISTINCT {_day()} AS day FROM usage_events_old"
                f" UNION SELECT generate_series({now}, {now} + {DAYS_AHEAD})) AS days"
                f" WHERE day BETWEEN 1 AND {now} + {DAYS_AHEAD}"
                f" ORDER BY day DESC LIMIT {_MAX_PARTS}"
            )
        )
        parts_by_day("usage_events", list(found.scalars()))


def _day() -> str:
    """Return what `metering.rules.day_of` says of a row's event id, as SQL."""
    digit = "[0-9a-f]"
    place, look = ("strpos", "~") if _is_postgresql() else ("instr", "GLOB")
    if _is_postgresql():
        shape = f"^{digit}{{8}}-{digit}{{4}}-7{digit}{{3}}-[89ab]{digit}{{3}}-{digit}{{12}}$"
    else:
        d4 = digit * 4
        shape = f"{d4}{d4}-{d4}-7{digit * 3}-[89ab]{digit * 3}-{d4}{d4}{d4}"
    places = (*range(1, 9), *range(10, 14))
    milliseconds = " + ".join(
        f"CAST({place}('0123456789abcdef', substr(event_id, {at}, 1)) - 1 AS BIGINT)"
        f" * {16 ** (11 - power)}"
        for power, at in enumerate(places)
    )
    return f"CASE WHEN event_id {look} '{shape}' THEN ({milliseconds}) / 86400000 ELSE 0 END"


def _create_figures() -> None:
    for table in ("usage_hours", "usage_days", "usage_months"):
        op.create_table(
            table,
            words("organization"),
            moment("at"),
            *(words(name) for name in _CELLS[2:]),
            *(number(name) for name in _METERS),
            key(table, *_CELLS),
        )
        index(table, "at")
    index("usage_days", "key_id", "at")
    op.create_table(
        "usage_project_days",
        words("organization"),
        moment("at"),
        *(words(name) for name in _PROJECT_CELLS[2:]),
        *(number(name) for name in _METERS),
        key("usage_project_days", *_PROJECT_CELLS),
    )
    index("usage_project_days", "at")
    op.create_table(
        "usage_label_days",
        words("organization"),
        words("name"),
        moment("at"),
        words("value"),
        words("model"),
        *(number(name) for name in _METERS),
        key("usage_label_days", "organization", "name", "at", "value", "model"),
    )


def _fill_figures(table: str, stretch: str, seconds: int) -> None:
    """Add up the events that are there: older ones have these meters only."""
    cached = _least("COALESCE(cached_input_tokens, 0)", "input_tokens")
    reasoning = _least("COALESCE(reasoning_output_tokens, 0)", "output_tokens")
    figures = {
        "requests": "CASE WHEN first_byte_at IS NULL THEN 0 ELSE 1 END",
        "input": f"input_tokens - {cached}",
        "cached_input": cached,
        "output": f"output_tokens - {reasoning}",
        "reasoning_output": reasoning,
    }
    sums = ", ".join(_sum(figures[name]) if name in figures else "0" for name in _METERS)
    if _is_postgresql():
        at = f"date_trunc('{stretch}', started_at, 'UTC')"
    else:
        at = f"started_at - started_at % {seconds * 1_000_000}"
    cells = f"organization, {at}, project, key_id, model, data_class, region"
    op.execute(
        f"INSERT INTO {table} ({', '.join((*_CELLS, *_METERS))})"
        f" SELECT {cells}, {sums} FROM usage_events GROUP BY {cells}"
    )


def _fold_days(table: str, names: tuple[str, ...], at: str) -> None:
    """Add up the figures of days that are alike."""
    cells = ", ".join(at if name == "at" else name for name in names)
    op.execute(
        f"INSERT INTO {table} ({', '.join((*names, *_METERS))})"
        f" SELECT {cells}, {', '.join(map(_sum, _METERS))} FROM usage_days GROUP BY {cells}"
    )


def _month() -> str:
    if _is_postgresql():
        return "date_trunc('month', at, 'UTC')"
    start = "strftime('%s', at / 1000000, 'unixepoch', 'start of month')"
    return f"CAST({start} AS INTEGER) * 1000000"


def _least(one: str, other: str) -> str:
    return f"CASE WHEN {one} < {other} THEN {one} ELSE {other} END"


def _sum(figure: str) -> str:
    """Return a sum that stops at the greatest number that there is: no database fails at it."""
    half = 2**32
    # Of whole numbers: sums are none for PostgreSQL, which would divide them to fractions.
    tops, rests = (f"CAST(sum(({figure}) {sign} {half}) AS BIGINT)" for sign in "/%")
    high = f"({tops} + {rests} / {half})"
    return (
        f"CASE WHEN {high} >= {half // 2} THEN {2**63 - 1}"
        f" ELSE {high} * {half} + {rests} % {half} END"
    )
