"""What a request costs at most, as workers reckon before and after it. Pure.

Exact amounts are whole atto-units, 1/ATTO of a currency's unit: tokens times a price of 12 decimals
for a million tokens are a whole number of them. Only a worst case is rounded, and upwards.
"""

from collections.abc import Iterable
from math import gcd

from penstock.contract.money import NANO, PRICE_SCALE, Price

_TOKENS = 1_000_000
"""That a price is for."""
ATTO = PRICE_SCALE * _TOKENS
"""Atto-units in a unit: 18 decimals."""
ATTO_IN_NANO = ATTO // NANO
_HIGH = 10**9 * NANO
"""Nano-units in 10**9 units."""


def price_at(prices: Iterable[Price], currency: str, at_s: int) -> Price | None:
    """Return the price that holds at a moment: of those that have begun, the one that did last.

    None when there is none from then on.

    Args:
        prices: Of one alias, in any order.
        currency: Which of them.
        at_s: Seconds since the Unix epoch: of the request's admission.
    """
    latest = _latest(prices, currency, at_s)
    return None if latest is None or latest.is_none else latest


def is_priced_at(prices: Iterable[Price], currency: str, at_s: int) -> bool:
    """Return whether there is a price at a moment, with a known worst case or without."""
    latest = _latest(prices, currency, at_s)
    return latest is not None and not latest.is_unpriced


def _latest(prices: Iterable[Price], currency: str, at_s: int) -> Price | None:
    begun = [price for price in prices if price.currency == currency and price.valid_from_s <= at_s]
    return max(begun, key=lambda price: price.valid_from_s, default=None)


def charge_factors(price: Price) -> tuple[int, int, int, int]:
    """Return what is charged at most for a request and each token of it, in atto-units.

    Returns:
        For the request itself, an input token, how much more for a cached one (mostly less), and
        an output token.
    """
    return price.request * _TOKENS, price.input, price.cached_input - price.input, price.output


def reduced_factors(price: Price) -> tuple[int, int, int, int, int]:
    """Return the same in the largest unit that all of it is whole in, and how many are a nano-unit.

    Prices are round, so these are small numbers, which are quicker to reckon with.
    """
    factors = charge_factors(price)
    unit = gcd(ATTO_IN_NANO, *factors)
    request, per_input, more_cached, per_output = (each // unit for each in factors)
    return request, per_input, more_cached, per_output, ATTO_IN_NANO // unit


def exact_charge(price: Price, input_tokens: int, cached_tokens: int, output_tokens: int) -> int:
    """Return what a request costs at most that used so many tokens, in atto-units.

    Args:
        price: The one that holds.
        input_tokens: Cached ones included.
        cached_tokens: Part of them; more than all of them count as all of them.
        output_tokens: Reasoning ones included.
    """
    request, per_input, more_cached, per_output = charge_factors(price)
    cached_tokens = min(cached_tokens, input_tokens)
    return (
        request
        + input_tokens * per_input
        + cached_tokens * more_cached
        + output_tokens * per_output
    )


def worst_input_charge(price: Price, input_tokens: int) -> int:
    """Return the most that a request costs before its output, in atto-units."""
    return input_tokens * max(price.cached_input, price.input) + price.request * _TOKENS


def worst_charge(price: Price, input_tokens: int, output_tokens: int) -> int:
    """Return the most that a request of as many tokens can cost, in nano-units, rounded up."""
    atto = worst_input_charge(price, input_tokens) + output_tokens * price.output
    return -(-atto // ATTO_IN_NANO)


def split_amount(atto: int) -> tuple[int, int]:
    """Return an amount as the two columns that tables keep it in: nano-units, and the rest >= 0.

    Both kinds of databases add up each by itself, without rounding (docs/adr/0019).

    >>> split_amount(1_500_000_000), split_amount(-1)
    ((1, 500000000), (-1, 999999999))
    """
    return divmod(atto, ATTO_IN_NANO)


def join_amount(nano: int, rest: int) -> int:
    """Return the amount of two columns, or of their sums."""
    return nano * ATTO_IN_NANO + rest


def split_large(atto: int) -> tuple[int, int, int]:
    """Return an amount as three columns, for any size: how often it has 10**9 units, and the rest.

    >>> split_large(-1), split_large(10**28 + 10**9)
    ((0, -1, 999999999), (10, 1, 0))
    """
    nano, rest = split_amount(atto)
    if -_HIGH < nano < _HIGH:
        return 0, nano, rest
    high = nano // _HIGH if nano > 0 else -(-nano // _HIGH)
    return high, nano - high * _HIGH, rest


def join_large(high: int, nano: int, rest: int) -> int:
    """Return the amount of three columns, or of their sums."""
    return join_amount(high * _HIGH + nano, rest)


def to_nano(atto: int) -> int:
    """Return the least number of whole nano-units that an exact amount fits in."""
    return -(-atto // ATTO_IN_NANO)
