"""What nodes reckon with: the most that usage of an alias can be rated at. Pure.

A worker knows no steps, no tiers and no meters but input, cached input and output. So it is told
the dearest of each: what it holds of hard budgets is never less than what is charged to them.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from penstock.contract import money
from penstock.contract.usage import Meter
from penstock.limits.prices import price_at
from penstock.rating.rates import FALLBACKS, MILLION
from penstock.rating.rules import ReadPrice, current_price

_SECOND_US = 1_000_000
_INPUTS: tuple[Meter, ...] = ("input", "cache_write_input", "audio_input")
_UNBOUND: tuple[Meter, ...] = ("images", "audio_seconds", "characters")
"""No worker knows before a request how much of these it will use at most."""
_OUTPUTS: tuple[Meter, ...] = ("output", "reasoning_output", "audio_output")


class _Most(NamedTuple):
    """Of a price, in the units of `contract.money.Price`."""

    input: int
    cached_input: int
    output: int
    request: int


_UNBOUNDED = _Most(-1, -1, -1, -1)
"""Of a price by which nobody knows what a request will cost at most."""


def tell(prices: Iterable[ReadPrice]) -> list[money.Price]:
    """Return what nodes are told of prices, in order of currency and time.

    Args:
        prices: Of one alias: those of the lists and, for one organization, of its contract.
    """
    by_currency: dict[str, list[ReadPrice]] = {}
    for each in prices:
        by_currency.setdefault(each.price.currency, []).append(each)
    told = []
    for currency in sorted(by_currency):
        known: _Most | None = None
        for at_us in _changes(by_currency[currency]):
            most = _most_at(by_currency[currency], at_us)
            if most != known:
                known = most
                told.append(_told(currency, at_us // _SECOND_US, most))
    return told


def _told(currency: str, at_s: int, most: _Most | None) -> money.Price:
    if most is None or most == _UNBOUNDED:
        is_unpriced = most is None
        return money.Price(currency, at_s, 0, 0, 0, is_none=True, is_unpriced=is_unpriced)
    return money.Price(currency, at_s, *most)


def is_dearer(
    one: Sequence[money.Price], other: Sequence[money.Price], since_us: int, until_us: int
) -> bool:
    """Return whether something costs more by one list than by another that has a price for it.

    Args:
        one: As `tell` returns it.
        other: The same.
        since_us: When the time begins that it is about.
        until_us: When it ends.
    """
    starts = {since_us, *(price.valid_from_s * _SECOND_US for price in (*one, *other))}
    for currency in {price.currency for price in one}:
        for at_us in starts:
            if since_us <= at_us < until_us:
                at_s = at_us // _SECOND_US
                mine, others = price_at(one, currency, at_s), price_at(other, currency, at_s)
                if mine is not None and others is not None and _is_more(mine, others):
                    return True
    return False


def _is_more(one: money.Price, other: money.Price) -> bool:
    return (
        one.input > other.input
        or one.cached_input > other.cached_input
        or one.output > other.output
        or one.request > other.request
    )


def _changes(prices: Sequence[ReadPrice]) -> list[int]:
    starts = {each.price.valid_from_us for each in prices}
    ends = {each.price.valid_to_us for each in prices if each.price.valid_to_us is not None}
    return sorted(starts | ends)


def _most_at(prices: Sequence[ReadPrice], at_us: int) -> _Most | None:
    """Return the most that something costs at a moment; None when it has no price."""
    groups: dict[tuple[str, str], list[ReadPrice]] = {}
    for each in prices:
        groups.setdefault((each.price.book_id, each.price.service_tier), []).append(each)
    found = [current_price(group, at_us) for group in groups.values()]
    current = [each for each in found if each is not None]
    contract = [each for each in current if each.price.organization_id is not None]
    if any(each.price.service_tier == "" for each in contract):
        current = contract
    if not any(each.price.service_tier == "" for each in current):
        return None
    most = [_most(each) for each in current]
    if _UNBOUNDED in most:
        return _UNBOUNDED
    return _Most(*(max(part) for part in zip(*most, strict=True)))


def _most(read: ReadPrice) -> _Most:
    """Return the most that a price asks for."""
    if any(any(read.rates[meter].dearest()) for meter in _UNBOUND if meter in read.rates):
        return _UNBOUNDED
    once = 0
    ones: dict[Meter, int] = {}
    for meter, rate in read.rates.items():
        ones[meter], fixed = rate.dearest()
        once += fixed
    inputs = [ones.get(meter, ones.get(FALLBACKS.get(meter, meter), 0)) for meter in _INPUTS]
    outputs = [ones.get(meter, ones.get(FALLBACKS.get(meter, meter), 0)) for meter in _OUTPUTS]
    cached = ones.get("cached_input", ones.get("input", 0))
    request = -(-(once + ones.get("requests", 0)) // MILLION)
    return _Most(max(inputs), cached, max(outputs), request)
