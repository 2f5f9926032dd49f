"""What usage costs by hour, day and month. Amounts are whole atto-units."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CostResult:
    """What usage of one group was rated at in one bucket, in one currency."""

    start_us: int
    group: tuple[str, ...]
    """The values of what is grouped by, and the currency."""
    amount_atto: int
    """What is charged."""
    cost_atto: int | None
    """What the platform pays; None when nothing is known, and for whoever is not to see it."""

    @property
    def currency(self) -> str:
        """ISO 4217."""
        return self.group[-1]

    @property
    def margin_atto(self) -> int | None:
        """What is left of the charge, in this currency."""
        return None if self.cost_atto is None else self.amount_atto - self.cost_atto


@dataclass(frozen=True, slots=True)
class ModelCharge:
    """What a month's usage of a model is charged, in one currency."""

    model: str
    currency: str
    amount_atto: int
