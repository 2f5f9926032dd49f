"""Values of the metering room. Times are microseconds since the Unix epoch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from penstock.contract.usage import Outcome, UsageEvent, UsageSource

MAX_EVENTS = 500
"""Most events in one batch."""
MAX_JOINED_EVENTS = 2_000
"""Most events that are stored in one transaction, of batches that wait for the one before."""
MAX_PAGE_ROWS = 1_000
"""Most rows on one page of a listing."""

MAX_COMPARED = 5_000
"""Most events that are looked up at once."""

TotalsBy = Literal["organization", "project", "key_id", "model"]


class HashedEvent(NamedTuple):
    """A usage event with the fingerprint of its content."""

    event: UsageEvent
    content_hash: bytes
    """32 bytes; equal for equal content, whatever version wrote it."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of looking up events by id and content."""

    missing: Sequence[str]
    """Ids of those that are not stored."""
    different: Sequence[str]
    """Ids of those that are stored with another content."""


class Place(NamedTuple):
    """A place in the journal of a worker: places sort in the order of writing."""

    segment: int = 0
    offset: int = 0


BEGINNING = Place()


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A batch that came here, checked."""

    producer: str
    """`<node id>/<worker slot>`."""
    epoch: int
    """Start number of that worker."""
    events: Sequence[HashedEvent]
    recorded_at_us: int
    """When the control plane got them."""
    begin: Place = BEGINNING
    """Where they begin in that worker's journal."""
    end: Place = BEGINNING
    """Where they end: every event between is in this delivery, or stored already. The beginning of
    the journal says nothing."""

    @property
    def life(self) -> tuple[str, int]:
        """Of the worker that they come from: its producer and epoch."""
        return self.producer, self.epoch


class Arrival(NamedTuple):
    """An event, and the delivery that brought it."""

    hashed: HashedEvent
    delivery: Delivery

    @property
    def event(self) -> UsageEvent:
        """The event itself."""
        return self.hashed.event

    @property
    def used_at_us(self) -> int:
        """When it was let in; a node whose clock is ahead does not count in what has not begun."""
        return min(self.hashed.event.started_at_ns // 1_000, self.delivery.recorded_at_us)


@dataclass(frozen=True, slots=True)
class Producer:
    """How far the journal of one life of a worker is stored."""

    producer: str
    epoch: int
    place: Place
    event_count: int
    first_day: int
    last_day: int
    seen_at_us: int

    @property
    def life(self) -> tuple[str, int]:
        """Its producer and epoch."""
        return self.producer, self.epoch


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
    labels: list[list[str]]
    data_class: str
    region: str
    service_tier: str
    upstream_request_id: str
    cache_write_input_tokens: int | None
    audio_input_tokens: int | None
    audio_output_tokens: int | None
    image_count: int
    earlier_attempts: list[list[Any]]
    """Members of `contract.usage.Attempt`, times in nanoseconds."""
    audio_seconds: int
    characters: int
    organization_name: str | None
    project_name: str | None
    key_name: str | None


class Cell(NamedTuple):
    """What figures are kept by, in the order of the tables' keys."""

    organization: str
    at_us: int
    """When the quarter of an hour, the hour, the eighth of a day, the day or the month begins."""
    project: str
    key_id: str
    model: str
    data_class: str
    region: str


class ProjectCell(NamedTuple):
    """What figures of whole projects are kept by, in the order of the tables' keys."""

    organization: str
    at_us: int
    """When the quarter of an hour, the eighth of a day or the day begins."""
    project: str
    model: str
    data_class: str
    region: str


class ModelCell(NamedTuple):
    """What figures of all projects are kept by, in the order of the table's key."""

    organization: str
    at_us: int
    """When the quarter of an hour or the eighth of a day begins."""
    model: str
    data_class: str
    region: str


class LatencyCell(NamedTuple):
    """What histograms of times are kept by, in the order of the table's key."""

    organization: str
    at_us: int
    """When the hour begins."""
    project: str
    model: str


class LabelCell(NamedTuple):
    """What figures of labels are kept by, in the order of the table's key."""

    organization: str
    name: str
    at_us: int
    """When the day begins."""
    value: str
    model: str
    project: str


@dataclass(frozen=True, slots=True)
class Figures:
    """What some events consumed: for each cell one figure a meter, in the order of `METERS`."""

    quarters: Mapping[Cell, Sequence[int]]
    days: Mapping[Cell, Sequence[int]]
    months: Mapping[Cell, Sequence[int]]
    project_days: Mapping[ProjectCell, Sequence[int]]
    label_days: Mapping[LabelCell, Sequence[int]]
    embedding_hours: Mapping[Cell, Sequence[int]]
    project_quarters: Mapping[ProjectCell, Sequence[int]]
    model_quarters: Mapping[ModelCell, Sequence[int]]
    eighths: Mapping[Cell, Sequence[int]]
    project_eighths: Mapping[ProjectCell, Sequence[int]]
    model_eighths: Mapping[ModelCell, Sequence[int]]


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
