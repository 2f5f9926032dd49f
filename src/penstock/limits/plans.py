"""Use cases of plans. See `catalog.collection` for what kinds of objects have in common."""

from penstock.audit.model import Actor
from penstock.catalog.collection import Collection
from penstock.catalog.rules import check_name
from penstock.kit.errors import PenstockError
from penstock.limits import store
from penstock.limits.errors import LIMITS_INVALID
from penstock.limits.model import NewPlan, Plan, PlanChanges
from penstock.limits.rule_checks import check_named, parse_rules
from penstock.storage.paging import Page, PageRequest
from penstock.storage.sessions import ReadSession, WriteSession


async def create_plan(session: WriteSession, actor: Actor, new: NewPlan) -> Plan:
    """Create a plan.

    Raises:
        PenstockError: `LIMITS_INVALID`, `NAME_TAKEN`.
    """
    return await _plans.create(session, actor, new)


async def get_plan(session: ReadSession, plan_id: str) -> Plan:
    """Return a plan.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`.
    """
    return await store.plans.get(session, session.scope, plan_id)


async def list_plans(
    session: ReadSession, page: PageRequest, *, name: str | None = None
) -> Page[Plan]:
    """Return plans, oldest first."""
    return await store.plans.list(session, session.scope, page, name=name)


async def update_plan(
    session: WriteSession,
    actor: Actor,
    plan_id: str,
    changes: PlanChanges,
    *,
    expected_version: int | None = None,
) -> Plan:
    """Change the rules of a plan, for all that have it.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `VERSION_CONFLICT`, `LIMITS_INVALID`.
    """
    return await _plans.update(session, actor, plan_id, changes, expected_version)


async def delete_plan(
    session: WriteSession, actor: Actor, plan_id: str, *, expected_version: int | None = None
) -> None:
    """Remove a plan that nobody has.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `VERSION_CONFLICT`, `CATALOG_IN_USE`.
    """
    await _plans.delete(session, actor, plan_id, expected_version)


def _check(plan: Plan) -> Plan:
    try:
        check_name(plan.name)
    except ValueError as error:
        raise PenstockError(LIMITS_INVALID, f"`name`: {error}.") from None
    parse_rules(plan.id, plan.rules)
    return plan


async def _check_references(session: ReadSession, plan: Plan) -> None:
    await check_named(session, parse_rules(plan.id, plan.rules))


_plans = Collection(
    "plan",
    Plan,
    "pln",
    store.plans,
    _check_references,
    check=_check,
    list_users=store.list_plan_users,
)
