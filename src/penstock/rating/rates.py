"""What a meter costs: flat, or by steps of what was used before. Pure and exact.

Prices are whole numbers of a unit's 1/PRICE_SCALE, for 1,000,000, 1,000 or 1 of a meter, or for a
package of any size. So what any quantity costs is a whole number of atto-units: nothing is rounded.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeAlias, get_args

import msgspec

from penstock.contract.money import PRICE_SCALE
from penstock.contract.usage import METERS, Meter
from penstock.kit.decimals import format_decimal, parse_decimal
from penstock.limits.prices import ATTO

Scheme = Literal["flat", "graduated", "volume", "package"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)

MILLION = 1_000_000
PLACES = 12
MAX_TIERS = 100
MAX_QUANTITY = 10**15
"""Of a step or a package."""
MAX_PACKAGE = 100_000 * PRICE_SCALE
"""A hundred thousand units for one."""
_WHOLE = frozenset({"requests", "images", "audio_seconds"})
"""Priced one by one, others by the million."""
MAX_ONE_ATTO = {meter: 1_000 * ATTO if meter in _WHOLE else ATTO for meter in METERS}
"""A thousand units for a request, an image or a second; a million for a million tokens."""

FALLBACKS: dict[Meter, Meter] = {
    "cached_input": "input",
    "cache_write_input": "input",
    "audio_input": "input",
    "reasoning_output": "output",
    "audio_output": "output",
}
"""As what a meter without a price of its own is counted; those that are not here cost nothing."""

_USUAL_PER = {meter: 1 if meter in _WHOLE else MILLION for meter in METERS}
_PERS = (MILLION, 1_000, 1)


@dataclass(frozen=True, slots=True)
class Tier:
    """A step: the price of what is used up to a quantity."""

    up_to: int | None
    """Of the month so far, this step's end included; None for the last step."""
    price: int


