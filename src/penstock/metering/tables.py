"""Tables of the metering room."""

from typing import Any

from sqlalchemy import JSON, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from penstock.contract.usage import Outcome, UsageSource
from penstock.storage.base import Base, Microseconds


class UsageEvents(Base):
    """Usage events as they were delivered first; rows are only ever added.

    What totals are made of stands first: SQLite reads a row from its left.
    """

    __tablename__ = "usage_events"
    __table_args__ = (
        Index(None, "organization", "started_at"),
        Index(None, "project", "started_at"),
        Index(None, "key_id", "started_at"),
        Index(None, "request_id"),
        Index(None, "started_at", "event_id"),
    )

    event_id: Mapped[str] = mapped_column(primary_key=True)
    started_at: Mapped[Microseconds]
    input_tokens: Mapped[int]
    output_tokens: Mapped[int]
    organization: Mapped[str]
    project: Mapped[str]
    key_id: Mapped[str]
    model: Mapped[str]
    request_id: Mapped[str]
    served_model: Mapped[str]
    upstream: Mapped[str]
    operation: Mapped[str]
    is_stream: Mapped[bool]
    outcome: Mapped[Outcome] = mapped_column(String)
    status: Mapped[int]
    error_code: Mapped[str | None]
    usage_source: Mapped[UsageSource] = mapped_column(String)
    cached_input_tokens: Mapped[int | None]
    reasoning_output_tokens: Mapped[int | None]
    attempt_count: Mapped[int]
    first_byte_at: Mapped[Microseconds | None]
    finished_at: Mapped[Microseconds]
    flags: Mapped[list[str]] = mapped_column(JSON)
    content_hash: Mapped[bytes] = mapped_column(LargeBinary)
    producer: Mapped[str]
    epoch: Mapped[int]
    recorded_at: Mapped[Microseconds]


class UsageEventConflicts(Base):
    """Quarantine: events whose id was stored with another content. They count nowhere."""

    __tablename__ = "usage_event_conflicts"
    __table_args__ = (Index(None, "organization", "recorded_at"),)

    event_id: Mapped[str] = mapped_column(primary_key=True)
    content_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    organization: Mapped[str]
    body: Mapped[dict[str, Any]] = mapped_column(JSON)
    producer: Mapped[str]
    epoch: Mapped[int]
    recorded_at: Mapped[Microseconds]
