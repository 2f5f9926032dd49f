"""Tables of the notices room."""

from typing import Any

from sqlalchemy import BigInteger, Index, Integer
from sqlalchemy.orm import Mapped, mapped_column

from penstock.storage.base import Base, Json, Microseconds


class Outbox(Base):
    """Notices, in the order in which they were written; that of their commits is another one."""

    __tablename__ = "outbox"
    __table_args__ = (
        Index(None, "transaction_number", "seq"),
        Index(None, "organization_id", "transaction_number", "seq"),
        Index(None, "created_at"),
        {"sqlite_autoincrement": True},
    )

    seq: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    transaction_number: Mapped[int]
    """Of the transaction that wrote it: PostgreSQL fills it in; 0 where writers queue."""
    id: Mapped[str]
    topic: Mapped[str]
    organization_id: Mapped[str]
    key: Mapped[str]
    payload: Mapped[Any] = mapped_column(Json)
    created_at: Mapped[Microseconds]
