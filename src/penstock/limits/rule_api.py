"""HTTP endpoints of plans and limits."""

from typing import Annotated

from fastapi import Query, Response

from penstock.access.errors import OPERATION_DENIED
from penstock.audit.door import Call, operation
from penstock.catalog.endpoints import CallParameter, Noun, create_router
from penstock.catalog.errors import CATALOG_IN_USE
from penstock.kit.errors import PenstockError
from penstock.limits import owner_limits, rule_use
from penstock.limits import plans as plan_service
from penstock.limits.errors import LIMITS_EXIST, LIMITS_INVALID
from penstock.limits.model import Limits, NewLimits
from penstock.limits.owners import find_owner, require_above
from penstock.limits.rule_schemas import (
    LimitsBody,
    LimitsChangesBody,
    LimitsPage,
    LimitsQuery,
    NewLimitsBody,
    NewPlanBody,
    PlanBody,
    PlanChangesBody,
    PlanPage,
    PlansQuery,
    UsedRuleBody,
    UsedRulesBody,
    UseQuery,
)
from penstock.storage.errors import OBJECT_UNKNOWN, PAGE_CURSOR_INVALID
from penstock.storage.sessions import ReadSession, WriteSession
from penstock.tenancy.errors import NAME_TAKEN, STATUS_CONFLICT

plans = create_router("plans")
limits = create_router("limits")

_plan = Noun(router=plans, name="plan", plural="plans", body=PlanBody, invalid=LIMITS_INVALID)
_plan.add_reads(PlanPage, PlansQuery, get=plan_service.get_plan, find=plan_service.list_plans)
_plan.add_create(NewPlanBody, plan_service.create_plan, NAME_TAKEN)
_plan.add_update(PlanChangesBody, plan_service.update_plan)
_plan.add_delete(plan_service.delete_plan, CATALOG_IN_USE)


@limits.post(
    "",
    status_code=201,
    summary="Limit an organization, a project, a key, a member or a service account",
    description=(
        "Name one of them. Rules of all that a key belongs to hold, the tightest decides. "
        "Organizations limit what is in them; the platform limits organizations, and gives plans."
    ),
    response_model=LimitsBody,
    **operation(
        "limits:create",
        LIMITS_INVALID,
        LIMITS_EXIST,
        STATUS_CONFLICT,
        OPERATION_DENIED,
        OBJECT_UNKNOWN,
        is_change=True,
    ),
)
async def create_limits(call: CallParameter, body: NewLimitsBody) -> Response:
    """Limit an organization, a project, a key, a member or a service account."""

    async def work(session: WriteSession) -> LimitsBody:
        owner = await find_owner(session, dict(body))
        require_above(call, owner)
        _require_platform(call, has_plan=body.plan_id is not None)
        new = NewLimits(owner=owner, plan_id=body.plan_id, rules=body.to_rules())
        return LimitsBody.of(await owner_limits.create_limits(session, call.actor, new))

    return await call.change(work, status=201)


@limits.get(
    "",
    summary="List whom limits are set for, oldest first",
    response_model=LimitsPage,
    **operation("limits:list", PAGE_CURSOR_INVALID),
)
async def list_limits(call: CallParameter, query: Annotated[LimitsQuery, Query()]) -> Response:
    """List whom limits are set for, oldest first."""
    filters = query.model_dump(exclude={"limit", "cursor"})
    filters["project_id"] = call.narrow(query.organization_id, query.project_id)
    async with call.read() as session:
        found = await owner_limits.list_limits(session, query.to_page(), **filters)
    return call.answer(LimitsPage.of(found))


@limits.get(
    "/use",
    summary="Show the rules that bear on somebody, and how much of them is used",
    description="Its own rules and those of all above it. Name one of them.",
    response_model=UsedRulesBody,
    **operation("limits:read_use", LIMITS_INVALID, OBJECT_UNKNOWN),
)
async def list_used_limits(call: CallParameter, query: Annotated[UseQuery, Query()]) -> Response:
    """Show the rules that bear on somebody, and how much of them is used."""
    async with call.read() as session:
        owner = await find_owner(session, dict(query))
        call.check(organization_id=owner.organization_id, project_id=owner.project_id)
        found = await rule_use.list_in_force(session, owner, call.actor.at_us)
    # Who has a role in one project learns nothing of what goes on in others.
    data = [
        UsedRuleBody.of_rule(one, is_use_told=call.project_id in {None, one.owner.project_id})
        for one in found
    ]
    return call.answer(UsedRulesBody(data=data))


@limits.get(
    "/{limits_id}",
    summary="Show what limits somebody",
    response_model=LimitsBody,
    **operation("limits:get", is_of_object=True),
)
async def get_limits(call: CallParameter, limits_id: str) -> Response:
    """Show what limits somebody."""
    async with call.read() as session:
        found = await owner_limits.get_limits(session, limits_id)
    call.check(organization_id=found.organization_id, project_id=found.project_id)
    return call.answer(LimitsBody.of(found))


@limits.patch(
    "/{limits_id}",
    summary="Give somebody another plan or other rules",
    response_model=LimitsBody,
    **operation(
        "limits:update",
        LIMITS_INVALID,
        STATUS_CONFLICT,
        OPERATION_DENIED,
        is_change=True,
        is_of_object=True,
    ),
)
async def update_limits(call: CallParameter, limits_id: str, body: LimitsChangesBody) -> Response:
    """Give somebody another plan or other rules."""

    async def work(session: WriteSession) -> LimitsBody:
        changes = body.to_changes()
        await _require_changeable(call, session, limits_id)
        _require_platform(call, has_plan="plan_id" in changes)
        updated = await owner_limits.update_limits(
            session, call.actor, limits_id, changes, expected_version=call.expected_version
        )
        return LimitsBody.of(updated)

    return await call.change(work)


@limits.delete(
    "/{limits_id}",
    status_code=204,
    response_class=Response,
    summary="Limit somebody no more; limits of all above still hold",
    **operation("limits:delete", OPERATION_DENIED, is_change=True, is_of_object=True),
)
async def delete_limits(call: CallParameter, limits_id: str) -> Response:
    """Limit somebody no more."""

    async def work(session: WriteSession) -> None:
        await _require_changeable(call, session, limits_id)
        await owner_limits.delete_limits(
            session, call.actor, limits_id, expected_version=call.expected_version
        )

    return await call.change(work)


async def _require_changeable(call: Call, session: ReadSession, limits_id: str) -> None:
    found: Limits = await owner_limits.get_limits(session, limits_id)
    require_above(call, found)
    _require_platform(call, has_plan=found.plan_id is not None)


def _require_platform(call: Call, *, has_plan: bool) -> None:
    """Check that nobody but the platform gives plans, or makes rules instead of theirs."""
    if has_plan and call.organization_id is not None:
        raise PenstockError(OPERATION_DENIED, "Plans are the platform's.")
