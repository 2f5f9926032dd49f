"""Values of the rating room. Times are microseconds since the Unix epoch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from penstock.contract.usage import UsageEvent

BookKind = Literal["list", "contract", "cost"]
RatedKind = Literal["charge", "cost"]


def default_book_id(kind: BookKind, currency: str) -> str:
    """Return the id of the book that is used when none is named: of the list, or of costs."""
    return f"pbk_{kind}_{currency}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceBook:
    """Prices in one currency."""

    id: str
    name: str
    kind: BookKind
    """`list`: for everybody; `contract`: for one organization, before the list; `cost`: what an
    upstream's model costs us."""
    currency: str
    organization_id: str | None
    """Whose contract it is."""
    version: int
    created_at_us: int
    updated_at_us: int

    @property
    def is_used(self) -> bool:
        """Whether usage is rated by it when it comes in; others are for simulations and runs."""
        return self.kind == "contract" or self.id == default_book_id(self.kind, self.currency)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBook:
    """A book that is to be."""

    name: str
    kind: BookKind
    currency: str
    organization_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPrice:
    """What a model is to cost: unit/PRICE_SCALE for a million tokens, each >= 0."""

    currency: str
    """That of the book."""
    book_id: str | None = None
    """The list of the currency when None, or its costs when `model` is given."""
    alias_id: str | None = None
    """Which alias, in a book that is no cost book."""
    model: str | None = None
    """The upstream's own name of the model, in a cost book."""
    upstream: str = ""
    """In a cost book: at this upstream only."""
    service_tier: str = ""
    """For requests that the engine says it served in this tier; for all others when "" ."""
    valid_from_us: int | None = None
    """The earliest time that there may be, when None."""
    valid_to_us: int | None = None
    """When it ends; with the next one when None."""
    input: int | None = None
    cached_input: int | None = None
    """As `input` when None."""
    output: int | None = None
    rates: Mapping[str, Any] | None = None
    """As `rates.read_rates` reads them: of all meters that the three above are not enough for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a model costs from a moment on, until its end or the next one of the same begins."""

    id: str
    book_id: str
    organization_id: str | None
    """Whose contract it is in."""
    alias: str
    """Name of the alias; of the upstream's model in a cost book."""
    upstream: str
    service_tier: str
    currency: str
    valid_from_us: int
    valid_to_us: int | None
    input: int
    """At most, for a million tokens, when `rates` has it."""
    cached_input: int
    output: int
    rates: Any
    """JSON as of `rates.read_rates`; None when the three above say it all."""
    version: int
    created_at_us: int
    updated_at_us: int

    def holds_at(self, at_us: int) -> bool:
        """Return whether a moment is behind its begin and before its end."""
        return self.valid_from_us <= at_us and (
            self.valid_to_us is None or at_us < self.valid_to_us
        )


@dataclass(frozen=True, slots=True)
class PutPrice:
    """What it took to have a model cost what somebody wrote."""

    action: Literal["none", "create", "replace"]
    """`replace`: it took the place of one that had not begun."""
    price: Price
    before: Price | None
    """What held at its start before."""


@dataclass(frozen=True, slots=True)
class Rated:
    """What an event was rated at."""

    event: UsageEvent
    kind: RatedKind
    currency: str
    price_id: str
    """"" when the model has no price in that currency: then the amount is 0."""
    amount_atto: int
    """Negative for corrections, and when more usage made all of a month cheaper."""
    reverses: str | None = None
    """The run whose amount this one changes; None for the first one of the event."""


@dataclass(frozen=True, slots=True)
class RatedBatch:
    """What events were rated at."""

    rated: Sequence[Rated]
    """A charge of every event; a cost of those that one is known for."""
    budget_charges: Sequence[Mapping[str, int]]
    """Of each event: what it costs in every currency that its alias has a price in, in atto-units
    and never less than 0; nothing where nobody believes its figures."""
    unpriced: int
    """Events that used something and have no price."""
    absurd: int
    """Events whose figures nobody believes: their amount is 0 until they are corrected."""


@dataclass(frozen=True, slots=True)
class NewCorrection:
    """A correction that is to be."""

    event_id: str
    quantities: Mapping[str, int] | None
    """By meter: what was used; others stay as they are. None voids the event."""
    reference: str
    """A ticket, say. With the event it names the correction, once for all."""
    reason: str
    """For whoever asks later."""


@dataclass(frozen=True, slots=True)
class Correction:
    """What was wrong about an event. The event itself stays as it is."""

    id: str
    event_id: str
    organization: str
    is_void: bool
    """It counts for nothing."""
    deltas: Mapping[str, int]
    """By meter: what was counted too little, or, below 0, too much."""
    reference: str
    """What names it among those of the event: said again, it is the same one."""
    quantities: Mapping[str, int] | None
    """By meter, as it was said: what was used. `deltas` are what that changed. None of a void."""
    reason: str
    actor: str
    created_at_us: int


@dataclass(frozen=True, slots=True)
class Booked:
    """A correction, and what was booked for it."""

    correction: Correction
    amounts: Mapping[RatedKind, tuple[str, int]]
    """Currency and atto-units of the difference; of a kind that the event was rated at."""

    @property
    def id(self) -> str:
        """That of the correction."""
        return self.correction.id

    @property
    def created_at_us(self) -> int:
        """When the correction was made."""
        return self.correction.created_at_us


@dataclass(frozen=True, slots=True)
class Run:
    """A rating of usage that had been rated before."""

    id: str
    reason: str
    book_id: str | None
    """The only book; None for those that usage is rated by anyway."""
    organization: str | None
    """Whose usage; everybody's when None."""
    since_us: int
    until_us: int
    watermark: int
    """All usage is in it that was stored by transactions before this one."""
    place: str
    """The last event that was looked at."""
    event_count: int
    changed_count: int
    actor: str
    created_at_us: int
    finished_at_us: int | None
