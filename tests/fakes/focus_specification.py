"""What FOCUS 1.2 says of a Cost and Usage row, as far as our columns go.

Written from the specification's requirements (https://focus.finops.org, version 1.2): the columns
that have to be there, their types, when they may be null, and what must match what.
"""

import json
import re
from collections.abc import Mapping, Sequence
from decimal import Context, Decimal, localcontext

MANDATORY = (
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ContractedCost",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ServiceCategory",
    "ServiceName",
)
CONDITIONAL = (
    "BillingAccountType",
    "ChargeFrequency",
    "CommitmentDiscountStatus",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedUnitPrice",
    "InvoiceId",
    "PricingCategory",
    "RegionId",
    "RegionName",
    "ServiceSubcategory",
    "SkuId",
    "SkuMeter",
    "SkuPriceDetails",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "SubAccountType",
)
NEVER_NULL = (
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingAccountType",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ContractedCost",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "ProviderName",
    "PublisherName",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
)
NEEDED_BY_USAGE = (
    "ConsumedQuantity",
    "ContractedUnitPrice",
    "PricingCategory",
    "PricingQuantity",
    "SkuId",
    "SkuPriceId",
)
"""Not null where `ChargeCategory` is Usage and `ChargeClass` is not Correction."""
NUMBERS = (
    "BilledCost",
    "ConsumedQuantity",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "ListCost",
    "PricingQuantity",
)
MOMENTS = ("BillingPeriodEnd", "BillingPeriodStart", "ChargePeriodEnd", "ChargePeriodStart")
VALUES = {
    "ChargeCategory": {"Usage", "Purchase", "Tax", "Credit", "Adjustment"},
    "ChargeClass": {"Correction"},
    "ChargeFrequency": {"One-Time", "Recurring", "Usage-Based"},
    "PricingCategory": {"Standard", "Dynamic", "Committed", "Other"},
    "ServiceCategory": {"AI and Machine Learning"},
    "ServiceSubcategory": {"Generative AI"},
}
TOGETHER = (
    ("ConsumedQuantity", "ConsumedUnit"),
    ("PricingQuantity", "PricingUnit"),
    ("RegionId", "RegionName"),
    ("SubAccountId", "SubAccountName"),
    ("SubAccountId", "SubAccountType"),
    ("SkuId", "SkuMeter"),
)
"""Both are null or none is."""

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_MOMENT = re.compile(r"[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]Z")
_CURRENCY = re.compile(r"[A-Z]{3}")
_FORMS = ((NUMBERS, _NUMBER), (MOMENTS, _MOMENT), (("BillingCurrency",), _CURRENCY))
_COLUMN = re.compile(r"(x_)?[A-Z][A-Za-z0-9]*")


def find_column_faults(columns: Sequence[str]) -> list[str]:
    """Return what is wrong with the columns of a file."""
    faults = [f"{name} is missing" for name in (*MANDATORY, *CONDITIONAL) if name not in columns]
    faults += [f"{name} is no name of a column" for name in columns if not _COLUMN.fullmatch(name)]
    known = {*MANDATORY, *CONDITIONAL}
    own = [name for name in columns if name not in known]
    faults += [f"{name} needs x_" for name in own if not name.startswith("x_")]
    if len({*columns}) < len(columns) or list(columns[-len(own) :]) != own:
        faults.append("columns are there twice, or those of FOCUS are not first")
    return faults


def find_faults(row: Mapping[str, str | None]) -> list[str]:
    """Return what is wrong with a row, whose values are texts, or None for null."""
    faults = [
        f"{name} is empty" for name, value in row.items() if value is not None and not value.strip()
    ]
    faults += [f"{name} is null" for name in NEVER_NULL if row[name] is None]
    faults += [
        f"{name}: {row[name]}"
        for names, pattern in (
            (NUMBERS, _NUMBER),
            (MOMENTS, _MOMENT),
            (("BillingCurrency",), _CURRENCY),
        )
        for name in names
        if row[name] is not None and not pattern.fullmatch(str(row[name]))
    ]
    faults += [
        f"{name}: {row[name]}"
        for name, values in VALUES.items()
        if row[name] is not None and row[name] not in values
    ]
    faults += [
        f"{one} without {other}"
        for one, other in TOGETHER
        if (row[one] is None) != (row[other] is None)
    ]
    if row["ChargeCategory"] == "Usage" and row["ChargeClass"] is None:
        faults += [f"usage without {name}" for name in NEEDED_BY_USAGE if row[name] is None]
    if row["ChargeCategory"] != "Usage" and row["ConsumedQuantity"] is not None:
        faults.append("consumed quantity of what is no usage")
    if row["SkuPriceDetails"] is not None:
        json.loads(row["SkuPriceDetails"])
    return faults + _find_wrong_sums(row) + _find_wrong_times(row)


def _find_wrong_sums(row: Mapping[str, str | None]) -> list[str]:
    price, quantity = row["ContractedUnitPrice"], row["PricingQuantity"]
    faults = []
    if price is not None and quantity is not None and row["ChargeClass"] is None:
        with localcontext(Context(prec=100)):
            if Decimal(price) < 0:
                faults.append("a negative unit price")
            if Decimal(price) * Decimal(quantity) != Decimal(str(row["ContractedCost"])):
                faults.append(f"{price} times {quantity} is not {row['ContractedCost']}")
    elif row["ContractedCost"] != row["BilledCost"]:
        faults.append("a contracted cost of its own without a price")
    # There is no list price beside it, nor anything paid ahead.
    if {row["ListCost"], row["EffectiveCost"]} != {row["BilledCost"]}:
        faults.append("list or effective cost is another one than what is billed")
    return faults


def _find_wrong_times(row: Mapping[str, str | None]) -> list[str]:
    begin, end = str(row["ChargePeriodStart"]), str(row["ChargePeriodEnd"])
    first, behind = str(row["BillingPeriodStart"]), str(row["BillingPeriodEnd"])
    if not first <= begin < end <= behind:
        return ["a charge outside of its billing period"]
    return []
