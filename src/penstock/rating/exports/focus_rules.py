"""What was charged, as rows of FOCUS 1.2: pure, exact, no clock, no I/O.

One row is what one meter of a price came to on one day. Where a price has steps, an amount is that
of a month so far and not of one meter: what is left then is a row of its own, so that the rows of a
day always add up to what was charged.

Source: FinOps Open Cost and Usage Specification 1.2, https://focus.finops.org.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from penstock.contract.usage import METERS, Meter
from penstock.kit.decimals import format_decimal
from penstock.limits.prices import ATTO
from penstock.metering.bucket_rules import DAY_US, advance, bucket_start
from penstock.rating.exports.focus_model import ChargedDay
from penstock.rating.exports.formats import Column, Row
from penstock.rating.rates import FALLBACKS, MILLION, PLACES, Rate
from penstock.rating.rules import ReadPrice, counted_as

VERSION = "1.2"
_ATTO_PLACES = len(str(ATTO)) - 1
_QUANTITY_PLACES = 6
_UNITS: dict[Meter, str] = {
    "requests": "Requests",
    "images": "Images",
    "audio_seconds": "Seconds",
    "characters": "Characters",
}

COLUMNS: tuple[Column, ...] = (
    Column("BilledCost", "decimal"),
    Column("BillingAccountId"),
    Column("BillingAccountName"),
    Column("BillingAccountType"),
    Column("BillingCurrency"),
    Column("BillingPeriodEnd", "moment"),
    Column("BillingPeriodStart", "moment"),
    Column("ChargeCategory"),
    Column("ChargeClass"),
    Column("ChargeDescription"),
    Column("ChargeFrequency"),
    Column("ChargePeriodEnd", "moment"),
    Column("ChargePeriodStart", "moment"),
    Column("CommitmentDiscountStatus"),
    Column("ConsumedQuantity", "decimal"),
    Column("ConsumedUnit"),
    Column("ContractedCost", "decimal"),
    Column("ContractedUnitPrice", "decimal"),
    Column("EffectiveCost", "decimal"),
    Column("InvoiceId"),
    Column("InvoiceIssuerName"),
    Column("ListCost", "decimal"),
    Column("PricingCategory"),
    Column("PricingQuantity", "decimal"),
    Column("PricingUnit"),
    Column("ProviderName"),
    Column("PublisherName"),
    Column("RegionId"),
    Column("RegionName"),
    Column("ServiceCategory"),
    Column("ServiceName"),
    Column("ServiceSubcategory"),
    Column("SkuId"),
    Column("SkuMeter"),
    Column("SkuPriceDetails"),
    Column("SkuPriceId"),
    Column("SubAccountId"),
    Column("SubAccountName"),
    Column("SubAccountType"),
    Column("x_CachedTokens", "whole"),
    Column("x_DataClass"),
    Column("x_KeyId"),
    Column("x_Model"),
    Column("x_Provider"),
    Column("x_ServiceTier"),
)
"""Those of FOCUS that we have something to say in, in its order; then our own.

Two are always null: there is no commitment, and charges of a day can be on several invoices, which
this room does not know. They are there because the specification's validator looks at them."""


def build_rows(
    charged: ChargedDay,
    price: ReadPrice | None,
    names: Mapping[str, Mapping[str, str]],
    provider: str,
) -> Iterator[Row]:
    """Yield the rows of what was charged; they add up to its amount exactly.

    Args:
        charged: What was charged for a day by one price.
        price: That price; None when it cannot be read.
        names: What organizations and projects are called now, by dimension and id.
        provider: Who runs the platform.
    """
    everywhere = _members_of(charged, names, provider)
    for members in _split(charged, price):
        row = everywhere | members
        yield [row.get(column.name) for column in COLUMNS]


def _split(charged: ChargedDay, price: ReadPrice | None) -> Iterator[dict[str, Any]]:
    if charged.is_change:
        yield _change(charged)
        return
    used = {meter: amount for meter, amount in charged.figures.items() if amount}
    counted = {} if price is None else counted_as(price.rates, used)
    rates: dict[Meter, Rate] = {} if price is None else price.rates
    flat = {meter: amount for meter, amount in counted.items() if not rates[meter].is_stepped}
    amounts = {meter: rates[meter].amount(amount) for meter, amount in flat.items()}
    for meter in METERS:
        if meter in flat:
            yield _flat(charged, meter, flat[meter], rates[meter], amounts[meter])
    left = charged.amount_atto - sum(amounts.values())
    stepped = {meter: amount for meter, amount in counted.items() if meter not in flat}
    if left or stepped:
        yield _steps(charged, stepped or used, left)


