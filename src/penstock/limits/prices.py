"""What a request costs, at worst and exactly. Pure: worker and control plane reckon alike.

Exact amounts are whole atto-units, 1/ATTO of a currency's unit: tokens times a price of 12 decimals
for a million tokens are a whole number of them. Only a worst case is rounded, and upwards.
"""

from collections.abc import Iterable

from penstock.contract.money import NANO, PRICE_SCALE, Price

ATTO = PRICE_SCALE * 1_000_000
"""Atto-units in a unit: 18 decimals."""
ATTO_IN_NANO = ATTO // NANO


def price_at(prices: Iterable[Price], currency: str, at_s: int) -> Price | None:
    """Return the price that holds at a moment: of those that have begun, the one that did last.

    Args:
        prices: Of one alias, in any order.
        currency: Which of them.
        at_s: Seconds since the Unix epoch: of the request's admission.
    """
    begun = [price for price in prices if price.currency == currency and price.valid_from_s <= at_s]
    return max(begun, key=lambda price: price.valid_from_s, default=None)


def exact_charge(price: Price, input_tokens: int, cached_tokens: int, output_tokens: int) -> int:
    """Return what tokens cost, in atto-units.

    Args:
        price: The one that holds.
        input_tokens: Cached ones included.
        cached_tokens: Part of them; more than all of them count as all of them.
        output_tokens: Reasoning ones included.
    """
    cached_tokens = min(cached_tokens, input_tokens)
    return (
        (input_tokens - cached_tokens) * price.input
        + cached_tokens * price.cached_input
        + output_tokens * price.output
    )


def worst_charge(price: Price, input_tokens: int, output_tokens: int) -> int:
    """Return the most that as many tokens can cost, in nano-units, rounded up."""
    dearest = max(price.cached_input, price.input)
    return -(-(input_tokens * dearest + output_tokens * price.output) // ATTO_IN_NANO)


def to_nano(atto: int) -> int:
    """Return the least number of whole nano-units that an exact amount fits in."""
    return -(-atto // ATTO_IN_NANO)
