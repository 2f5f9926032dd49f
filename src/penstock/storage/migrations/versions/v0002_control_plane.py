"""Organizations, projects, people, API keys, audit log, change feed; walls between organizations.

On PostgreSQL every table of organizations gets a policy that shows and takes only rows of the
organization that the transaction named (`app.organization_id`), or all of them for the platform
(`app.is_platform`). It is forced: it also holds for the owner of the tables, which is us.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_WALLS = {
    "usage_events": "organization",
    "usage_event_conflicts": "organization",
    "organizations": "id",
    "projects": "organization_id",
    "members": "organization_id",
    "service_accounts": "organization_id",
    "api_keys": "organization_id",
    "key_secrets": "organization_id",
    "idempotency_keys": "organization_id",
    "audit_entries": "chain",
    "audit_heads": "chain",
    "audit_checkpoints": "chain",
}
"""Tables and the column that says whose a row is."""


def upgrade() -> None:
    """Create the tables, then the walls."""
    _create_tenancy()
    _create_keys()
    _create_secrets()
    _create_audit()
    if op.get_bind().dialect.name == "postgresql":
        for table, column in _WALLS.items():
            op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
            op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
            op.execute(
                f"CREATE POLICY {table}_organization ON {table} USING ("
                f"{column} = NULLIF(current_setting('app.organization_id', true), '') "
                "OR current_setting('app.is_platform', true) = 'on')"
            )


def downgrade() -> None:
    """Take the walls and the tables down, with all they hold."""
    if op.get_bind().dialect.name == "postgresql":
        for table in ("usage_events", "usage_event_conflicts"):
            op.execute(f"DROP POLICY {table}_organization ON {table}")
            op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
            op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
    for table in (
        "snapshot_changes",
        "audit_checkpoints",
        "audit_heads",
        "audit_entries",
        "idempotency_keys",
        "key_secrets",
        "api_keys",
        "service_accounts",
        "members",
        "projects",
        "organizations",
    ):
        op.drop_table(table)


def _timestamp() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")


def _json() -> sa.types.TypeEngine[Any]:
    return sa.JSON().with_variant(sa.Text(), "sqlite")


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(), nullable=nullable)


def _moment(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, _timestamp(), nullable=nullable)


def _number(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def _versioned() -> list[sa.Column[int]]:
    return [_number("version"), _moment("created_at"), _moment("updated_at")]


def _foreign(table: str, other: str, *pairs: tuple[str, str]) -> sa.ForeignKeyConstraint:
    columns = [column for column, _ in pairs]
    name = "_".join(["fk", table, *columns, other])
    return sa.ForeignKeyConstraint(columns, [f"{other}.{there}" for _, there in pairs], name=name)


def _unique_where(table: str, name: str, columns: list[str], condition: str) -> None:
    op.create_index(
        f"uq_{table}_{name}",
        table,
        columns,
        unique=True,
        sqlite_where=sa.text(condition),
        postgresql_where=sa.text(condition),
    )


def _index(table: str, *columns: str) -> None:
    op.create_index("_".join(["ix", table, *columns]), table, list(columns))


def _in_organization(table: str) -> sa.ForeignKeyConstraint:
    return _foreign(table, "organizations", ("organization_id", "id"))


def _in_project(table: str) -> sa.ForeignKeyConstraint:
    return _foreign(table, "projects", ("organization_id", "organization_id"), ("project_id", "id"))


def _create_tenancy() -> None:
    op.create_table(
        "organizations",
        _text("id"),
        _text("name"),
        _text("status"),
        *_versioned(),
        sa.PrimaryKeyConstraint("id", name="pk_organizations"),
    )
    _unique_where("organizations", "name", ["name"], "status <> 'archived'")
    _index("organizations", "created_at", "id")
    op.create_table(
        "projects",
        _text("id"),
        _text("organization_id"),
        _text("name"),
        _text("status"),
        *_versioned(),
        sa.PrimaryKeyConstraint("id", name="pk_projects"),
        sa.UniqueConstraint("organization_id", "id", name="uq_projects_organization_id_id"),
        _in_organization("projects"),
    )
    columns = ["organization_id", "name"]
    _unique_where("projects", "organization_id_name", columns, "status <> 'archived'")
    _index("projects", "organization_id", "created_at", "id")
    op.create_table(
        "members",
        _text("id"),
        _text("organization_id"),
        _text("project_id", nullable=True),
        _text("subject"),
        _text("email", nullable=True),
        _text("role"),
        *_versioned(),
        sa.PrimaryKeyConstraint("id", name="pk_members"),
        _in_organization("members"),
        _in_project("members"),
    )
    columns = ["organization_id", "subject"]
    _unique_where("members", "organization_id_subject", columns, "project_id IS NULL")
    columns = ["project_id", "subject"]
    _unique_where("members", "project_id_subject", columns, "project_id IS NOT NULL")
    _index("members", "organization_id", "created_at", "id")
    table = "service_accounts"
    op.create_table(
        table,
        _text("id"),
        _text("organization_id"),
        _text("project_id", nullable=True),
        _text("name"),
        _text("role"),
        sa.Column("is_disabled", sa.Boolean(), nullable=False),
        *_versioned(),
        sa.PrimaryKeyConstraint("id", name=f"pk_{table}"),
        sa.UniqueConstraint("organization_id", "id", name=f"uq_{table}_organization_id_id"),
        sa.UniqueConstraint("organization_id", "name", name=f"uq_{table}_organization_id_name"),
        _in_organization(table),
        _in_project(table),
    )
    _index(table, "organization_id", "created_at", "id")


def _create_keys() -> None:
    op.create_table(
        "api_keys",
        _text("id"),
        _text("organization_id"),
        _text("project_id"),
        _text("service_account_id", nullable=True),
        _text("name"),
        sa.Column("is_live", sa.Boolean(), nullable=False),
        _text("role"),
        sa.Column("scopes", _json(), nullable=False),
        sa.Column("allowed_aliases", _json(), nullable=True),
        sa.Column("allowed_cidrs", _json(), nullable=True),
        sa.Column("labels", _json(), nullable=False),
        _moment("expires_at", nullable=True),
        sa.Column("is_disabled", sa.Boolean(), nullable=False),
        _moment("revoked_at", nullable=True),
        _text("revoked_reason", nullable=True),
        _number("rotation_interval_s", nullable=True),
        _number("rotation_grace_s", nullable=True),
        _text("created_by"),
        _moment("last_used_at", nullable=True),
        *_versioned(),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("organization_id", "id", name="uq_api_keys_organization_id_id"),
        _in_project("api_keys"),
        _foreign(
            "api_keys",
            "service_accounts",
            ("organization_id", "organization_id"),
            ("service_account_id", "id"),
        ),
    )
    columns = ["project_id", "name"]
    _unique_where("api_keys", "project_id_name", columns, "revoked_at IS NULL")
    _index("api_keys", "organization_id", "created_at", "id")
    _index("api_keys", "project_id", "created_at", "id")
    _index("api_keys", "service_account_id")


def _create_secrets() -> None:
    op.create_table(
        "key_secrets",
        _text("id"),
        _text("organization_id"),
        _text("key_id"),
        sa.Column("mac", sa.LargeBinary(), nullable=False),
        _number("pepper_id"),
        _text("state"),
        _text("created_by"),
        _moment("created_at"),
        _moment("retiring_at", nullable=True),
        _moment("not_after", nullable=True),
        _moment("revoked_at", nullable=True),
        _text("revoked_reason", nullable=True),
        _moment("last_used_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_key_secrets"),
        sa.UniqueConstraint("mac", name="uq_key_secrets_mac"),
        _foreign(
            "key_secrets", "api_keys", ("organization_id", "organization_id"), ("key_id", "id")
        ),
    )
    _unique_where("key_secrets", "key_id_active", ["key_id"], "state = 'active'")
    _unique_where("key_secrets", "key_id_retiring", ["key_id"], "state = 'retiring'")
    _index("key_secrets", "key_id", "created_at")
    _index("key_secrets", "pepper_id", "state")
    op.create_table(
        "idempotency_keys",
        _text("id"),
        _text("organization_id"),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        _text("attempt"),
        _moment("lease_until"),
        _moment("expires_at"),
        sa.Column("answer", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_idempotency_keys"),
    )
    _index("idempotency_keys", "expires_at")


def _create_audit() -> None:
    op.create_table(
        "audit_entries",
        _text("chain"),
        _number("number"),
        _moment("recorded_at"),
        _text("actor_kind"),
        _text("actor_id"),
        _text("action"),
        _text("resource_kind"),
        _text("resource_id"),
        _text("outcome"),
        _text("detail"),
        _text("request_id", nullable=True),
        sa.Column("before", _json(), nullable=True),
        sa.Column("after", _json(), nullable=True),
        _text("address", nullable=True),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("chain", "number", name="pk_audit_entries"),
    )
    _index("audit_entries", "chain", "resource_id")
    _index("audit_entries", "chain", "recorded_at")
    op.create_table(
        "audit_heads",
        _text("chain"),
        _number("number"),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("chain", name="pk_audit_heads"),
    )
    op.create_table(
        "audit_checkpoints",
        _text("chain"),
        _number("number"),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        _moment("signed_at"),
        _text("signer"),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("chain", "number", name="pk_audit_checkpoints"),
    )
    op.create_table(
        "snapshot_changes",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        _text("kind"),
        _text("object_id"),
        _moment("recorded_at"),
        sa.PrimaryKeyConstraint("seq", name="pk_snapshot_changes"),
        sqlite_autoincrement=True,
    )
