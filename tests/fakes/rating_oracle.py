"""What usage costs, written a second time, in fractions and from the books' own words.

It shares nothing with `penstock.rating`: prices are read from the JSON that people write, and a
month is summed up as a whole rather than event by event.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

from penstock.contract.usage import UsageEvent

Form = Mapping[str, Any]
Priced = tuple[UsageEvent, Mapping[str, Form], str]
"""An event, the rates that it is charged by, and what tells these from others."""

USUAL_PER = {"requests": 1, "images": 1, "audio_seconds": 1}
INPUT_PARTS = ("cached_input", "cache_write_input", "audio_input")
OUTPUT_PARTS = ("reasoning_output", "audio_output")


def cost_of(meter: str, form: Form, quantity: int) -> Fraction:
    """Return what a quantity costs that is all there is in a month."""
    per = Fraction(form.get("per", USUAL_PER.get(meter, 1_000_000)))
    scheme = form.get("scheme", "flat")
    if scheme == "flat":
        return quantity * Fraction(form["price"]) / per
    if scheme == "package":
        packages = quantity // int(per) + (1 if quantity % int(per) else 0)
        return packages * Fraction(form["price"])
    tiers = form["tiers"]
    if scheme == "volume":
        for tier in tiers:
            if quantity <= tier.get("up_to", quantity):
                return quantity * Fraction(tier["price"]) / per
        raise AssertionError
    total, begin = Fraction(0), 0
    for tier in tiers:
        end = tier.get("up_to", quantity)
        total += max(0, min(end, quantity) - begin) * Fraction(tier["price"]) / per
        begin = end
    return total


def used_by(event: UsageEvent) -> Counter[str]:
    """Return what an event counts on each meter: parts first, the rest as the whole's own."""
    used: Counter[str] = Counter(
        {
            "requests": int(event.first_byte_at_ns is not None),
            "images": event.image_count,
            "audio_seconds": event.audio_seconds,
            "characters": event.characters,
        }
    )
    for whole, parts in (("input", INPUT_PARTS), ("output", OUTPUT_PARTS)):
        left = getattr(event, f"{whole}_tokens")
        for part in parts:
            used[part] = min(left, getattr(event, f"{part}_tokens") or 0)
            left -= used[part]
        used[whole] = left
    return +used


def month_of(event: UsageEvent) -> tuple[int, int]:
    """Return year and month of an event's admission."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=event.started_at_ns // 1000)
    return moment.year, moment.month


def total_of(events: Iterable[Priced]) -> Fraction:
    """Return what events cost together."""
    months: dict[tuple[Any, ...], Counter[str]] = {}
    forms: dict[str, Mapping[str, Form]] = {}
    for event, rates, name in events:
        forms[name] = rates
        months.setdefault((event.organization, name, month_of(event)), Counter()).update(
            charged_as(rates, used_by(event))
        )
    return sum(
        (
            cost_of(meter, forms[name][meter], quantity)
            for (_, name, _), used in months.items()
            for meter, quantity in used.items()
        ),
        Fraction(0),
    )


def charged_as(rates: Mapping[str, Form], used: Counter[str]) -> Counter[str]:
    """Return quantities by the meters that they are paid for as."""
    paid: Counter[str] = Counter()
    for meter, quantity in used.items():
        whole = "input" if meter in INPUT_PARTS else "output" if meter in OUTPUT_PARTS else None
        if meter in rates:
            paid[meter] += quantity
        elif whole is not None:
            paid[whole] += quantity
    return paid
