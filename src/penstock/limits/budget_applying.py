"""What applying a document must know of budgets; see `catalog.apply`, and `applying` for owners."""

from typing import Any

from sqlalchemy import exists

from penstock.catalog.apply.kind import Hands, Kind, Names
from penstock.catalog.apply.model import Change, Members, Wanted
from penstock.catalog.references import Identity
from penstock.limits import budget_store as store
from penstock.limits import budgets
from penstock.limits.applying import find_owner_id, identify_owner, owner_mentions
from penstock.limits.budget_model import Budget, BudgetChanges, NewBudget
from penstock.limits.budget_schemas import BudgetBody, read_amount
from penstock.limits.budget_tables import Budgets
from penstock.limits.owners import find_owner
from penstock.tenancy.tables import Members as MemberRows

_OWNER_FIELDS = 5
"""Of an identity: organization, project, key, member, service account."""
_MEMBERS = (
    "amount",
    "time_zone",
    "is_hard",
    "alert_percentages",
    "lowers_cap",
    "exhausted_status",
    "when_away",
)


def _place(names: Names, identity: Identity) -> dict[str, str] | None:
    organization_id = names.find_id("organizations", identity[0])
    owner = find_owner_id(names, identity[:_OWNER_FIELDS])
    if organization_id is None or None in owner.values():
        return None
    return {"organization_id": organization_id}


def _identify(names: Names, budget: Budget) -> Identity:
    slot = (budget.currency, budget.period, budget.alias, budget.per or None, budget.label)
    return (*identify_owner(names, budget), *slot)


def _members(_: Names, budget: Budget) -> Members:
    return BudgetBody.of(budget).model_dump(include=set(_MEMBERS))


def _values(members: Members) -> dict[str, Any]:
    """Return members of a budget as they are stored; only those that are given."""
    values = dict(members)
    if "amount" in values:
        values["amount"] = read_amount(values["amount"])
    return values


async def _create(hands: Hands, names: Names, identity: Identity, wanted: Wanted) -> str:
    owner = await find_owner(hands.session, find_owner_id(names, identity[:_OWNER_FIELDS]))
    currency, period, alias, per, label = identity[_OWNER_FIELDS:]
    slot = {"currency": currency, "period": period, "alias": alias, "label": label}
    new = NewBudget(owner=owner, **slot, per=per or "", **_values(wanted.members))  # type: ignore[arg-type]  # checked by the service
    return (await budgets.create_budget(hands.session, hands.actor, new)).id


async def _update(hands: Hands, _: Names, object_id: str, change: Change) -> None:
    after = {name: after for name, (_, after) in change.differences.items()}
    changes: BudgetChanges = {**_values(after)}  # type: ignore[typeddict-item]  # its names are ours
    await budgets.update_budget(hands.session, hands.actor, object_id, changes)


async def _delete(hands: Hands, object_id: str) -> None:
    await budgets.delete_budget(hands.session, hands.actor, object_id)


BUDGETS = Kind(
    section="budgets",
    objects=store.budgets,
    table=Budgets,
    # One of a person who has left is nobody's: no document can say whose it was.
    in_use=(
        Budgets.member_id.is_(None) | exists().where(MemberRows.id == Budgets.member_id),
        Budgets.is_wallet.is_(False),
    ),
    place=_place,
    owners=owner_mentions,
    identify=_identify,
    members=_members,
    create=_create,
    update=_update,
    delete=_delete,
    immutable=frozenset({"time_zone"}),
)
