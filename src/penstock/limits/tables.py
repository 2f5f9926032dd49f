"""Tables of the limits room: rules of owners and plans, and how much of them is used.

Those of budgets are in `budget_tables`.
"""

from typing import Any

from sqlalchemy import ForeignKey, ForeignKeyConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from penstock.storage.base import Base, Json, Microseconds, Versioned


class Plans(Versioned, Base):
    """Named sets of rules; the platform's."""

    __tablename__ = "plans"
    __table_args__ = (
        Index("uq_plans_name", "name", unique=True),
        Index(None, "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    rules: Mapped[list[dict[str, Any]]] = mapped_column(Json)
    """Members of `contract.limits.Limit` but for ids."""


def _of_same(column: str, other: str) -> ForeignKeyConstraint:
    """Return the constraint that a column names a row of the same organization."""
    return ForeignKeyConstraint(
        ["organization_id", column],
        [f"{other}.organization_id", f"{other}.id"],
        name=f"fk_limits_organization_id_{column}_{other}",
    )


def _one_for(column: str, where: str) -> Index:
    condition = text(where)
    name = f"uq_limits_{column}"
    return Index(name, column, unique=True, sqlite_where=condition, postgresql_where=condition)


class Limits(Versioned, Base):
    """What limits an owner: one row for an organization, project, key, member or account."""

    __tablename__ = "limits"
    __table_args__ = (
        _of_same("project_id", "projects"),
        _of_same("key_id", "api_keys"),
        _of_same("service_account_id", "service_accounts"),
        _one_for("organization_id", "owner_kind = 'organization'"),
        _one_for("project_id", "owner_kind = 'project'"),
        _one_for("key_id", "key_id IS NOT NULL"),
        _one_for("member_id", "member_id IS NOT NULL"),
        _one_for("service_account_id", "service_account_id IS NOT NULL"),
        Index(None, "organization_id", "created_at", "id"),
        Index(None, "plan_id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"))
    project_id: Mapped[str | None]
    """The owner, or where it is."""
    owner_kind: Mapped[str]
    """As in `contract.snapshot_store.OwnerKind`; service accounts count as members."""
    key_id: Mapped[str | None]
    member_id: Mapped[str | None] = mapped_column(ForeignKey("members.id", ondelete="CASCADE"))
    service_account_id: Mapped[str | None]
    plan_id: Mapped[str | None] = mapped_column(ForeignKey("plans.id"))
    rules: Mapped[list[dict[str, Any]]] = mapped_column(Json)
    """As in `Plans`; each replaces the plan's of the same slot."""


class LimitUses(Base):
    """How much of a bucket is used, as nodes reported it last."""

    __tablename__ = "limit_uses"
    __table_args__ = (Index(None, "at"),)

    bucket: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    """No foreign key: nodes may serve some that only their files know."""
    used: Mapped[int]
    at: Mapped[Microseconds]
