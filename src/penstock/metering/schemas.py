"""What the usage API takes and answers."""

from dataclasses import asdict
from typing import Annotated, Any, Self

import msgspec
from pydantic import AwareDatetime, BaseModel, Field

from penstock.audit.schemas import RequestBody, Text, example
from penstock.contract.usage import Outcome, UsageReceipt, UsageSource
from penstock.kit.moments import format_time, microseconds
from penstock.metering.model import (
    MAX_PAGE_ROWS,
    TotalsBy,
    UsageFilter,
    UsagePage,
    UsageRow,
    UsageTotal,
)

_EVENT_ID = "01977f5e-3c00-7a4b-9d21-5b8e0c7f1a00"
_TIME_HINT = "ISO 8601 with a time zone, e.g. `2026-06-15T12:00:00Z`; write `+` as `%2B`."
_FILE_HINT = "A node that runs from a file books under names: then the name."
_NAME_HINT = "What it is called now; null for what was booked under a name."


Count = Annotated[int, Field(ge=0)]
_Name = Annotated[str | None, Field(description=_NAME_HINT)]


class FilterQuery(RequestBody):
    """Which usage is meant; an unknown name is refused, so that no typing error widens it."""

    organization: Annotated[Text | None, Field(description=f"Its id. {_FILE_HINT}")] = None
    project: Annotated[Text | None, Field(description=f"Its id. {_FILE_HINT}")] = None
    key_id: Text | None = None
    model: Annotated[Text | None, Field(description="The alias that callers asked for.")] = None
    request_id: Text | None = None
    event_id: Text | None = None
    outcome: Outcome | None = None
    since: Annotated[
        AwareDatetime | None, Field(description=f"Started at this time or later. {_TIME_HINT}")
    ] = None
    until: Annotated[
        AwareDatetime | None, Field(description=f"Started before this time. {_TIME_HINT}")
    ] = None

    def to_filter(self, only_project: str | None) -> UsageFilter:
        """Return the members that `UsageFilter` has.

        Args:
            only_project: The one that the caller may see, if it is one only.
        """
        return UsageFilter(
            organization=self.organization,
            project=self.project or only_project,
            key_id=self.key_id,
            model=self.model,
            request_id=self.request_id,
            event_id=self.event_id,
            outcome=self.outcome,
            since_us=microseconds(self.since),
            until_us=microseconds(self.until),
        )


class UsageQuery(FilterQuery):
    """Which page of usage is meant."""

    limit: Annotated[int, Field(ge=1, le=MAX_PAGE_ROWS, description="Most rows.")] = 100
    cursor: Annotated[
        Text | None, Field(description="`next_cursor` of the page before; the first page without.")
    ] = None


class TotalsQuery(FilterQuery):
    """Which totals are meant."""

    by: Annotated[TotalsBy, Field(description="What to group by.")]


EVENT_EXAMPLE: dict[str, Any] = {
    "event_id": _EVENT_ID,
    "request_id": _EVENT_ID,
    "organization": "org_4mJ0wq8ZtK1c",
    "organization_name": "acme",
    "project": "prj_9d21E8c0f1aX",
    "project_name": "search",
    "key_id": "4mJ0wq8ZtK1c",
    "key_name": "web shop",
    "model": "emulated-70b",
    "served_model": "emulated-70b",
    "upstream": "emulator",
    "operation": "chat",
    "is_stream": True,
    "outcome": "ok",
    "status": 200,
    "error_code": None,
    "usage_source": "engine",
    "input_tokens": 812,
    "output_tokens": 274,
    "cached_input_tokens": 640,
    "reasoning_output_tokens": None,
    "attempt_count": 1,
    "started_at": "2026-06-15T12:00:00.000000Z",
    "first_byte_at": "2026-06-15T12:00:00.031250Z",
    "finished_at": "2026-06-15T12:00:02.500000Z",
    "flags": [],
    "labels": {"team": "search"},
    "data_class": "internal",
    "region": "eu",
    "service_tier": "default",
    "upstream_request_id": "chatcmpl-8c1f",
    "cache_write_input_tokens": None,
    "audio_input_tokens": None,
    "audio_output_tokens": None,
    "image_count": 0,
    "earlier_attempts": [],
    "audio_seconds": 0,
    "characters": 0,
}


class EarlierAttempt(BaseModel):
    """A try of an endpoint that was given up for another one; it is never paid for."""

    upstream: str
    reason: Annotated[str, Field(description="Why it was given up.")]
    started_at: str
    finished_at: str


