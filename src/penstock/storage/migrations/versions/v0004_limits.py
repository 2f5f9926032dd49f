"""Plans, limits of owners, and how much of them is used."""

from alembic import op

from penstock.storage.migrations.columns import (
    foreign,
    foreign_of_same,
    index,
    json,
    key,
    moment,
    number,
    unique,
    versioned,
    wall,
    words,
)

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables, then the walls."""
    op.create_table("plans", words("id"), words("name"), json("rules"), *versioned(), key("plans"))
    unique("uq_plans_name", "plans", "name")
    index("plans", "created_at", "id")
    _create_limits()
    op.create_table(
        "limit_uses",
        words("bucket"),
        words("organization_id"),
        number("used"),
        moment("at"),
        key("limit_uses", "bucket"),
    )
    index("limit_uses", "at")
    wall("limits", "limit_uses")


def downgrade() -> None:
    """Take the tables down, with all they hold."""
    for table in ("limit_uses", "limits", "plans"):
        op.drop_table(table)


def _create_limits() -> None:
    table = "limits"
    op.create_table(
        table,
        words("id"),
        words("organization_id"),
        words("project_id", nullable=True),
        words("owner_kind"),
        words("key_id", nullable=True),
        words("member_id", nullable=True),
        words("service_account_id", nullable=True),
        words("plan_id", nullable=True),
        json("rules"),
        *versioned(),
        key(table),
        foreign(table, "organization_id", "organizations"),
        foreign_of_same(table, "project_id", "projects"),
        foreign_of_same(table, "key_id", "api_keys"),
        foreign_of_same(table, "service_account_id", "service_accounts"),
        foreign(table, "member_id", "members", ondelete="CASCADE"),
        foreign(table, "plan_id", "plans"),
    )
    for column, where in (
        ("organization_id", "owner_kind = 'organization'"),
        ("project_id", "owner_kind = 'project'"),
        ("key_id", "key_id IS NOT NULL"),
        ("member_id", "member_id IS NOT NULL"),
        ("service_account_id", "service_account_id IS NOT NULL"),
    ):
        unique(f"uq_limits_{column}", table, column, where=where)
    index(table, "organization_id", "created_at", "id")
    index(table, "plan_id")