@dataclass(frozen=True, slots=True)
class Rate:
    """What one meter costs."""

    scheme: Scheme
    tiers: tuple[Tier, ...]
    """In order, the last one without an end. One only for `flat` and `package`."""
    per: int = MILLION
    """How many of the meter the prices are for; of a package, how many are in it."""

    @property
    def is_stepped(self) -> bool:
        """Whether it matters what was used before."""
        return self.scheme != "flat"

    def amount(self, quantity: int) -> int:
        """Return what a quantity costs altogether, in atto-units; never less than 0.

        Args:
            quantity: All of a month so far when the rate is stepped, >= 0.
        """
        if self.scheme == "flat":
            return quantity * self.tiers[0].price * (MILLION // self.per)
        if self.scheme == "package":
            return -(-quantity // self.per) * self.tiers[0].price * MILLION
        one = MILLION // self.per
        if self.scheme == "graduated":
            return sum(part * tier.price for tier, part in self._parts(quantity)) * one
        tier = next(each for each in self.tiers if each.up_to is None or quantity <= each.up_to)
        return quantity * tier.price * one

    def dearest(self) -> tuple[int, int]:
        """Return what one more costs at most, and what is to be added to that once, in atto-units.

        Whatever was used before, `n` more cost no more than `n` times the first and once the other.
        """
        if self.scheme == "flat":
            return self.tiers[0].price * (MILLION // self.per), 0
        dearest = max(tier.price for tier in self.tiers)
        if self.scheme == "package":
            return -(-dearest * MILLION // self.per), dearest * MILLION
        return dearest * (MILLION // self.per), 0

    def _parts(self, quantity: int) -> Iterator[tuple[Tier, int]]:
        begin = 0
        for tier in self.tiers:
            end = quantity if tier.up_to is None else min(quantity, tier.up_to)
            if end > begin:
                yield tier, end - begin
                begin = end


Rates: TypeAlias = dict[Meter, Rate]
"""By meter, those that have a price of their own."""


def flat(price: int, per: int = MILLION) -> Rate:
    """Return the rate of one price for everything."""
    return Rate("flat", (Tier(None, price),), per)


class _TierForm(msgspec.Struct, forbid_unknown_fields=True):
    price: str
    up_to: int | None = None


class _RateForm(msgspec.Struct, forbid_unknown_fields=True):
    scheme: Scheme = "flat"
    price: str | None = None
    per: int | None = None
    tiers: list[_TierForm] | None = None


def read_rates(written: Any) -> Rates:
    """Return the rates that are written as JSON.

    Args:
        written: By meter: `{"scheme": "flat", "price": "0.15", "per": 1000000}`; `graduated` and
            `volume` have `tiers` of `up_to` and `price` instead, the last one without an end. Of a
            package, `per` is its size.

    Raises:
        ValueError: What is wrong, as a sentence that begins with the member.
    """
    if not isinstance(written, Mapping):
        message = "`rates`: is no object."
        raise ValueError(message)  # noqa: TRY004 - one kind of error for whatever is written
    rates: Rates = {}
    for meter, form in written.items():
        if meter not in METERS:
            message = f"`rates`: has a meter that is none of {', '.join(METERS)}."
            raise ValueError(message)
        try:
            rates[meter] = _read(meter, msgspec.convert(form, _RateForm))
        except ValueError as error:
            message = f"`rates.{meter}`: {str(error).rstrip('.')}."
            raise ValueError(message) from None
    return rates


def write_rates(rates: Rates) -> dict[str, Any]:
    """Return rates in the form that `read_rates` reads, each the same way whoever wrote it."""
    return {meter: _write(rates[meter]) for meter in METERS if meter in rates}


def _write(rate: Rate) -> dict[str, Any]:
    form: dict[str, Any] = {"scheme": rate.scheme, "per": rate.per}
    if rate.scheme in {"flat", "package"}:
        return form | {"price": format_decimal(rate.tiers[0].price, PLACES)}
    return form | {
        "tiers": [
            {"price": format_decimal(tier.price, PLACES)}
            | ({} if tier.up_to is None else {"up_to": tier.up_to})
            for tier in rate.tiers
        ]
    }


def _read(meter: Meter, form: _RateForm) -> Rate:
    per = _USUAL_PER[meter] if form.per is None else form.per
    if form.scheme == "package":
        if not 1 <= per <= MAX_QUANTITY:
            message = "`per` is the size of a package, 1 or more"
            raise ValueError(message)
    elif per not in _PERS:
        message = "`per` is 1000000, 1000 or 1"
        raise ValueError(message)
    rate = Rate(form.scheme, tuple(_read_tiers(form)), per)
    if rate.scheme == "package" and rate.tiers[0].price > MAX_PACKAGE:
        message = f"a package costs {MAX_PACKAGE // PRICE_SCALE:,} at most"
        raise ValueError(message)
    if rate.dearest()[0] > MAX_ONE_ATTO[meter]:
        message = f"one costs {MAX_ONE_ATTO[meter] // ATTO:,} at most"
        raise ValueError(message)
    return rate


def _read_tiers(form: _RateForm) -> list[Tier]:
    if form.scheme in {"flat", "package"}:
        if form.price is None or form.tiers is not None:
            message = f"`{form.scheme}` has a `price` and no `tiers`"
            raise ValueError(message)
        return [Tier(None, read_price(form.price))]
    if form.price is not None or not form.tiers or len(form.tiers) > MAX_TIERS:
        message = f"`{form.scheme}` has 1 to {MAX_TIERS} `tiers` and no `price`"
        raise ValueError(message)
    tiers = [Tier(tier.up_to, read_price(tier.price)) for tier in form.tiers]
    ends = [0, *(tier.up_to for tier in tiers[:-1])]
    is_rising = all(
        one is not None and other is not None and one < other <= MAX_QUANTITY
        for one, other in pairwise(ends)
    )
    if not is_rising or tiers[-1].up_to is not None:
        message = "each tier ends above the one before with `up_to`, and the last one has no end"
        raise ValueError(message)
    prices = [tier.price for tier in tiers]
    if form.scheme == "volume" and prices != sorted(prices, reverse=True):
        message = "a price for all of a month cannot rise with it: one request would pay for all"
        raise ValueError(message)
    return tiers


def read_price(text: str) -> int:
    """Return a decimal as a whole number of a unit's 1/PRICE_SCALE.

    Raises:
        ValueError: It is none.
    """
    price = parse_decimal(text, PLACES)
    if price is None:
        message = f"a price is no decimal; write it like 0.15, with at most {PLACES} decimals"
        raise ValueError(message)
    return price
