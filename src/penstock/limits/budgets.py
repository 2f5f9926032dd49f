"""Use cases of budgets. None commits; each change is told to the audit log and to data planes."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from penstock.audit.model import Actor
from penstock.audit.service import record
from penstock.catalog.aliases import find_alias_by_name
from penstock.catalog.collection import entry_of
from penstock.kit.base62 import create_id
from penstock.kit.errors import PenstockError
from penstock.limits import budget_store as store
from penstock.limits.budget_model import Budget, BudgetChanges, BudgetHold, BudgetUse, NewBudget
from penstock.limits.budget_rules import find_budget_fault, slot_of
from penstock.limits.errors import BUDGET_EXISTS, BUDGET_INVALID, BUDGET_IS_WALLET
from penstock.limits.model import Owner
from penstock.limits.owners import require_changeable
from penstock.limits.rule_feed import format_owner
from penstock.storage.changes import record_change
from penstock.storage.errors import OBJECT_UNKNOWN
from penstock.storage.paging import Page, PageRequest
from penstock.storage.sessions import ReadSession, WriteSession

MAX_WINDOWS = 100
"""Most windows of a budget that are shown."""


async def create_budget(session: WriteSession, actor: Actor, new: NewBudget) -> Budget:
    """Create a budget. What is stored from then on counts.

    Raises:
        PenstockError: `OBJECT_UNKNOWN` for its alias, `STATUS_CONFLICT` when the owner is
            archived, `BUDGET_INVALID`, `BUDGET_EXISTS`.
    """
    await session.lock_configuration()
    members = {
        field.name: getattr(new, field.name)
        for field in dataclasses.fields(new)
        if field.name != "owner"
    }
    budget = _check(
        Budget(
            **{field.name: getattr(new.owner, field.name) for field in dataclasses.fields(Owner)},
            **members,
            id=create_id("bud"),
            version=1,
            created_at_us=actor.at_us,
            updated_at_us=actor.at_us,
        )
    )
    await require_changeable(session, budget)
    if budget.alias is not None and await find_alias_by_name(session, budget.alias) is None:
        raise PenstockError(OBJECT_UNKNOWN, "`alias` names no alias.")
    others = await store.list_budgets_of(session, session.scope, [budget.owner_id])
    if slot_of(budget) in map(slot_of, others):
        raise PenstockError(BUDGET_EXISTS)
    await insert_budget(session, actor, budget)
    return budget


async def insert_budget(session: WriteSession, actor: Actor, budget: Budget) -> None:
    """Store a budget that may be as it is."""
    await store.budgets.insert(session, session.scope, budget)
    await _tell(session, actor, "budget.create", budget, after=budget)


async def get_budget(session: ReadSession, budget_id: str) -> Budget:
    """Return a budget.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`.
    """
    return await store.budgets.get(session, session.scope, budget_id)


async def list_budgets(
    session: ReadSession, page: PageRequest, **filters: str | None
) -> Page[Budget]:
    """Return budgets that the session may see, oldest first.

    Args:
        session: Where from.
        page: Which part.
        **filters: Members and the values that they must have; None leaves one open.
    """
    return await store.budgets.list(session, session.scope, page, **filters)


async def update_budget(
    session: WriteSession,
    actor: Actor,
    budget_id: str,
    changes: BudgetChanges,
    *,
    expected_version: int | None = None,
) -> Budget:
    """Change the members of a budget that are given; what changes nothing leaves no trace.

    A lower amount takes nothing back that workers hold: what they hold can be spent.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `VERSION_CONFLICT`, `BUDGET_INVALID`, `STATUS_CONFLICT`
            when its owner is archived, `BUDGET_IS_WALLET`.
    """
    before = await _lock(session, budget_id, expected_version)
    await require_changeable(session, before)
    wanted: Mapping[str, Any] = changes
    values = {name: value for name, value in wanted.items() if getattr(before, name) != value}
    if not values:
        return before
    _check(dataclasses.replace(before, **values))
    after = await store.budgets.update(
        session, session.scope, before, updated_at_us=actor.at_us, **values
    )
    await _tell(session, actor, "budget.update", after, before=before, after=after)
    return after


async def delete_budget(
    session: WriteSession, actor: Actor, budget_id: str, *, expected_version: int | None = None
) -> None:
    """Remove a budget for good, with what was spent and held of it; usage events stay.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `VERSION_CONFLICT`, `BUDGET_IS_WALLET`.
    """
    await remove_budget(session, actor, await _lock(session, budget_id, expected_version))


async def remove_budget(session: WriteSession, actor: Actor, before: Budget) -> None:
    """Remove a budget that is locked, with what was spent and held of it."""
    await store.delete_spending(session, session.scope, before.id)
    await store.budgets.delete(session, session.scope, before)
    await _tell(session, actor, "budget.delete", before, before=before)


async def _lock(session: WriteSession, budget_id: str, expected_version: int | None) -> Budget:
    """Return a budget that somebody wants to change, who may."""
    found = await store.budgets.lock(session, session.scope, budget_id, expected_version)
    if found.is_wallet:
        raise PenstockError(BUDGET_IS_WALLET)
    return found


async def list_uses(session: ReadSession, budget: Budget) -> list[BudgetUse]:
    """Return what is spent and held of a budget, in the windows that began last."""
    windows = await store.list_windows(session, session.scope, budget.id, limit=MAX_WINDOWS)
    return [BudgetUse(window, budget.amount, budget.is_wallet) for window in windows]


async def find_budgets(session: ReadSession, budget_ids: Collection[str]) -> dict[str, Budget]:
    """Return budgets that are there, by id."""
    found = await store.budgets.list_by_id(session, session.scope, store.with_ids(budget_ids))
    return {budget.id: budget for budget in found}


async def list_holds(
    session: ReadSession, page: PageRequest, **filters: str | None
) -> Page[BudgetHold]:
    """Return the open holds that the session may see, oldest first; see `list_budgets`."""
    return await store.list_open_holds(session, session.scope, page, **filters)


def _check(budget: Budget) -> Budget:
    fault = find_budget_fault(budget)
    if fault is not None:
        raise PenstockError(BUDGET_INVALID, fault)
    return budget


async def _tell(
    session: WriteSession, actor: Actor, action: str, budget: Budget, **states: Budget
) -> None:
    await record_change(session, "budget", format_owner(budget), actor.at_us)
    await record(session, entry_of(actor, action, budget, **states))
