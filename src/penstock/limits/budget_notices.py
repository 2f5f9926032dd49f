"""What a budget tells of a window: alert percentages that are reached, and its end. Pure."""

import dataclasses
from typing import Any

from penstock.kit.decimals import format_decimal
from penstock.kit.moments import format_time
from penstock.limits.budget_model import Budget, BudgetWindow
from penstock.limits.prices import ATTO_IN_NANO
from penstock.notices.model import Notice, Topic

_NANO_PLACES = 9
_ATTO_PLACES = 18


def notices_of(
    budget: Budget, window: BudgetWindow, *, is_refused: bool = False
) -> tuple[list[Notice], BudgetWindow]:
    """Return what there is to be told of a window, and the window that remembers it.

    Each percentage is told once for a window, and the highest that is reached tells for those
    below that were added or missed since: so a raised amount, or a percentage that was added,
    brings nothing back. That the budget is exhausted is told once, too: when all is spent, or when
    a hard one has less left than a request needs. Of a wallet that is told once each time that
    something was paid in.

    Args:
        budget: It may have changed since the window was last told of.
        window: Locked, as it is to be.
        is_refused: A request was refused for want of money.
    """
    if budget.is_wallet:
        return _of_wallet(budget, window, is_refused=is_refused)
    spent, amount = window.settled_atto, budget.amount * ATTO_IN_NANO
    reached = [
        one
        for one in sorted(budget.alert_percentages)
        if one > window.told_percentage and spent * 100 >= one * amount
    ]
    notices = [
        _notice(budget, window, "budget.alert", str(percentage), percentage=percentage)
        for percentage in reached
    ]
    is_exhausted = (spent >= amount or is_refused) and not window.is_exhaustion_told
    if is_exhausted:
        notices.append(_notice(budget, window, "budget.exhausted", "", is_hard=budget.is_hard))
    told = dataclasses.replace(
        window,
        told_percentage=max([window.told_percentage, *reached]),
        is_exhaustion_told=window.is_exhaustion_told or is_exhausted,
    )
    return notices, told


def _of_wallet(
    wallet: Budget, window: BudgetWindow, *, is_refused: bool
) -> tuple[list[Notice], BudgetWindow]:
    if window.is_exhaustion_told or not (window.balance_atto <= 0 or is_refused):
        return [], window
    payload = {
        "budget_id": wallet.id,
        "currency": wallet.currency,
        "balance": format_decimal(window.balance_atto, _ATTO_PLACES),
        "held": format_decimal(window.held, _NANO_PLACES),
    }
    notice = Notice("wallet.depleted", wallet.organization_id, wallet.id, payload)
    return [notice], dataclasses.replace(window, is_exhaustion_told=True)


def _notice(
    budget: Budget, window: BudgetWindow, topic: Topic, part: str, **members: Any
) -> Notice:
    key = window.key
    ends_at_us = window.ends_at_us
    payload = {
        "budget_id": budget.id,
        "owner_kind": budget.owner_kind,
        "owner_id": budget.owner_id,
        "label": budget.label,
        "subject": key.subject,
        "currency": budget.currency,
        "amount": format_decimal(budget.amount, _NANO_PLACES),
        "spent": format_decimal(window.settled_atto, _ATTO_PLACES),
        "held": format_decimal(window.held, _NANO_PLACES),
        "window_starts_at": format_time(key.starts_at_us),
        "window_ends_at": None if ends_at_us is None else format_time(ends_at_us),
        **members,
    }
    name = "/".join([key.budget_id, key.subject, str(key.starts_at_us), part])
    return Notice(topic, budget.organization_id, name.rstrip("/"), payload)