class UsageRecord(BaseModel):
    """What one request consumed."""

    model_config = example(**EVENT_EXAMPLE)

    event_id: str
    request_id: str
    organization: str
    organization_name: _Name
    project: str
    project_name: _Name
    key_id: str
    key_name: _Name
    model: Annotated[str, Field(description="The alias that the caller asked for.")]
    served_model: Annotated[str, Field(description="The upstream's own name of the model.")]
    upstream: str
    operation: Annotated[str, Field(description="`chat`, `embeddings`, `speech` and others.")]
    is_stream: bool
    outcome: Outcome
    status: Annotated[int, Field(description="HTTP status answered; 0 when none was.")]
    error_code: str | None
    usage_source: UsageSource
    input_tokens: Count
    output_tokens: Count
    cached_input_tokens: Count | None
    reasoning_output_tokens: Count | None
    attempt_count: Count
    started_at: Annotated[str, Field(description="ISO 8601 in UTC, to the microsecond.")]
    first_byte_at: str | None
    finished_at: str
    flags: Annotated[list[str], Field(description="What was odd about the engine's figures.")]
    labels: Annotated[dict[str, str], Field(description="What the caller gave to find costs by.")]
    data_class: Annotated[str, Field(description="Of the deployment that served it; or empty.")]
    region: Annotated[str, Field(description="Where it was processed; or empty.")]
    service_tier: Annotated[str, Field(description="As the engine named it; or empty.")]
    upstream_request_id: Annotated[str, Field(description="The engine's own; or empty.")]
    cache_write_input_tokens: Count | None
    audio_input_tokens: Count | None
    audio_output_tokens: Count | None
    image_count: Count
    earlier_attempts: list[EarlierAttempt]
    audio_seconds: Annotated[Count, Field(description="Of sound that was heard, rounded up.")]
    characters: Annotated[Count, Field(description="Of text that was spoken.")]

    @classmethod
    def from_row(cls, row: UsageRow) -> Self:
        """Return the row as it is answered."""
        members = asdict(row)
        for name in ("started_at", "first_byte_at", "finished_at"):
            time_us = members.pop(f"{name}_us")
            members[name] = None if time_us is None else format_time(time_us)
        members["labels"] = dict(row.labels)
        members["earlier_attempts"] = [
            EarlierAttempt(
                upstream=upstream,
                reason=reason,
                started_at=format_time(started_at_ns // 1_000),
                finished_at=format_time(finished_at_ns // 1_000),
            )
            for upstream, reason, started_at_ns, finished_at_ns in row.earlier_attempts
        ]
        return cls(**members)


class UsagePageBody(BaseModel):
    """A page of usage, oldest first."""

    model_config = example(data=[EVENT_EXAMPLE], next_cursor=None)

    data: list[UsageRecord]
    next_cursor: Annotated[
        str | None, Field(description="Where to go on; null when there is nothing more.")
    ]

    @classmethod
    def from_page(cls, page: UsagePage) -> Self:
        """Return the page as it is answered."""
        return cls(
            data=[UsageRecord.from_row(row) for row in page.rows], next_cursor=page.next_cursor
        )


class Figures(BaseModel):
    """What a group consumed."""

    requests: Count
    input_tokens: Count
    output_tokens: Count


_FIGURES = {"requests": 31_250, "input_tokens": 25_375_000, "output_tokens": 8_562_500}


class OrganizationTotal(Figures):
    """What an organization consumed."""

    model_config = example(organization="org_4mJ0wq8ZtK1c", organization_name="acme", **_FIGURES)

    organization: str
    organization_name: _Name


class ProjectTotal(Figures):
    """What a project consumed."""

    model_config = example(project="prj_9d21E8c0f1aX", project_name="search", **_FIGURES)

    project: str
    project_name: _Name


class KeyTotal(Figures):
    """What was consumed with a key."""

    model_config = example(key_id="4mJ0wq8ZtK1c", key_name="web shop", **_FIGURES)

    key_id: str
    key_name: _Name


class ModelTotal(Figures):
    """What was consumed of a model."""

    model_config = example(model="emulated-70b", **_FIGURES)

    model: Annotated[str, Field(description="The alias that callers asked for.")]


Total = OrganizationTotal | ProjectTotal | KeyTotal | ModelTotal


class TotalsBody(BaseModel):
    """Totals in order of the group."""

    model_config = example(data=[{"model": "emulated-70b", **_FIGURES}])

    data: list[Total]

    @classmethod
    def from_totals(cls, totals: list[UsageTotal], by: TotalsBy) -> Self:
        """Return the totals as they are answered."""
        return cls(data=[_total(total, by) for total in totals])


def _total(total: UsageTotal, by: TotalsBy) -> Total:
    figures: dict[str, Any] = {
        "requests": total.requests,
        "input_tokens": total.input_tokens,
        "output_tokens": total.output_tokens,
    }
    match by:
        case "organization":
            return OrganizationTotal(
                organization=total.group, organization_name=total.name, **figures
            )
        case "project":
            return ProjectTotal(project=total.group, project_name=total.name, **figures)
        case "key_id":
            return KeyTotal(key_id=total.group, key_name=total.name, **figures)
        case "model":
            return ModelTotal(model=total.group, **figures)


class ReceiptBody(BaseModel):
    """Every event of the batch is stored now, whoever stored it; each counts in one figure."""

    model_config = example(stored=498, duplicates=2, conflicts=0, segment=3, offset=40_960)

    stored: Annotated[int, Field(ge=0, description="Events that were new.")]
    duplicates: Annotated[int, Field(ge=0, description="Events that were stored before.")]
    conflicts: Annotated[
        int, Field(ge=0, description="Stored ids with another content: in quarantine.")
    ]
    segment: Annotated[
        int, Field(ge=0, description="How far the journal was stored before this batch: segment,")
    ]
    offset: Annotated[int, Field(ge=0, description="and place in it. 0 and 0: nothing was.")]

    @classmethod
    def from_receipt(cls, receipt: UsageReceipt) -> Self:
        """Return the receipt as it is answered."""
        return cls(**msgspec.structs.asdict(receipt))
