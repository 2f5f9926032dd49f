"""Catalog and credentials in the database; residency of owners; keys that belong to members."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_WALLS = ("deks", "credentials", "grants")
"""Tables that hold rows of organizations, in `organization_id`; the platform's have none there."""


def upgrade() -> None:
    """Add columns that older versions leave alone, create the tables, then the walls."""
    for table in ("organizations", "projects"):
        op.add_column(table, sa.Column("allowed_data_classes", _json(), nullable=True))
        op.add_column(table, sa.Column("allowed_regions", _json(), nullable=True))
    op.add_column("api_keys", _text("member_id", nullable=True))
    _index("api_keys", "member_id")
    op.add_column("key_secrets", _moment("late_use_at", nullable=True))
    _partial_index("api_keys", "rotation_interval_s")
    _partial_index("key_secrets", "not_after")
    _create_platform()
    _create_credentials()
    _create_routes()
    _create_grants()
    if op.get_bind().dialect.name == "postgresql":
        for table in _WALLS:
            op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
            op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
            op.execute(
                f"CREATE POLICY {table}_organization ON {table} USING ("
                "organization_id = NULLIF(current_setting('app.organization_id', true), '') "
                "OR current_setting('app.is_platform', true) = 'on')"
            )


def downgrade() -> None:
    """Take the tables and columns down, with all they hold."""
    for table in (
        "applied_objects",
        "grants",
        "aliases",
        "route_choices",
        "routes",
        "deployments",
        "key_rotations",
        "credentials",
        "deks",
        "upstreams",
    ):
        op.drop_table(table)
    op.drop_index("ix_key_secrets_not_after", "key_secrets")
    op.drop_index("ix_api_keys_rotation_interval_s", "api_keys")
    op.drop_column("key_secrets", "late_use_at")
    op.drop_index("ix_api_keys_member_id", "api_keys")
    op.drop_column("api_keys", "member_id")
    for table in ("organizations", "projects"):
        op.drop_column(table, "allowed_data_classes")
        op.drop_column(table, "allowed_regions")


def _json() -> sa.types.TypeEngine[Any]:
    return sa.JSON().with_variant(sa.Text(), "sqlite")


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(), nullable=nullable)


def _moment(name: str, *, nullable: bool = False) -> sa.Column[int]:
    timestamp = sa.BigInteger().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
    return sa.Column(name, timestamp, nullable=nullable)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False)


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean(), nullable=False)


def _content(name: str) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary(), nullable=False)


def _versioned() -> list[sa.Column[int]]:
    return [_number("version"), _moment("created_at"), _moment("updated_at")]


