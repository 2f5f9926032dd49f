"""Whether an alias has a price for an organization that must pay for all it uses."""

from collections.abc import Callable
from typing import Protocol

from penstock.contract.money import Price
from penstock.limits.prices import is_priced_at

_NEVER = float("inf")


class Records(Protocol):
    """Where the snapshot's records of prices are."""

    def find_billed_currency(self, organization: str) -> str | None:
        """Return what all that an organization uses must have a price in; None for nothing."""

    def find_prices(self, alias: str, organization: str) -> tuple[Price, ...]:
        """Return the prices of an alias for an organization, by currency and time."""


class Pricing:
    """Says what has a price, until one of those it looked at begins or ends.

    Args:
        records: Where they are.
        now_s: Returns seconds since the Unix epoch.
    """

    def __init__(self, records: Records, now_s: Callable[[], float]) -> None:
        """See the class."""
        self._records = records
        self._now_s = now_s
        self._until_s = _NEVER

    @property
    def is_over(self) -> bool:
        """Whether an answer that was given may be another one by now."""
        return self._now_s() >= self._until_s

    def allows(self, alias: str, organization: str) -> bool:
        """Return whether an organization may use an alias, as far as prices are concerned.

        Raises:
            msgspec.DecodeError: They cannot be read.
        """
        currency = self._records.find_billed_currency(organization)
        if currency is None:
            return True
        prices = self._records.find_prices(alias, organization)
        now_s = self._now_s()
        coming = [price.valid_from_s for price in prices if price.valid_from_s > now_s]
        self._until_s = min([self._until_s, *coming])
        return is_priced_at(prices, currency, int(now_s))
