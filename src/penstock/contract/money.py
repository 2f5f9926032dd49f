"""Money as planes share it: prices, hard budgets, and holds on what is left of them.

Amounts are whole nano-units: billionths of a currency's unit, so that 64 bits hold nine billion.
They are worst cases, rounded up; what a request really costs is rated exactly, in decimals, where
its usage event is stored.

The control plane's database holds an amount before a worker may spend it. A hold belongs to one
life of one worker (`producer` and `epoch`, as in `contract.usage`): what its usage events cost is
taken off it when they are stored, and the rest is free again when the worker gives it back, or when
all of its journal is known to be stored.
"""

from typing import Literal, TypeAlias

import msgspec

from penstock.contract.limits import Per

NANO = 1_000_000_000
"""Nano-units in a unit."""
PRICE_SCALE = 1_000_000_000_000
"""Prices are whole numbers of a unit's 1/PRICE_SCALE for a million tokens: 12 decimals."""


class Price(msgspec.Struct, frozen=True):
    """What an alias costs at most from a moment on: unit/PRICE_SCALE for a million tokens, >= 0.

    What is rated may be less: steps, tiers and meters that workers do not know have the dearest.
    """

    currency: str
    """ISO 4217."""
    valid_from_s: int
    """Seconds since the Unix epoch; until the next one of the same currency begins."""
    input: int
    cached_input: int
    output: int
    request: int = 0
    """Unit/PRICE_SCALE for a request, whatever it uses."""
    is_none: bool = False
    """There is no price from then on, or none that a request's worst case is known by."""
    is_unpriced: bool = False
    """It is the former: who must pay for everything cannot use the alias."""


WhenAway: TypeAlias = Literal["spend_held", "refuse"]
"""What workers do that cannot reach the budget: spend what they hold, or nothing."""


class Budget(msgspec.Struct, frozen=True):
    """A hard budget of an owner. Soft ones are only counted, where usage is stored."""

    id: str
    currency: str
    alias: str | None = None
    """Counts requests for this alias only."""
    per: Per = ""
    lowers_cap: bool = True
    """Whether a request that asks for more output than is left may be given fewer tokens."""
    exhausted_status: int = 429
    """HTTP status when nothing is left, 429 or 402."""
    when_away: WhenAway = "spend_held"
    label: str | None = None
    """`name=value`: counts requests of keys that carry this label only."""


class HoldAsk(msgspec.Struct, frozen=True):
    """What a worker wants of a budget."""

    budget: str
    """Its id."""
    subject: str
    """Whose it is when each key or member has one of its own; "" otherwise."""
    least: int
    """With less it is of no use, nano-units >= 0."""
    want: int
    """As much as this would be welcome, >= `least`."""


class Hold(msgspec.Struct, frozen=True):
    """An amount of a budget's window that nobody else can spend."""

    id: str
    amount: int
    """Nano-units, >= 0."""
    remaining: int
    """What the window has besides, nano-units >= 0."""
    use_ms: int
    """For how long, from when it was asked for, requests may be admitted on it."""


class HoldShortage(msgspec.Struct, frozen=True):
    """Nothing was held: a budget has less than the least that was asked of it."""

    index: int
    """Which of the asks."""
    remaining: int
    """Nano-units, >= 0."""
    reset_s: int | None
    """Seconds until its next window begins; None when there is none."""


class HoldRequest(msgspec.Struct, frozen=True):
    """Agent to control plane: hold something of each budget, or nothing of any."""

    producer: str
    """`<node id>/<worker slot>`."""
    epoch: int
    take_id: str
    """Names this taking: repeated, it gives the same and holds nothing more."""
    organization: str
    asks: tuple[HoldAsk, ...]
    """1..16, each of another budget or subject."""
    format: int = 1


class HoldAnswer(msgspec.Struct, frozen=True):
    """The answer: a hold for each ask, or why there is none."""

    holds: tuple[Hold, ...] | None
    shortage: HoldShortage | None = None


class FreeRequest(msgspec.Struct, frozen=True):
    """Agent to control plane: parts of holds that no event will ever be charged to."""

    producer: str
    epoch: int
    freed: tuple[tuple[str, int], ...]
    """Ids of holds, and how much of each was freed in all, so that a repetition frees no more."""
    is_over: bool = False
    """That life has ended and all its events are stored: everything of it is free."""
    format: int = 1


class HoldUse(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one request holds of a hold; it is in OPEN and in the usage event."""

    hold: str
    """Its id."""
    amount: int
    """Nano-units, >= 0."""