def _foreign(table: str, column: str, other: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{other}.id"], name=f"fk_{table}_{column}_{other}")


def _key(table: str, *columns: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(*(columns or ("id",)), name=f"pk_{table}")


def _index(table: str, *columns: str) -> None:
    op.create_index("_".join(["ix", table, *columns]), table, list(columns))


def _partial_index(table: str, column: str) -> None:
    condition = sa.text(f"{column} IS NOT NULL")
    op.create_index(
        f"ix_{table}_{column}",
        table,
        [column],
        sqlite_where=condition,
        postgresql_where=condition,
    )


def _unique(name: str, table: str, *columns: str, where: str | None = None) -> None:
    condition = None if where is None else sa.text(where)
    op.create_index(
        name,
        table,
        list(columns),
        unique=True,
        sqlite_where=condition,
        postgresql_where=condition,
    )


def _create_platform() -> None:
    op.create_table(
        "upstreams",
        _text("id"),
        _text("name"),
        _text("provider"),
        sa.Column("endpoints", _json(), nullable=False),
        _text("region", nullable=True),
        _text("data_class", nullable=True),
        _text("credential_id", nullable=True),
        _text("credential_reference", nullable=True),
        sa.Column("forward_headers", _json(), nullable=False),
        sa.Column("timeouts", _json(), nullable=False),
        _number("max_connections"),
        _text("tls_ca_file", nullable=True),
        _flag("is_disabled"),
        *_versioned(),
        _key("upstreams"),
    )
    _unique("uq_upstreams_name", "upstreams", "name")
    _index("upstreams", "created_at", "id")
    op.create_table(
        "applied_objects",
        _text("set_name"),
        _text("kind"),
        _text("object_id"),
        _key("applied_objects", "set_name", "kind", "object_id"),
    )


def _create_credentials() -> None:
    op.create_table(
        "deks",
        _text("id"),
        _text("organization_id", nullable=True),
        _text("kek_uri"),
        _number("kek_version"),
        _content("wrapped"),
        _flag("is_active"),
        _moment("created_at"),
        _key("deks"),
        _foreign("deks", "organization_id", "organizations"),
    )
    where = "organization_id IS NULL AND is_active"
    _unique("uq_deks_active_platform", "deks", "is_active", where=where)
    _unique("uq_deks_active_organization", "deks", "organization_id", where="is_active")
    _index("deks", "kek_uri", "kek_version")
    table = "credentials"
    op.create_table(
        table,
        _text("id"),
        _text("organization_id", nullable=True),
        _text("name"),
        _text("provider"),
        _text("upstream_id", nullable=True),
        _text("state"),
        _text("dek_id"),
        _number("aad_version"),
        _content("nonce"),
        _content("ciphertext"),
        _text("created_by"),
        *_versioned(),
        _key(table),
        _foreign(table, "organization_id", "organizations"),
        _foreign(table, "upstream_id", "upstreams"),
        _foreign(table, "dek_id", "deks"),
    )
    _unique("uq_credentials_name", table, "name", where="organization_id IS NULL")
    columns = ("organization_id", "name")
    where = "organization_id IS NOT NULL"
    _unique("uq_credentials_organization_id_name", table, *columns, where=where)
    columns = ("organization_id", "upstream_id")
    where = "upstream_id IS NOT NULL"
    _unique("uq_credentials_organization_id_upstream_id", table, *columns, where=where)
    _index(table, "dek_id")
    _index(table, "created_at", "id")
    op.create_table(
        "key_rotations",
        _text("id"),
        _text("cursor", nullable=True),
        _number("passes"),
        _number("renewed"),
        _number("unreadable"),
        _flag("is_finished"),
        _moment("updated_at"),
        _key("key_rotations"),
    )


def _create_routes() -> None:
    op.create_table(
        "deployments",
        _text("id"),
        _text("name"),
        _text("upstream_id"),
        _text("model"),
        _text("credential_id", nullable=True),
        _flag("continuous_usage"),
        _number("max_output_tokens"),
        _flag("is_disabled"),
        *_versioned(),
        _key("deployments"),
        _foreign("deployments", "upstream_id", "upstreams"),
        _foreign("deployments", "credential_id", "credentials"),
    )
    _unique("uq_deployments_name", "deployments", "name")
    _index("deployments", "created_at", "id")
    _index("deployments", "upstream_id")
    op.create_table(
        "routes",
        _text("id"),
        _text("name"),
        _text("fallback_id", nullable=True),
        *_versioned(),
        _key("routes"),
        _foreign("routes", "fallback_id", "routes"),
    )
    _unique("uq_routes_name", "routes", "name")
    _index("routes", "created_at", "id")
    _index("routes", "fallback_id")
    op.create_table(
        "route_choices",
        _text("route_id"),
        _text("deployment_id"),
        _number("position"),
        _number("weight"),
        _key("route_choices", "route_id", "deployment_id"),
        _foreign("route_choices", "route_id", "routes"),
        _foreign("route_choices", "deployment_id", "deployments"),
    )
    _index("route_choices", "deployment_id")


def _create_grants() -> None:
    op.create_table(
        "aliases",
        _text("id"),
        _text("name"),
        _text("route_id"),
        _flag("is_open"),
        *_versioned(),
        _key("aliases"),
        _foreign("aliases", "route_id", "routes"),
    )
    _unique("uq_aliases_name", "aliases", "name")
    _index("aliases", "created_at", "id")
    _index("aliases", "route_id")
    op.create_table(
        "grants",
        _text("id"),
        _text("alias_id"),
        _text("organization_id"),
        _text("project_id", nullable=True),
        *_versioned(),
        _key("grants"),
        _foreign("grants", "alias_id", "aliases"),
        _foreign("grants", "organization_id", "organizations"),
        sa.ForeignKeyConstraint(
            ["organization_id", "project_id"],
            ["projects.organization_id", "projects.id"],
            name="fk_grants_organization_id_project_id_projects",
        ),
    )
    columns = ("alias_id", "organization_id")
    _unique("uq_grants_alias_id_organization_id", "grants", *columns, where="project_id IS NULL")
    columns = ("alias_id", "project_id")
    _unique("uq_grants_alias_id_project_id", "grants", *columns, where="project_id IS NOT NULL")
    _index("grants", "organization_id", "created_at", "id")
