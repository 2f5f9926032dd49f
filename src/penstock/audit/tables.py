"""Tables of the audit room."""

from typing import Any

from sqlalchemy import Index, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from penstock.storage.base import Base, Json, Microseconds


class AuditEntries(Base):
    """The links of all chains; rows are only ever added."""

    __tablename__ = "audit_entries"
    __table_args__ = (
        Index(None, "chain", "resource_id"),
        Index(None, "chain", "recorded_at"),
    )

    chain: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    recorded_at: Mapped[Microseconds]
    actor_kind: Mapped[str]
    actor_id: Mapped[str]
    action: Mapped[str]
    resource_kind: Mapped[str]
    resource_id: Mapped[str]
    outcome: Mapped[str]
    detail: Mapped[str]
    request_id: Mapped[str | None]
    before: Mapped[dict[str, Any] | None] = mapped_column(Json)
    after: Mapped[dict[str, Any] | None] = mapped_column(Json)
    address: Mapped[str | None]
    hash: Mapped[bytes] = mapped_column(LargeBinary)


class AuditHeads(Base):
    """The end of each chain: the row that writers of a chain wait for."""

    __tablename__ = "audit_heads"

    chain: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int]
    hash: Mapped[bytes] = mapped_column(LargeBinary)


class AuditCheckpoints(Base):
    """Signed statements about chains; rows are only ever added."""

    __tablename__ = "audit_checkpoints"

    chain: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    hash: Mapped[bytes] = mapped_column(LargeBinary)
    signed_at: Mapped[Microseconds]
    signer: Mapped[str]
    signature: Mapped[bytes] = mapped_column(LargeBinary)
