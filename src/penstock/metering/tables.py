"""Tables of the metering room."""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import JSON, Index, LargeBinary, String, text
from sqlalchemy.orm import Mapped, mapped_column

from penstock.contract.usage import METERS, Outcome, UsageSource
from penstock.storage.base import Base, Json, Microseconds


class UsageEvents(Base):
    """Usage events as they were delivered first; the database lets rows be added only.

    What totals are made of stands first: SQLite reads a row from its left. PostgreSQL keeps the
    table by day.
    """

    __tablename__ = "usage_events"
    __table_args__ = (
        Index(None, "organization", "started_at"),
        Index(None, "project", "started_at"),
        Index(None, "key_id", "started_at"),
        Index(None, "request_id"),
        Index(None, "started_at", "event_id"),
        {"postgresql_partition_by": "RANGE (day)"},
    )

    day: Mapped[int] = mapped_column(primary_key=True)
    """`metering.rules.day_of` the id: so that it decides nothing that the id does not."""
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
    labels: Mapped[list[list[str]]] = mapped_column(JSON)
    data_class: Mapped[str]
    region: Mapped[str]
    service_tier: Mapped[str]
    upstream_request_id: Mapped[str]
    cache_write_input_tokens: Mapped[int | None]
    audio_input_tokens: Mapped[int | None]
    audio_output_tokens: Mapped[int | None]
    image_count: Mapped[int]
    audio_seconds: Mapped[int] = mapped_column(server_default=text("0"))
    characters: Mapped[int] = mapped_column(server_default=text("0"))
    earlier_attempts: Mapped[list[list[Any]]] = mapped_column(JSON)
    content_hash: Mapped[bytes] = mapped_column(LargeBinary)
    producer: Mapped[str]
    epoch: Mapped[int]
    recorded_at: Mapped[Microseconds]


COUNTED: Final = {
    "input_tokens": UsageEvents.input_tokens,
    "output_tokens": UsageEvents.output_tokens,
    "images": UsageEvents.image_count,
    "audio_seconds": UsageEvents.audio_seconds,
    "characters": UsageEvents.characters,
}
"""What is counted of an event besides that it was asked, by name of the figure."""
FIGURE_OF: Final[Mapping[str, str]] = {
    meter: f"{side}_tokens" if (side := meter.rpartition("_")[2]) in {"input", "output"} else meter
    for meter in METERS
}
"""The figure that each meter is a part of: all input is one, and all output; `requests` is one."""


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


class UsageProducers(Base):
    """How far the journal of each life of a worker is stored: bookkeeping, which decides nothing.

    What counts once is decided by the ids of events alone.
    """

    __tablename__ = "usage_producers"

    producer: Mapped[str] = mapped_column(primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    position_segment: Mapped[int]
    position_offset: Mapped[int]
    """All events of the journal that end before this place are stored."""
    event_count: Mapped[int]
    """Events that this life was the first to deliver."""
    first_day: Mapped[int]
    last_day: Mapped[int]
    """The least and the greatest `day` of these."""
    seen_at: Mapped[Microseconds]
    """When something of it was last delivered."""


class _Figures:
    """What was consumed: one column a meter of `contract.usage.Meter`, none in two of them."""

    requests: Mapped[int]
    input: Mapped[int]
    cached_input: Mapped[int]
    cache_write_input: Mapped[int]
    audio_input: Mapped[int]
    output: Mapped[int]
    reasoning_output: Mapped[int]
    audio_output: Mapped[int]
    images: Mapped[int]
    audio_seconds: Mapped[int] = mapped_column(server_default=text("0"))
    characters: Mapped[int] = mapped_column(server_default=text("0"))


class _Cells(_Figures):
    """Figures of a stretch of time by all that they are asked for by."""

    organization: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[Microseconds] = mapped_column(primary_key=True)
    """Its beginning, in UTC."""
    project: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    data_class: Mapped[str] = mapped_column(primary_key=True)
    region: Mapped[str] = mapped_column(primary_key=True)


class UsageQuarters(_Cells, Base):
    """Figures of each quarter of an hour, of the events that started in it.

    Hours are put together from them, and so are days of time zones: all of them that there are now
    begin at a quarter.
    """

    __tablename__ = "usage_quarters"
    __table_args__ = (Index(None, "at"), Index(None, "key_id", "at"))


class UsageEighths(_Cells, Base):
    """Figures of each three hours: so that a day that begins far from UTC's is read at once."""

    __tablename__ = "usage_eighths"
    __table_args__ = (Index(None, "at"), Index(None, "project", "at"), Index(None, "key_id", "at"))


class UsageEmbeddingHours(_Cells, Base):
    """Figures of each hour, of events for embeddings; all else is answered with text."""

    __tablename__ = "usage_embedding_hours"
    __table_args__ = (Index(None, "at"),)


class UsageDays(_Cells, Base):
    """Figures of each day of UTC, of the events that started in it."""

    __tablename__ = "usage_days"
    __table_args__ = (Index(None, "at"), Index(None, "key_id", "at"))


class UsageLabelDays(_Figures, Base):
    """Figures of each day of UTC by label. An event with several labels is in several rows."""

    __tablename__ = "usage_label_days"

    organization: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[Microseconds] = mapped_column(primary_key=True)
    value: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    project: Mapped[str] = mapped_column(primary_key=True)
    """`""` of what was counted before it was kept."""


class UsageMonths(_Cells, Base):
    """Figures of each month of UTC: those of its days, so that a year is read at once."""

    __tablename__ = "usage_months"
    __table_args__ = (Index(None, "at"),)


class _ProjectCells(_Figures):
    """Figures of all keys of a project together: as small as a chart is."""

    organization: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[Microseconds] = mapped_column(primary_key=True)
    project: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    data_class: Mapped[str] = mapped_column(primary_key=True)
    region: Mapped[str] = mapped_column(primary_key=True)


class UsageProjectDays(_ProjectCells, Base):
    """Figures of each day of UTC by project."""

    __tablename__ = "usage_project_days"
    __table_args__ = (Index(None, "at"),)


class UsageProjectQuarters(_ProjectCells, Base):
    """Figures of each quarter of an hour by project."""

    __tablename__ = "usage_project_quarters"
    __table_args__ = (Index(None, "at"), Index(None, "project", "at"))


class UsageProjectEighths(_ProjectCells, Base):
    """Figures of each eighth of a day by project."""

    __tablename__ = "usage_project_eighths"
    __table_args__ = (Index(None, "at"), Index(None, "project", "at"))


class _ModelCells(_Figures):
    """Figures of all projects together: so that a year of days of a zone is read at once."""

    organization: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[Microseconds] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    data_class: Mapped[str] = mapped_column(primary_key=True)
    region: Mapped[str] = mapped_column(primary_key=True)


class UsageModelQuarters(_ModelCells, Base):
    """Figures of each quarter of an hour by model."""

    __tablename__ = "usage_model_quarters"
    __table_args__ = (Index(None, "at"),)


class UsageModelEighths(_ModelCells, Base):
    """Figures of each eighth of a day by model."""

    __tablename__ = "usage_model_eighths"
    __table_args__ = (Index(None, "at"),)


class UsageLatencyHours(Base):
    """How long the requests took that began in an hour, and how they ended.

    Rows are read and written as a whole: a histogram has other buckets in each.
    """

    __tablename__ = "usage_latency_hours"
    __table_args__ = (Index(None, "at"),)

    organization: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[Microseconds] = mapped_column(primary_key=True)
    project: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    counts: Mapped[Any] = mapped_column(Json)
    """`latency_rules.Counts`: by measure and bucket, and by outcome."""