def _members_of(
    charged: ChargedDay, names: Mapping[str, Mapping[str, str]], provider: str
) -> dict[str, Any]:
    month_us = bucket_start("month", charged.day_us)
    region = charged.region or None
    return {
        "BillingAccountId": charged.organization,
        "BillingAccountName": _name(names, "organization", charged.organization),
        "BillingAccountType": "Organization",
        "BillingCurrency": charged.currency,
        "BillingPeriodStart": month_us,
        "BillingPeriodEnd": advance("month", month_us, 1),
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": charged.day_us,
        "ChargePeriodEnd": charged.day_us + DAY_US,
        "InvoiceIssuerName": provider,
        "PricingCategory": "Standard",
        "ProviderName": provider,
        "PublisherName": provider,
        "RegionId": region,
        "RegionName": region,
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "Inference",
        "ServiceSubcategory": "Generative AI",
        "SubAccountId": charged.project or None,
        "SubAccountName": _name(names, "project", charged.project),
        "SubAccountType": "Project" if charged.project else None,
        "x_DataClass": charged.data_class or None,
        "x_KeyId": charged.key_id or None,
        "x_Model": charged.model,
        "x_Provider": charged.upstream or None,
        "x_ServiceTier": charged.service_tier or None,
    }


def _flat(
    charged: ChargedDay, meter: Meter, quantity: int, rate: Rate, amount_atto: int
) -> dict[str, Any]:
    unit = _UNITS.get(meter, "Tokens")
    is_cached = meter == "cached_input" or (
        meter == FALLBACKS["cached_input"] and quantity != charged.figures[meter]
    )
    return {
        **_costs(amount_atto),
        "ChargeCategory": "Usage",
        "ChargeDescription": f"{charged.model}: {_words(meter).lower()}",
        "ConsumedQuantity": _whole(quantity),
        "ConsumedUnit": unit,
        "ContractedUnitPrice": format_decimal(rate.tiers[0].price, PLACES),
        "PricingQuantity": format_decimal(quantity * (MILLION // rate.per), _QUANTITY_PLACES),
        "PricingUnit": unit if rate.per == 1 else f"{rate.per} {unit}",
        "SkuId": f"{charged.model}/{meter}",
        "SkuMeter": _words(meter),
        "SkuPriceId": f"{charged.price_id}/{meter}",
        "x_CachedTokens": charged.figures["cached_input"] if is_cached else None,
    }


def _steps(charged: ChargedDay, used: Mapping[Meter, int], amount_atto: int) -> dict[str, Any]:
    tokens = {meter: amount for meter, amount in used.items() if meter not in _UNITS}
    counted = tokens or used
    units = {_UNITS.get(meter, "Tokens") for meter in counted} or {"Requests"}
    return {
        **_difference(charged, amount_atto, "Usage By Steps"),
        "ChargeDescription": f"{charged.model}: usage priced by steps of a month",
        "ConsumedQuantity": _whole(sum(counted.values())),
        "ConsumedUnit": min(units),
    }


def _change(charged: ChargedDay) -> dict[str, Any]:
    """Return what changes charges; the specification has a word for it in a later month only."""
    return {
        **_difference(charged, charged.amount_atto, "Usage Rated Anew"),
        "ChargeClass": "Correction" if charged.is_late else None,
        "ChargeDescription": f"{charged.model}: usage was rated anew",
    }


def _difference(charged: ChargedDay, amount_atto: int, what: str) -> dict[str, Any]:
    """Return an amount that is no quantity times a price: as one unit that costs it, or less one.

    For a unit price is never negative, and what is paid is always the quantity times it.
    """
    name = what.lower().replace(" ", "_")
    return {
        **_costs(amount_atto),
        "ChargeCategory": "Usage",
        "ConsumedQuantity": _whole(0),
        "ConsumedUnit": "Tokens",
        "ContractedUnitPrice": format_decimal(abs(amount_atto), _ATTO_PLACES),
        "PricingQuantity": "1" if amount_atto >= 0 else "-1",
        "PricingUnit": "Units",
        "SkuId": f"{charged.model}/{name}",
        "SkuMeter": what,
        "SkuPriceId": f"{charged.price_id}/{name}",
    }


def _costs(amount_atto: int) -> dict[str, Any]:
    amount = format_decimal(amount_atto, _ATTO_PLACES)
    return dict.fromkeys(("BilledCost", "ContractedCost", "EffectiveCost", "ListCost"), amount)


def _whole(quantity: int) -> str:
    # With a decimal: readers of CSV guess a column's type, and this one's is decimal.
    return f"{quantity}.0"


def _words(meter: Meter) -> str:
    words = meter.replace("_", " ").title()
    return words if meter in _UNITS else f"{words} Tokens"


def _name(names: Mapping[str, Mapping[str, str]], dimension: str, value: str) -> str | None:
    return names.get(dimension, {}).get(value) or value or None
