"""Decisions about budgets: pure, no clock, no I/O."""

import dataclasses
import re
from collections.abc import Collection, Iterable
from typing import Any

import msgspec

from penstock.catalog.rules import check_name
from penstock.contract.limits import Per
from penstock.contract.money import NANO
from penstock.kit.time_zones import find_zone
from penstock.limits.budget_model import MAX_AMOUNT, Budget
from penstock.tenancy.labels import find_label_fault

MAX_HOLD = 1_000_000 * NANO
"""Most that is held at once: what a single taking can strand."""
SHARE = 16
"""A hold is at most this part of what is free, if that is more than what it needs at least."""
HOLD_S = 300
"""How long requests are admitted on a hold before it is asked for anew."""
EXPIRY_S = 24 * 3_600
"""After this time without a sign of life what a worker holds is free again."""

MAX_ALERTS = 10
MAX_ALERT_PERCENTAGE = 1_000
_CURRENCY = re.compile(r"[A-Z]{3}")
_SECOND_US = 1_000_000


def find_budget_fault(budget: Budget) -> str | None:
    """Return the first thing that is wrong with a budget, as a sentence; None for nothing."""
    try:
        msgspec.convert(dataclasses.asdict(budget), Budget)
    except msgspec.ValidationError as error:
        return f"{error}."
    for member, fault in _faults(budget):
        if fault:
            return f"`{member}`: {fault}."
    return None


def _faults(budget: Budget) -> Iterable[tuple[str, str | None]]:
    yield "currency", find_currency_fault(budget.currency)
    if not (0 < budget.amount <= MAX_AMOUNT or (budget.is_wallet and budget.amount == 0)):
        limit = f"{MAX_AMOUNT // NANO:,}"
        yield "amount", f"is out of range; use more than 0 and at most {limit}, 9 decimals"
    if find_zone(budget.time_zone) is None:
        yield "time_zone", "is not known; use an IANA name, e.g. Europe/Berlin"
    if budget.per and budget.per in {budget.owner_kind, "key" if budget.key_id else ""}:
        yield "per", f"a {budget.owner_kind} has no {budget.per}s to tell apart; leave it out"
    if budget.per == "member" and budget.owner_kind == "key":
        yield "per", "a key belongs to one member; leave it out"
    if budget.alias is not None:
        yield "alias", _name_fault(budget.alias)
    if budget.label is not None:
        fault = find_label_fault(budget.label)
        yield "label", fault and fault.removesuffix(".")
    percentages = budget.alert_percentages
    if len(percentages) > MAX_ALERTS or len(set(percentages)) < len(percentages):
        yield "alert_percentages", f"has too many, or one twice; use at most {MAX_ALERTS}"
    if not all(0 < one <= MAX_ALERT_PERCENTAGE for one in percentages):
        yield "alert_percentages", f"has one out of range; use 1 to {MAX_ALERT_PERCENTAGE:,}"
    if budget.exhausted_status not in {402, 429}:
        yield "exhausted_status", "is none; use 429 or 402"


def find_currency_fault(currency: str) -> str | None:
    """Return why a text is no currency, and the remedy; None when it is one."""
    return None if _CURRENCY.fullmatch(currency) else "is none; use three capitals, e.g. EUR"


def _name_fault(name: str) -> str | None:
    try:
        check_name(name)
    except ValueError as error:
        return str(error)
    return None


def is_usable(budget: Budget) -> bool:
    """Return whether a budget is as it may be: a row that something else wrote may be damaged."""
    return find_budget_fault(budget) is None


def slot_of(budget: Budget) -> tuple[Any, ...]:
    """Return what an owner has one budget for at most."""
    owner = (budget.owner_kind, budget.organization_id, budget.owner_id)
    counted = (budget.currency, budget.period, budget.alias, budget.label, budget.per)
    return (*owner, budget.is_wallet, *counted)


def subject_of(per: Per, key_id: str, member_id: str) -> str:
    """Return whose window counts for a request. A key that belongs to nobody is its own member.

    Args:
        per: The budget's.
        key_id: Of the request.
        member_id: Of the member or service account that its key belongs to, or "".
    """
    if per == "member" and member_id:
        return f"m.{member_id}"
    return f"k.{key_id}" if per else ""


def counts_for(budget: Budget, organization_id: str, alias: str, labels: Collection[str]) -> bool:
    """Return whether a request that a budget's owner answers for counts for it.

    Args:
        budget: Of an owner of the request's key.
        organization_id: Of the request.
        alias: What it asked for.
        labels: What its key carries, each `name=value`.
    """
    is_meant = budget.alias in {None, alias} and (budget.label is None or budget.label in labels)
    return is_meant and budget.organization_id == organization_id


def size_hold(free: int, least: int, want: int) -> int | None:
    """Return how much is held of what is free; None when that is too little.

    Far from the limit it is what is wanted. The nearer it comes, the less sits with workers that
    may not need it, down to what is needed at least.
    """
    if least > free:
        return None
    return max(least, min(want, free // SHARE, MAX_HOLD))


def usable_ms(ends_at_us: int | None, now_us: int) -> int:
    """Return for how long requests are admitted on a hold: not beyond the end of its window."""
    if ends_at_us is None:
        return HOLD_S * 1_000
    return max(0, min(HOLD_S * 1_000, (ends_at_us - now_us) // 1_000))


def seconds_until(ends_at_us: int | None, now_us: int) -> int | None:
    """Return when the next window begins, rounded up; None when none does."""
    return None if ends_at_us is None else max(0, -(-(ends_at_us - now_us) // _SECOND_US))
