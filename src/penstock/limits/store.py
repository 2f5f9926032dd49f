"""Every SQL statement about plans, owners' limits and their use, each within a scope.

Plans are the platform's: no organization's scope reaches them, but for the name of one that it has.
"""

from collections.abc import Collection, Sequence

from sqlalchemy import exists, or_

from penstock.limits.model import Limits, Plan
from penstock.limits.tables import Limits as LimitRows
from penstock.limits.tables import Plans
from penstock.storage.objects import ObjectStore
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession

plans = ObjectStore(Plans, Plan, None)
limits = ObjectStore(LimitRows, Limits, "organization_id")

_PLATFORM = Scope.all_organizations()
_OWNERS = (LimitRows.key_id, LimitRows.member_id, LimitRows.service_account_id)


async def list_limits_of(
    session: ReadSession, scope: Scope, owner_ids: Collection[str]
) -> Sequence[Limits]:
    """Return the limits of owners: organizations, projects, keys, members and accounts, by id."""
    own = (
        (LimitRows.owner_kind == "organization") & LimitRows.organization_id.in_(owner_ids),
        (LimitRows.owner_kind == "project") & LimitRows.project_id.in_(owner_ids),
    )
    others = (column.in_(owner_ids) for column in _OWNERS)
    return await limits.list_by_id(session, scope, or_(*own, *others))


async def list_plans_of(
    session: ReadSession, scope: Scope, names: Collection[str]
) -> Sequence[Plan]:
    """Return the plans of these names."""
    return await plans.list_by_id(session, scope, Plans.name.in_(names))


async def find_assigned_plans(
    session: ReadSession, scope: Scope, plan_ids: Collection[str]
) -> dict[str, Plan]:
    """Return plans by id; those that limits within the scope name, and no others."""
    is_assigned = exists().where(
        LimitRows.plan_id == Plans.id, scope.where(LimitRows.organization_id)
    )
    found = await plans.list_by_id(session, _PLATFORM, Plans.id.in_(plan_ids), is_assigned)
    return {plan.id: plan for plan in found}
