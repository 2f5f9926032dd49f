"""How long requests took, as histograms of hours."""

# ruff: noqa: S608 - the statement is put together from names of ours alone

from alembic import op

from penstock.storage.migrations.columns import index, json, key, moment, wall, words

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

_TABLE = "usage_latency_hours"


def upgrade() -> None:
    """Create the table, and count how requests ended that there are; their times stay unknown."""
    op.create_table(
        _TABLE,
        words("organization"),
        moment("at"),
        words("project"),
        words("model"),
        json("counts"),
        key(_TABLE, "organization", "at", "project", "model"),
    )
    index(_TABLE, "at")
    hour = "started_at - started_at % 3600000000"
    counts = "json_object('outcomes', json(json_group_object(outcome, ended)))"
    if op.get_bind().dialect.name == "postgresql":
        hour = "date_trunc('hour', started_at, 'UTC')"
        counts = "json_build_object('outcomes', json_object_agg(outcome, ended))"
    op.execute(
        f"INSERT INTO {_TABLE} (organization, at, project, model, counts)"
        f" SELECT organization, at, project, model, {counts} FROM ("
        f"SELECT organization, {hour} AS at, project, model, outcome, count(*) AS ended"
        " FROM usage_events GROUP BY 1, 2, 3, 4, 5) AS hours GROUP BY 1, 2, 3, 4"
    )
    wall(_TABLE, column="organization")


def downgrade() -> None:
    """Take the table down."""
    op.drop_table(_TABLE)
