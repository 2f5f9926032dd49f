"""Tables of the access room."""

from typing import Any

from sqlalchemy import (
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from penstock.storage.base import Base, Json, Microseconds, Versioned

_NOT_REVOKED = text("revoked_at IS NULL")
_ACTIVE = text("state = 'active'")
_RETIRING = text("state = 'retiring'")
_IS_SCHEDULED = text("rotation_interval_s IS NOT NULL")
_HAS_END = text("not_after IS NOT NULL")


class ApiKeys(Versioned, Base):
    """Keys; revoked ones stay, because usage names them."""

    __tablename__ = "api_keys"
    __table_args__ = (
        ForeignKeyConstraint(
            ["organization_id", "project_id"], ["projects.organization_id", "projects.id"]
        ),
        ForeignKeyConstraint(
            ["organization_id", "service_account_id"],
            ["service_accounts.organization_id", "service_accounts.id"],
        ),
        UniqueConstraint("organization_id", "id"),
        Index(
            "uq_api_keys_project_id_name",
            "project_id",
            "name",
            unique=True,
            sqlite_where=_NOT_REVOKED,
            postgresql_where=_NOT_REVOKED,
        ),
        Index(None, "organization_id", "created_at", "id"),
        Index(None, "project_id", "created_at", "id"),
        Index(None, "service_account_id"),
        Index(None, "member_id"),
        Index(
            "ix_api_keys_rotation_interval_s",
            "rotation_interval_s",
            sqlite_where=_IS_SCHEDULED,
            postgresql_where=_IS_SCHEDULED,
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    project_id: Mapped[str]
    service_account_id: Mapped[str | None]
    member_id: Mapped[str | None]
    """Names a row of `members`, which goes when the person does: the key goes with it."""
    name: Mapped[str]
    is_live: Mapped[bool]
    role: Mapped[str]
    scopes: Mapped[list[str]] = mapped_column(Json)
    allowed_aliases: Mapped[list[str] | None] = mapped_column(Json)
    allowed_cidrs: Mapped[list[str] | None] = mapped_column(Json)
    labels: Mapped[dict[str, Any]] = mapped_column(Json)
    expires_at: Mapped[Microseconds | None]
    is_disabled: Mapped[bool]
    is_disabled_by_operator: Mapped[bool] = mapped_column(server_default=text("false"))
    revoked_at: Mapped[Microseconds | None]
    revoked_reason: Mapped[str | None]
    rotation_interval_s: Mapped[int | None]
    rotation_grace_s: Mapped[int | None]
    created_by: Mapped[str]
    last_used_at: Mapped[Microseconds | None]


class KeySecrets(Base):
    """Secrets as keyed hashes: at most one active and one retiring of each key."""

    __tablename__ = "key_secrets"
    __table_args__ = (
        ForeignKeyConstraint(
            ["organization_id", "key_id"], ["api_keys.organization_id", "api_keys.id"]
        ),
        UniqueConstraint("mac"),
        Index(
            "uq_key_secrets_key_id_active",
            "key_id",
            unique=True,
            sqlite_where=_ACTIVE,
            postgresql_where=_ACTIVE,
        ),
        Index(
            "uq_key_secrets_key_id_retiring",
            "key_id",
            unique=True,
            sqlite_where=_RETIRING,
            postgresql_where=_RETIRING,
        ),
        Index(None, "key_id", "created_at"),
        Index(None, "pepper_id", "state"),
        Index(
            "ix_key_secrets_not_after",
            "not_after",
            sqlite_where=_HAS_END,
            postgresql_where=_HAS_END,
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    key_id: Mapped[str]
    mac: Mapped[bytes] = mapped_column(LargeBinary)
    pepper_id: Mapped[int]
    state: Mapped[str]
    created_by: Mapped[str]
    created_at: Mapped[Microseconds]
    retiring_at: Mapped[Microseconds | None]
    not_after: Mapped[Microseconds | None]
    revoked_at: Mapped[Microseconds | None]
    revoked_reason: Mapped[str | None]
    last_used_at: Mapped[Microseconds | None]
    late_use_at: Mapped[Microseconds | None]


class IdempotencyKeys(Base):
    """Requests that were made with an idempotency key, and how they were answered."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index(None, "expires_at"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    """Empty for the platform's own."""
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary)
    attempt: Mapped[str]
    lease_until: Mapped[Microseconds]
    expires_at: Mapped[Microseconds]
    answer: Mapped[bytes | None] = mapped_column(LargeBinary)
    """Sealed: an answer may hold a secret that is shown once. None while in flight."""
