"""Rating: what usage costs. Pure, exact, no clock, no I/O.

Where it matters what was used before, a month's usage is counted by price and meter, and an event
costs what it adds to what the whole costs: rate(after) - rate(before). So all events of a month
cost what their sum costs, in whatever order and parts they come, and one that is late costs what it
adds to its own month.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from penstock.contract.usage import METERS, Meter
from penstock.limits.prices import ATTO
from penstock.rating.model import Price
from penstock.rating.rates import FALLBACKS, Rates, flat, read_rates

MAX_QUANTITY = 10**12
"""More of a meter in one event is nobody's usage."""
MAX_AMOUNT_ATTO = 10**7 * ATTO
"""So is an event of more than ten million units."""


class MeterKey(NamedTuple):
    """What a month's usage is counted by, where it matters."""

    organization: str
    """"" for costs: an upstream's steps are those of all our usage."""
    book_id: str
    price_id: str
    model: str
    meter: Meter
    period_start_us: int


@dataclass(slots=True)
class Running:
    """A month's usage so far and what it costs."""

    quantity: int = 0
    amount_atto: int = 0


@dataclass(frozen=True, slots=True)
class ReadPrice:
    """A price whose rates were read."""

    price: Price
    rates: Rates
    flat: Mapping[Meter, int] | None
    """What one of each meter costs, when it does not matter what was used before."""


def read_price(price: Price) -> ReadPrice:
    """Return a price with its rates read.

    Raises:
        ValueError: They cannot be read.
    """
    rates = rates_of(price)
    flat_ones = None
    if not any(rate.is_stepped for rate in rates.values()):
        paid_as = {meter: meter if meter in rates else FALLBACKS.get(meter) for meter in METERS}
        flat_ones = {
            meter: 0 if named not in rates else rates[named].amount(1)
            for meter, named in paid_as.items()
        }
    return ReadPrice(price, rates, flat_ones)


def rates_of(price: Price) -> Rates:
    """Return what a price says of each meter.

    Raises:
        ValueError: Its rates cannot be read.
    """
    if price.rates is not None:
        return read_rates(price.rates)
    rates: Rates = {"input": flat(price.input), "output": flat(price.output)}
    if price.cached_input != price.input:
        rates["cached_input"] = flat(price.cached_input)
    return rates


def find_holding(prices: Iterable[Price], at_us: int) -> Price | None:
    """Return the price that holds at a moment: the one that began last, unless it has ended.

    Args:
        prices: Of one book, model, upstream and tier, in any order; of two that begin at once the
            first is taken.
        at_us: The moment.
    """
    begun = [price for price in prices if price.valid_from_us <= at_us]
    latest = max(begun, key=lambda price: price.valid_from_us, default=None)
    return latest if latest is not None and latest.holds_at(at_us) else None


def current_price(prices: Iterable[ReadPrice], at_us: int) -> ReadPrice | None:
    """Return what `find_holding` does, of prices that were read."""
    known = list(prices)
    found = find_holding([each.price for each in known], at_us)
    return next((each for each in known if each.price is found), None)


class Shelf:
    """Prices of some books, to choose from."""

    def __init__(self, prices: Iterable[ReadPrice]) -> None:
        """See the class."""
        self._prices: dict[tuple[str, str, str, str], list[ReadPrice]] = {}
        for each in sorted(prices, key=lambda each: each.price.valid_from_us, reverse=True):
            price = each.price
            key = (price.book_id, price.alias, price.upstream, price.service_tier)
            self._prices.setdefault(key, []).append(each)

    def find(
        self,
        book_ids: Sequence[str],
        model: str,
        at_us: int,
        *,
        upstream: str = "",
        service_tier: str = "",
    ) -> ReadPrice | None:
        """Return the price that holds: of the first book that has one, the closest.

        A price of the upstream comes before one of all upstreams, then one of the service tier
        before one of all tiers.
        """
        tiers = (service_tier, "") if service_tier else ("",)
        for book_id in book_ids:
            for place in (upstream, "") if upstream else ("",):
                for tier in tiers:
                    latest = next(
                        (
                            each
                            for each in self._prices.get((book_id, model, place, tier), ())
                            if each.price.valid_from_us <= at_us
                        ),
                        None,
                    )
                    if latest is not None and latest.price.holds_at(at_us):
                        return latest
        return None


def is_absurd(read: ReadPrice, used: Mapping[Meter, int]) -> bool:
    """Return whether nobody can have used as much, or for as much money."""
    if used and max(used.values()) > MAX_QUANTITY:
        return True
    if read.flat is not None:
        return rate_flat(read.flat, used) > MAX_AMOUNT_ATTO
    most = 0
    for meter, amount in counted_as(read.rates, used).items():
        one, once = read.rates[meter].dearest()
        most += amount * one + once
    return most > MAX_AMOUNT_ATTO


def rate_flat(ones: Mapping[Meter, int], used: Mapping[Meter, int]) -> int:
    """Return what quantities cost where it does not matter what was used before, in atto-units."""
    total = 0
    for meter, amount in used.items():
        total += amount * ones[meter]
    return total


def counted_as(rates: Rates, used: Mapping[Meter, int]) -> dict[Meter, int]:
    """Return quantities by the meters that have a price; what has none costs nothing."""
    counted: dict[Meter, int] = {}
    for meter, amount in used.items():
        named = meter if meter in rates else FALLBACKS.get(meter)
        if named in rates:
            counted[named] = counted.get(named, 0) + amount
    return counted


def meter_keys(
    read: ReadPrice, used: Mapping[Meter, int], organization: str, period_start_us: int
) -> Iterator[MeterKey]:
    """Yield what of a month has to be known to rate quantities."""
    if read.flat is not None:
        return
    for meter in counted_as(read.rates, used):
        if read.rates[meter].is_stepped:
            yield meter_key(read.price, meter, organization, period_start_us)


def meter_key(price: Price, meter: Meter, organization: str, period_start_us: int) -> MeterKey:
    """Return what a month's usage of a meter is counted by."""
    return MeterKey(organization, price.book_id, price.id, price.alias, meter, period_start_us)


def rate_quantities(
    read: ReadPrice,
    used: Mapping[Meter, int],
    running: Mapping[MeterKey, Running],
    organization: str,
    period_start_us: int,
) -> int:
    """Return what quantities cost, in atto-units, and count them in their month.

    Args:
        read: The price that holds.
        used: Quantities; negative ones take back what was counted before.
        running: The month so far; those that `meter_keys` names are changed.
        organization: Whose usage it is, "" for costs.
        period_start_us: Begin of the month.
    """
    if read.flat is not None:
        return rate_flat(read.flat, used)
    total = 0
    for meter, amount in counted_as(read.rates, used).items():
        rate = read.rates[meter]
        if not rate.is_stepped:
            total += rate.amount(amount) if amount >= 0 else -rate.amount(-amount)
            continue
        month = running[meter_key(read.price, meter, organization, period_start_us)]
        before = rate.amount(month.quantity)
        month.quantity = max(0, month.quantity + amount)
        after = rate.amount(month.quantity)
        month.amount_atto += after - before
        total += after - before
    return total
