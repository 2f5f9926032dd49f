"""Values of the rating room. Times are microseconds since the Unix epoch."""

from dataclasses import dataclass

from penstock.contract import money


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPrice:
    """What an alias is to cost: unit/PRICE_SCALE for a million tokens, each >= 0."""

    alias_id: str
    currency: str
    valid_from_us: int | None = None
    """The earliest time that there may be, when None."""
    input: int
    cached_input: int | None = None
    """As `input` when None."""
    output: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What an alias costs from a moment on, until the next price of the same currency begins."""

    id: str
    alias: str
    currency: str
    valid_from_us: int
    input: int
    cached_input: int
    output: int
    version: int
    created_at_us: int
    updated_at_us: int

    def told(self) -> money.Price:
        """Return it as nodes are told it."""
        return money.Price(
            self.currency,
            self.valid_from_us // 1_000_000,
            self.input,
            self.cached_input,
            self.output,
        )
