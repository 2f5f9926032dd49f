"""What applying a document must know of plans and of owners' limits; see `catalog.apply`."""

from collections.abc import Iterable
from typing import Any

from penstock.catalog.apply.kind import Hands, Kind, Mention, Names
from penstock.catalog.apply.model import Change, Members, Wanted
from penstock.catalog.references import Identity
from penstock.catalog.written_rules import shorten_rules
from penstock.limits import owner_limits, plans, store
from penstock.limits.model import KeptRules, Limits, LimitsChanges, NewLimits, NewPlan, Owner, Plan
from penstock.limits.owners import find_owner
from penstock.limits.rule_forms import keep_rules, read_rules
from penstock.limits.rule_schemas import NewRuleBody, RuleBody
from penstock.limits.tables import Limits as LimitRows
from penstock.limits.tables import Plans


def _show_rules(item: Plan | Limits) -> list[dict[str, Any]]:
    """Return rules as a file has them; of a damaged row none."""
    try:
        limits = read_rules(item.id, item.rules)
    except ValueError:
        return []
    return shorten_rules(RuleBody.of(rule).model_dump(exclude={"id"}) for rule in limits)


def _keep_rules(rules: Iterable[dict[str, Any]]) -> KeptRules:
    return keep_rules(NewRuleBody.model_validate(rule).to_limit() for rule in rules)


async def _create_plan(hands: Hands, _: Names, identity: Identity, wanted: Wanted) -> str:
    new = NewPlan(name=str(identity[0]), rules=_keep_rules(wanted.members["rules"]))
    return (await plans.create_plan(hands.session, hands.actor, new)).id


async def _update_plan(hands: Hands, _: Names, object_id: str, change: Change) -> None:
    rules = _keep_rules((change.after or {})["rules"])
    await plans.update_plan(hands.session, hands.actor, object_id, {"rules": rules})


async def _delete_plan(hands: Hands, object_id: str) -> None:
    await plans.delete_plan(hands.session, hands.actor, object_id)


def owner_mentions(owner: Owner) -> list[Mention]:
    """Return an owner and all that it is in, as objects of a document."""
    pairs = (
        ("organizations", owner.organization_id),
        ("projects", owner.project_id),
        ("keys", owner.key_id),
        ("members", owner.member_id),
        ("service_accounts", owner.service_account_id),
    )
    return [(section, object_id) for section, object_id in pairs if object_id is not None]


def identify_owner(names: Names, owner: Owner) -> Identity:
    """Return what an entry for an owner is told by; a service account is told without project."""
    (organization,) = names.identity("organizations", owner.organization_id)
    is_account = owner.service_account_id is not None
    return (
        organization,
        None if is_account else names.name("projects", owner.project_id),
        names.name("keys", owner.key_id),
        names.name("members", owner.member_id),
        names.name("service_accounts", owner.service_account_id),
    )


def find_owner_id(names: Names, identity: Identity) -> dict[str, str | None]:
    """Return whom an identity names, as `owners.find_owner` takes it; None for who is not there."""
    organization, project, key, member, account = identity
    if key is not None:
        return {"key_id": names.find_id("keys", organization, project, key)}
    if member is not None:
        return {"member_id": names.find_id("members", organization, project, member)}
    if account is not None:
        account_id = names.find_id("service_accounts", organization, account)
        return {"service_account_id": account_id}
    if project is not None:
        return {"project_id": names.find_id("projects", organization, project)}
    return {"organization_id": names.find_id("organizations", organization)}


def _place_of_limits(names: Names, identity: Identity) -> dict[str, str] | None:
    organization_id = names.find_id("organizations", identity[0])
    if organization_id is None or None in find_owner_id(names, identity).values():
        return None
    return {"organization_id": organization_id}


def _members_of_limits(names: Names, limits: Limits) -> Members:
    return {"plan": names.name("plans", limits.plan_id), "rules": _show_rules(limits)}


def _limits_values(names: Names, members: Members) -> LimitsChanges:
    """Return members of limits as they are stored; only those that are given."""
    values: LimitsChanges = {}
    if "plan" in members:
        plan = members["plan"]
        values["plan_id"] = None if plan is None else names.id("plans", plan)
    if "rules" in members:
        values["rules"] = _keep_rules(members["rules"] or ())
    return values


async def _create_limits(hands: Hands, names: Names, identity: Identity, wanted: Wanted) -> str:
    owner = await find_owner(hands.session, find_owner_id(names, identity))
    new = NewLimits(owner=owner, **_limits_values(names, wanted.members))
    return (await owner_limits.create_limits(hands.session, hands.actor, new)).id


async def _update_limits(hands: Hands, names: Names, object_id: str, change: Change) -> None:
    after = {name: after for name, (_, after) in change.differences.items()}
    values = _limits_values(names, after)
    await owner_limits.update_limits(hands.session, hands.actor, object_id, values)


async def _delete_limits(hands: Hands, object_id: str) -> None:
    await owner_limits.delete_limits(hands.session, hands.actor, object_id)


PLANS = Kind(
    section="plans",
    objects=store.plans,
    table=Plans,
    place=lambda _, identity: {"name": str(identity[0])},
    owners=lambda _: [],
    identify=lambda _, plan: (plan.name,),
    members=lambda _, plan: {"rules": _show_rules(plan)},
    create=_create_plan,
    update=_update_plan,
    delete=_delete_plan,
)
LIMITS = Kind(
    section="limits",
    objects=store.limits,
    table=LimitRows,
    place=_place_of_limits,
    owners=owner_mentions,
    identify=identify_owner,
    mentions=lambda limits: [] if limits.plan_id is None else [("plans", limits.plan_id)],
    members=_members_of_limits,
    create=_create_limits,
    update=_update_limits,
    delete=_delete_limits,
)
KINDS = (PLANS, LIMITS)
