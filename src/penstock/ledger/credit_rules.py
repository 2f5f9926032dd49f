"""Decisions about credit that is to be given: pure, no clock, no I/O."""

from penstock.ledger.model import NewGrant, TopUp
from penstock.ledger.money import MAX_AMOUNT_ATTO
from penstock.limits.budget_rules import find_currency_fault

MAX_PRIORITY = 1_000
_AMOUNT_FAULT = (
    "`amount`: is out of range; use more than 0 and at most 1,000,000,000, with 18 decimals."
)


def find_grant_fault(new: NewGrant, now_us: int) -> str | None:
    """Return the first thing that is wrong with a grant, as a sentence; None for nothing."""
    if new.currency is not None and (fault := find_currency_fault(new.currency)) is not None:
        return f"`currency`: {fault}."
    if not 0 < new.amount_atto <= MAX_AMOUNT_ATTO:
        return _AMOUNT_FAULT
    if abs(new.priority) > MAX_PRIORITY:
        return f"`priority`: is out of range; use -{MAX_PRIORITY} to {MAX_PRIORITY}."
    if new.expires_at_us is not None and new.expires_at_us <= now_us:
        return "`expires_at`: is over; choose a time to come."
    return None


def find_top_up_fault(top_up: TopUp) -> str | None:
    """Return the first thing that is wrong with a top-up, as a sentence; None for nothing."""
    fault = find_currency_fault(top_up.currency)
    if fault is not None:
        return f"`currency`: {fault}."
    return None if 0 < top_up.amount_atto <= MAX_AMOUNT_ATTO else _AMOUNT_FAULT
