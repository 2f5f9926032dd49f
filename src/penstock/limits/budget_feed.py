"""What nodes are told of budgets: the hard ones, by whom they are for.

A hard budget that is damaged lets nothing through, rather than everything: no alias has a price in
the currency that nodes are told then.
"""

from collections.abc import Collection, Iterable
from typing import TypeAlias

from penstock.contract import money
from penstock.contract.snapshot_store import budgets_record
from penstock.limits import budget_store as store
from penstock.limits.budget_model import Budget
from penstock.limits.budget_rules import is_usable
from penstock.limits.rule_feed import format_owner, name_record
from penstock.storage.sessions import ReadSession

Records: TypeAlias = dict[bytes, bytes]


async def find_changed(session: ReadSession, names: Collection[str]) -> tuple[Records, set[bytes]]:
    """Return the records that nodes shall have of owners' budgets, and names of those to go.

    Args:
        session: Where from.
        names: As `format_owner` makes them.
    """
    ids = {name.rpartition("\n")[2] for name in names}
    found = await store.list_budgets_of(session, session.scope, ids)
    puts = _tell(one for one in found if format_owner(one) in names)
    return puts, {b"b" + name_record(name) for name in names} - puts.keys()


async def list_page(session: ReadSession, after_id: str, limit: int) -> tuple[Records, str]:
    """Return the records of owners of budgets behind an id, and the id to go on behind."""
    page = await store.budgets.list_by_id(session, session.scope, after=after_id, limit=limit)
    # An owner's record has all its budgets, wherever their ids are.
    ids = {one.owner_id for one in page}
    owners = {format_owner(one) for one in page}
    found = await store.list_budgets_of(session, session.scope, ids) if ids else []
    puts = _tell(one for one in found if format_owner(one) in owners)
    return puts, page[-1].id if len(page) == limit else ""


def _tell(budgets: Iterable[Budget]) -> Records:
    by_owner: dict[str, list[money.Budget]] = {}
    for budget in budgets:
        if budget.is_hard is not False:
            by_owner.setdefault(format_owner(budget), []).append(_told(budget))
    return dict(budgets_record(name_record(owner), tuple(told)) for owner, told in by_owner.items())


def _told(budget: Budget) -> money.Budget:
    if not is_usable(budget):
        return money.Budget(budget.id, "")
    return money.Budget(
        id=budget.id,
        currency=budget.currency,
        alias=budget.alias,
        per=budget.per,
        lowers_cap=budget.lowers_cap,
        exhausted_status=budget.exhausted_status,
        when_away=budget.when_away,
        label=budget.label,
    )
