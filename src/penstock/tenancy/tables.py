"""Tables of the tenancy room."""

from typing import Any

from sqlalchemy import ForeignKey, ForeignKeyConstraint, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from penstock.storage.base import Base, Json, Versioned

_NO_LABELS = text("'{}'")
_NOT_ARCHIVED = text("status <> 'archived'")


class Organizations(Versioned, Base):
    """Organizations; archived ones stay, because usage and invoices name them."""

    __tablename__ = "organizations"
    __table_args__ = (
        Index(
            "uq_organizations_name",
            "name",
            unique=True,
            sqlite_where=_NOT_ARCHIVED,
            postgresql_where=_NOT_ARCHIVED,
        ),
        Index(None, "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    status: Mapped[str]
    allowed_data_classes: Mapped[list[str] | None] = mapped_column(Json)
    allowed_regions: Mapped[list[str] | None] = mapped_column(Json)


class Projects(Versioned, Base):
    """Projects. What points at one points at its organization, too, so it cannot cross over."""

    __tablename__ = "projects"
    __table_args__ = (
        UniqueConstraint("organization_id", "id"),
        Index(
            "uq_projects_organization_id_name",
            "organization_id",
            "name",
            unique=True,
            sqlite_where=_NOT_ARCHIVED,
            postgresql_where=_NOT_ARCHIVED,
        ),
        Index(None, "organization_id", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"))
    name: Mapped[str]
    status: Mapped[str]
    allowed_data_classes: Mapped[list[str] | None] = mapped_column(Json)
    allowed_regions: Mapped[list[str] | None] = mapped_column(Json)


def _project_key() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(
        ["organization_id", "project_id"], ["projects.organization_id", "projects.id"]
    )


class Members(Versioned, Base):
    """People and their roles. Rows are removed with the membership: they are personal data."""

    __tablename__ = "members"
    __table_args__ = (
        _project_key(),
        Index(
            "uq_members_organization_id_subject",
            "organization_id",
            "subject",
            unique=True,
            sqlite_where=text("project_id IS NULL"),
            postgresql_where=text("project_id IS NULL"),
        ),
        Index(
            "uq_members_project_id_subject",
            "project_id",
            "subject",
            unique=True,
            sqlite_where=text("project_id IS NOT NULL"),
            postgresql_where=text("project_id IS NOT NULL"),
        ),
        Index(None, "organization_id", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"))
    project_id: Mapped[str | None]
    subject: Mapped[str]
    email: Mapped[str | None]
    role: Mapped[str]
    labels: Mapped[dict[str, Any]] = mapped_column(Json, server_default=_NO_LABELS)


class ServiceAccounts(Versioned, Base):
    """Machines and their roles."""

    __tablename__ = "service_accounts"
    __table_args__ = (
        _project_key(),
        UniqueConstraint("organization_id", "id"),
        UniqueConstraint("organization_id", "name"),
        Index(None, "organization_id", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"))
    project_id: Mapped[str | None]
    name: Mapped[str]
    role: Mapped[str]
    is_disabled: Mapped[bool]
    is_disabled_by_operator: Mapped[bool] = mapped_column(server_default=text("false"))
    labels: Mapped[dict[str, Any]] = mapped_column(Json, server_default=_NO_LABELS)
