"""Decisions about prices: pure, no clock, no I/O."""

import dataclasses
from collections.abc import Iterable

import msgspec

from penstock.catalog.rules import check_name
from penstock.contract.money import PRICE_SCALE
from penstock.limits.budget_rules import find_currency_fault
from penstock.rating.model import Price

MAX_PRICE = 1_000_000 * PRICE_SCALE
"""A million units for a million tokens."""
NOTICE_S = 600
"""How long before it begins a higher price must be known: twice as long as a worker lets requests
in on what it holds without having asked us (`budget_rules.HOLD_S`). So every worker has heard of
it, and holds enough for what a request will cost."""
MAX_AHEAD_US = 10 * 366 * 86_400 * 1_000_000
_SECOND_US = 1_000_000


def find_price_fault(price: Price) -> str | None:
    """Return the first thing that is wrong with a price, as a sentence; None for nothing."""
    try:
        msgspec.convert(dataclasses.asdict(price), Price)
        check_name(price.alias)
    except ValueError as error:
        return f"`alias` or a type: {error}."
    fault = find_currency_fault(price.currency)
    if fault is not None:
        return f"`currency`: {fault}."
    for member in ("input", "cached_input", "output"):
        if not 0 <= getattr(price, member) <= MAX_PRICE:
            limit = f"{MAX_PRICE // PRICE_SCALE:,}"
            return f"`{member}`: is out of range; use 0 to {limit} for a million tokens."
    if price.valid_from_us < 0 or price.valid_from_us % _SECOND_US:
        return "`valid_from`: is no whole second; leave fractions out."
    return None


def is_fixed(price: Price, now_us: int) -> bool:
    """Return whether a price stays: it has begun, or some worker may not hear in time that not."""
    return price.valid_from_us <= now_us + NOTICE_S * _SECOND_US


def current_price(prices: Iterable[Price], at_us: int) -> Price | None:
    """Return the price that holds at a moment, of those of one alias and currency."""
    begun = [price for price in prices if price.valid_from_us <= at_us]
    return max(begun, key=lambda price: price.valid_from_us, default=None)


def earliest_start(new: Price, others: Iterable[Price], now_us: int) -> int:
    """Return when a price may begin at the earliest, to the second.

    The first one, and one that is nowhere higher than what it replaces, at once; a higher one
    after `NOTICE_S`. What it replaces is what a worker that has not heard of it would reckon with.

    Args:
        new: The price that is to be.
        others: Those of the same alias and currency.
        now_us: The time.
    """
    now_us -= now_us % _SECOND_US
    others = list(others)
    replaced = [price for price in others if price.valid_from_us > now_us]
    current = current_price(others, now_us)
    if current is not None:
        replaced.append(current)
    is_higher = any(_is_higher(new, price) for price in replaced)
    return now_us + (NOTICE_S * _SECOND_US if is_higher else 0)


def _is_higher(new: Price, old: Price) -> bool:
    return (
        max(new.input, new.cached_input) > max(old.input, old.cached_input)
        or new.input > old.input
        or new.cached_input > old.cached_input
        or new.output > old.output
    )
