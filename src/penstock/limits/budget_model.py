"""Values of budgets, their windows and holds. Times are microseconds since the Unix epoch.

Amounts are nano-units; those that have `atto` in their name are exact (`limits.prices`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Self, TypeAlias, TypedDict

from penstock.contract.limits import Per
from penstock.contract.money import NANO, HoldUse, WhenAway
from penstock.limits.budget_windows import Period
from penstock.limits.model import Owner
from penstock.limits.prices import ATTO_IN_NANO, to_nano

MAX_AMOUNT = 9_000_000_000 * NANO
"""Most of a budget, and most that is held at once of a window, a wallet's too: 64 bits hold it."""

HoldState: TypeAlias = Literal["open", "closed", "expired"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBudget:
    """What an owner is to be able to spend."""

    owner: Owner
    currency: str
    amount: int
    """In each window."""
    period: Period = "month"
    time_zone: str = "UTC"
    """Whose days and months these are."""
    is_hard: bool = False
    """Nothing is let in that could cost more than is left. Else it is counted only."""
    per: Per = ""
    alias: str | None = None
    """Counts requests for this alias only."""
    label: str | None = None
    """`name=value`: counts requests of keys that carry this label only."""
    alert_percentages: list[int] = field(default_factory=list)
    """At which parts of the amount somebody wants to know: `budget_notices`."""
    lowers_cap: bool = True
    """See `contract.money.Budget`."""
    exhausted_status: int = 429
    when_away: WhenAway = "spend_held"
    """Of a hard one. See `contract.money.WhenAway`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget(Owner):
    """What an owner may spend in each window."""

    id: str
    currency: str
    amount: int
    """0 of a wallet: what is in it is its window's balance."""
    period: Period
    time_zone: str
    is_hard: bool
    is_wallet: bool = False
    """It is what an organization paid ahead (`wallets`), and nobody's to change."""
    per: Per
    alias: str | None
    label: str | None = None
    alert_percentages: list[int]
    lowers_cap: bool
    exhausted_status: int
    when_away: WhenAway
    version: int
    created_at_us: int
    updated_at_us: int


class BudgetChanges(TypedDict, total=False):
    """Members of a budget that are to change; the others are what it is."""

    amount: int
    is_hard: bool
    alert_percentages: list[int]
    lowers_cap: bool
    exhausted_status: int
    when_away: WhenAway


@dataclass(frozen=True, slots=True, order=True)
class WindowKey:
    """Which window. Whoever locks several does so in their order."""

    budget_id: str
    subject: str
    starts_at_us: int


@dataclass(frozen=True, slots=True)
class BudgetWindow:
    """What is spent and held of a budget in a window."""

    key: WindowKey
    organization_id: str
    ends_at_us: int | None
    settled_atto: int
    held: int
    balance_atto: int = 0
    """Of a wallet: what the ledger says is in it, grants included. Usage is off it already."""
    told_percentage: int = 0
    """The highest of the budget's alert percentages that somebody was told of."""
    is_exhaustion_told: bool = False

    def release(self, amount: int) -> Self:
        """Return it with less held; never below 0, whatever somebody wrote into its row."""
        return replace(self, held=max(0, self.held - amount))

    def free_of(self, amount: int) -> int:
        """Return what can be held of an amount; less than 0 when it is overrun.

        It is what is neither spent nor held, but that no more is held at once than `MAX_AMOUNT`.
        """
        left = amount - to_nano(self.settled_atto - self.balance_atto)
        return min(left, MAX_AMOUNT) - self.held


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetHold:
    """What one life of a worker may spend of a window."""

    id: str
    organization_id: str
    take_id: str
    place: int
    window: WindowKey
    producer: str
    epoch: int
    amount: int
    used: int
    freed: int
    state: HoldState
    created_at_us: int

    def is_of(self, event: "RatedEvent") -> bool:
        """Return whether it was taken for an event's organization, by the life it comes from."""
        return (self.organization_id, self.producer, self.epoch) == (
            event.organization_id,
            event.life.producer,
            event.life.epoch,
        )

    @property
    def outstanding(self) -> int:
        """What the window holds for it."""
        return self.amount - self.used - self.freed if self.state == "open" else 0


@dataclass(frozen=True, slots=True, order=True)
class Life:
    """One life of one worker."""

    producer: str
    """`<node id>/<worker slot>`."""
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedEvent:
    """A usage event that is stored for the first time, as far as budgets go."""

    event_id: str
    organization_id: str
    project_id: str
    key_id: str
    alias: str
    at_us: int
    """Admission; not later than when it came here."""
    charges_atto: Mapping[str, int]
    """Exactly, by currency; without those that its alias has no price in."""
    life: Life
    """Of the worker that it comes from: others' holds are none of its own."""
    holds: tuple[HoldUse, ...] = ()


@dataclass(frozen=True, slots=True)
class BudgetCharge:
    """What an event cost a budget."""

    event_id: str
    window: WindowKey
    organization_id: str
    amount_atto: int


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """A budget's window, as it is shown."""

    window: BudgetWindow
    amount: int
    is_wallet: bool

    @property
    def left_atto(self) -> int:
        """What is neither spent nor held; less than 0 when it is overrun by what came late."""
        window = self.window
        held_back = (self.amount - window.held) * ATTO_IN_NANO
        return held_back - window.settled_atto + window.balance_atto


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What books and windows say of each other."""

    windows: int
    """That were looked at."""
    differences: list[WindowKey]
    """Where they differ: settled from the charges, or held from the open holds."""
