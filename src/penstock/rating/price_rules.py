"""Decisions about prices: pure, no clock, no I/O."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import msgspec

from penstock.catalog.rules import check_model, check_name
from penstock.contract.money import PRICE_SCALE
from penstock.contract.usage import Meter
from penstock.limits.budget_rules import find_currency_fault
from penstock.rating.model import NewPrice, Price
from penstock.rating.rates import MILLION, Rates, flat, read_rates, write_rates
from penstock.rating.rules import ReadPrice, rates_of, read_price
from penstock.rating.telling import is_dearer, tell

MAX_PRICE = 1_000_000 * PRICE_SCALE
"""A million units for a million tokens."""
NOTICE_S = 600
"""How long before it begins a higher price must be known: twice as long as a worker lets requests
in on what it holds without having asked us (`budget_rules.HOLD_S`). So every worker has heard of
it, and holds enough for what a request will cost."""
MAX_AHEAD_US = 10 * 366 * 86_400 * 1_000_000
MAX_PLACE_CHARS = 128
SECOND_US = 1_000_000
_SIMPLE: tuple[Meter, ...] = ("input", "cached_input", "output")


def find_price_fault(price: Price, *, is_cost: bool = False) -> str | None:
    """Return the first thing that is wrong with a price, as a sentence; None for nothing.

    Args:
        price: The price.
        is_cost: Its book is one of costs, where models have the upstream's own names.
    """
    try:
        msgspec.convert(dataclasses.asdict(price), Price)
        if is_cost:
            check_model(price.alias)
        else:
            check_name(price.alias)
    except ValueError as error:
        return f"`{'model' if is_cost else 'alias'}` or a type: {error}."
    fault = find_currency_fault(price.currency)
    if fault is not None:
        return f"`currency`: {fault}."
    for member in _SIMPLE:
        if not 0 <= getattr(price, member) <= MAX_PRICE:
            limit = f"{MAX_PRICE // PRICE_SCALE:,}"
            return f"`{member}`: is out of range; use 0 to {limit} for a million tokens."
    for place in ("upstream", "service_tier"):
        text = getattr(price, place)
        if text and not (len(text) <= MAX_PLACE_CHARS and text.isprintable()):
            return f"`{place}`: is too long or has characters that nobody sees."
    return _find_time_fault(price) or _find_rates_fault(price)


def _find_time_fault(price: Price) -> str | None:
    for member, at_us in (("valid_from", price.valid_from_us), ("valid_to", price.valid_to_us)):
        if at_us is not None and (at_us < 0 or at_us % SECOND_US):
            return f"`{member}`: is no whole second; leave fractions out."
    if price.valid_to_us is not None and price.valid_to_us <= price.valid_from_us:
        return "`valid_to`: is not behind `valid_from`."
    return None


def _find_rates_fault(price: Price) -> str | None:
    try:
        rates_of(price)
    except ValueError as error:
        return str(error)
    return None


def fill(new: NewPrice) -> tuple[dict[str, int], dict[str, Any] | None]:
    """Return a new price's `input`, `cached_input` and `output`, and its `rates` if it needs them.

    Raises:
        ValueError: What is wrong, as a sentence.
    """
    rates: Rates = read_rates(new.rates or {})
    for meter in _SIMPLE:
        price = getattr(new, meter)
        if price is None:
            continue
        if meter in rates:
            message = f"`{meter}`: is in `rates`, too."
            raise ValueError(message)
        rates[meter] = flat(price)
    for meter in ("input", "output"):
        if meter not in rates:
            message = f"`{meter}`: is missing; write 0 for what is free."
            raise ValueError(message)
    dearest: dict[str, int] = {
        meter: rates.get(meter, rates["input"]).dearest()[0] for meter in _SIMPLE
    }
    is_simple = all(
        meter in _SIMPLE and not rate.is_stepped and rate.per == MILLION
        for meter, rate in rates.items()
    )
    return dearest, None if is_simple else write_rates(rates)


def read_good(prices: Iterable[Price], *, is_cost: bool = False) -> list[ReadPrice]:
    """Return prices with their rates read; a damaged one is none."""
    return [
        read_price(price) for price in prices if find_price_fault(price, is_cost=is_cost) is None
    ]


def is_fixed(price: Price, now_us: int) -> bool:
    """Return whether a price stays: it has begun, or some worker may not hear in time that not."""
    return price.valid_from_us <= now_us + NOTICE_S * SECOND_US


def find_overlap(new: Price, others: Iterable[Price]) -> Price | None:
    """Return a price that a new one would hold at the same time as; None when there is none.

    One without an end holds until the next one begins, so it overlaps with none that begins later.

    Args:
        new: The price that is to be.
        others: Those of the same book, model, upstream and tier.
    """
    for other in others:
        first, second = sorted((new, other), key=lambda price: price.valid_from_us)
        if first.valid_from_us == second.valid_from_us:
            return other
        if first.valid_to_us is not None and second.valid_from_us < first.valid_to_us:
            return other
    return None


def earliest_start(new: Price, others: Iterable[Price], now_us: int) -> int:
    """Return when a price may begin at the earliest, to the second.

    At once when no request is let in by what it will not pay for: the first price, and one that
    costs nothing more than what workers reckon with by then. Else after `NOTICE_S`.

    Args:
        new: The price that is to be, of a book that usage is charged by.
        others: All prices of the alias that usage is charged by, of whatever book.
        now_us: The time.
    """
    start_us = now_us - now_us % SECOND_US
    notice_us = start_us + NOTICE_S * SECOND_US
    at_us = max(start_us, new.valid_from_us)
    if at_us >= notice_us:
        return start_us
    there = read_good(others)
    (added,) = read_good([dataclasses.replace(new, valid_from_us=at_us)])
    is_rise = any(
        # Of two that begin at the same time the first one is taken.
        is_dearer(tell([added, *mine]), tell(mine), at_us, notice_us)
        for mine in _views(there, new.organization_id)
    )
    return notice_us if is_rise else start_us


def _views(prices: list[ReadPrice], organization_id: str | None) -> Iterable[list[ReadPrice]]:
    """Yield the prices that count for each organization for which a change does."""
    listed = [each for each in prices if each.price.organization_id is None]
    contracts: dict[str, list[ReadPrice]] = {}
    for each in prices:
        if each.price.organization_id is not None:
            contracts.setdefault(each.price.organization_id, []).append(each)
    if organization_id is not None:
        yield listed + contracts.get(organization_id, [])
        return
    yield listed
    for mine in contracts.values():
        yield listed + mine
