"""What became of one request in the books, as it is told."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from penstock.metering.model import UsageRow
from penstock.rating.model import Correction, Price, PriceBook

MAX_STORIES = 20
"""Requests that are told of at once: callers may use an id again."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Who measured the usage, and when the control plane stored it."""

    producer: str
    epoch: int
    recorded_at_us: int


@dataclass(frozen=True, slots=True)
class Rating:
    """What it was rated at, or what changed that later."""

    event_id: str
    kind: str
    """`charge` or `cost`."""
    run_id: str
    currency: str
    price_id: str
    transfer_id: str | None
    recorded_at_us: int
    amount_atto: int


@dataclass(frozen=True, slots=True)
class BookedLine:
    """An entry of a transfer."""

    account: str
    qualifier: str
    amount_atto: int


@dataclass(frozen=True, slots=True)
class Booking:
    """The transfer in which a charge was booked, maybe with those of other requests."""

    id: str
    kind: str
    currency: str
    booked_at_us: int
    recorded_at_us: int
    lines: list[BookedLine] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """What it cost a budget."""

    event_id: str
    budget_id: str
    subject: str
    currency: str
    window_starts_at_us: int
    amount_atto: int


@dataclass(frozen=True, slots=True)
class Billed:
    """The invoice that a transfer is on."""

    transfer_id: str
    invoice_id: str
    label: str | None
    issued_at_us: int | None


@dataclass(frozen=True, slots=True)
class Story:
    """One request. What the caller may not see is not in it."""

    usage: UsageRow
    arrival: Arrival
    ratings: Sequence[Rating]
    prices: Sequence[tuple[Price, PriceBook]]
    corrections: Sequence[Correction]
    budgets: Sequence[BudgetUse]
    bookings: Sequence[Booking]
    bills: Sequence[Billed]
