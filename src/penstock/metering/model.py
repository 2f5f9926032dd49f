"""Values of the metering room. Times are microseconds since the Unix epoch."""

from dataclasses import dataclass
from typing import Literal

from penstock.contract.usage import Outcome, UsageEvent, UsageSource

MAX_EVENTS = 500
"""Most events in one batch."""
MAX_PAGE_ROWS = 1_000
"""Most rows on one page of a listing."""

TotalsBy = Literal["organization", "project", "key_id", "model"]


@dataclass(frozen=True, slots=True)
class HashedEvent:
    """A usage event with the fingerprint of its content."""

    event: UsageEvent
    content_hash: bytes
    """32 bytes; equal for equal content, whatever version wrote it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How events came here."""

    producer: str
    """`<node id>/<worker slot>`."""
    epoch: int
    """Start number of that worker."""
    recorded_at_us: int
    """When the control plane got them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageFilter:
    """Which usage is meant; None leaves a member open."""

    organization: str | None = None
    project: str | None = None
    key_id: str | None = None
    model: str | None = None
    """The alias that callers ask for."""
    request_id: str | None = None
    event_id: str | None = None
    outcome: Outcome | None = None
    since_us: int | None = None
    """Started at this time or later."""
    until_us: int | None = None
    """Started before this time."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the order of a listing: just behind one event."""

    started_at_us: int
    event_id: str


@dataclass(frozen=True, slots=True)
class UsageRow:
    """A stored usage event; members as in `contract.usage.UsageEvent`, in microseconds.

    Names are those that the objects have now; None for what nobody manages here: a node that runs
    from a file books under names.
    """

    event_id: str
    request_id: str
    organization: str
    project: str
    key_id: str
    model: str
    served_model: str
    upstream: str
    operation: str
    is_stream: bool
    outcome: Outcome
    status: int
    error_code: str | None
    usage_source: UsageSource
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int | None
    reasoning_output_tokens: int | None
    attempt_count: int
    started_at_us: int
    first_byte_at_us: int | None
    finished_at_us: int
    flags: list[str]
    organization_name: str | None
    project_name: str | None
    key_name: str | None


@dataclass(frozen=True, slots=True)
class UsagePage:
    """A part of a listing."""

    rows: list[UsageRow]
    next_cursor: str | None
    """Where to go on; None when there was nothing more."""


@dataclass(frozen=True, slots=True)
class UsageTotal:
    """What one group consumed."""

    group: str
    """The organization, project, key or model."""
    name: str | None
    """What it is called; see `UsageRow`. Models have no name besides."""
    requests: int
    input_tokens: int
    output_tokens: int
