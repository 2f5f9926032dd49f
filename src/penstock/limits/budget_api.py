"""HTTP endpoints of budgets and holds."""

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeAlias

from fastapi import APIRouter, Query, Response

from penstock.access.errors import OPERATION_DENIED
from penstock.audit.door import Call, operation
from penstock.catalog.aliases import list_aliases
from penstock.catalog.endpoints import CallParameter, create_router
from penstock.limits import budgets as service
from penstock.limits.budget_model import Budget
from penstock.limits.budget_schemas import (
    BudgetBody,
    BudgetChangesBody,
    BudgetPage,
    BudgetsQuery,
    BudgetStateBody,
    BudgetWindowBody,
    HoldBody,
    HoldPage,
    HoldsQuery,
    NewBudgetBody,
)
from penstock.limits.errors import BUDGET_EXISTS, BUDGET_INVALID, BUDGET_IS_WALLET, LIMITS_INVALID
from penstock.limits.owners import find_owner, require_above
from penstock.storage.errors import OBJECT_UNKNOWN, PAGE_CURSOR_INVALID
from penstock.storage.paging import PageRequest
from penstock.storage.sessions import ReadSession, WriteSession
from penstock.tenancy.errors import STATUS_CONFLICT

MAX_ALIASES = 1_000
"""How many aliases are looked at for prices."""

ListUnpriced: TypeAlias = Callable[[ReadSession, list[str], str, str], Awaitable[list[str]]]
"""Returns those of some aliases that have no price in a currency for an organization: `rating`
knows, above us."""

budgets = create_router("budgets")
holds = create_router("holds")


def create_budgets_router(list_unpriced: ListUnpriced) -> APIRouter:
    """Return the endpoints of budgets that tell of prices; the others need nothing handed in.

    Args:
        list_unpriced: See there.
    """
    router = create_router("budgets")

    async def show(call: Call, session: ReadSession, budget: Budget) -> BudgetStateBody:
        aliases = [budget.alias]
        if budget.alias is None:
            page = PageRequest(limit=MAX_ALIASES)
            found = await list_aliases(session, page, project_id=call.project_id)
            aliases = [alias.name for alias in found.items]
        names = [name for name in aliases if name is not None]
        unpriced = await list_unpriced(session, names, budget.currency, budget.organization_id)
        uses = await service.list_uses(session, budget)
        windows = [BudgetWindowBody.of(use) for use in uses]
        return BudgetStateBody.of(budget, windows=windows, unpriced_aliases=unpriced)

    @router.post(
        "",
        status_code=201,
        summary="Let an organization, project, key, member or service account spend an amount",
        description=(
            "Name one of them. Requests of a key count for all that it belongs to, and every hard "
            "budget must have enough. Organizations set budgets for what is in them, the platform "
            "for organizations."
        ),
        response_model=BudgetStateBody,
        **operation(
            "budgets:create",
            BUDGET_INVALID,
            LIMITS_INVALID,
            BUDGET_EXISTS,
            STATUS_CONFLICT,
            OPERATION_DENIED,
            OBJECT_UNKNOWN,
            is_change=True,
        ),
    )
    async def create_budget(call: CallParameter, body: NewBudgetBody) -> Response:
        """Let somebody spend an amount."""

        async def work(session: WriteSession) -> BudgetStateBody:
            owner = await find_owner(session, dict(body))
            require_above(call, owner)
            budget = await service.create_budget(session, call.actor, body.to_new(owner))
            return await show(call, session, budget)

        return await call.change(work, status=201)

    @router.get(
        "/{budget_id}",
        summary="Show a budget and what is spent of it",
        response_model=BudgetStateBody,
        **operation("budgets:get", is_of_object=True),
    )
    async def get_budget(call: CallParameter, budget_id: str) -> Response:
        """Show a budget and what is spent of it."""
        async with call.read() as session:
            found = await service.get_budget(session, budget_id)
            call.check(organization_id=found.organization_id, project_id=found.project_id)
            body = await show(call, session, found)
        return call.answer(body)

    return router


@budgets.get(
    "",
    summary="List budgets, oldest first",
    response_model=BudgetPage,
    **operation("budgets:list", PAGE_CURSOR_INVALID),
)
async def list_budgets(call: CallParameter, query: Annotated[BudgetsQuery, Query()]) -> Response:
    """List budgets, oldest first."""
    filters = query.model_dump(exclude={"limit", "cursor"})
    filters["project_id"] = call.narrow(query.organization_id, query.project_id)
    async with call.read() as session:
        found = await service.list_budgets(session, query.to_page(), **filters)
    return call.answer(BudgetPage.of(found))


@budgets.patch(
    "/{budget_id}",
    summary="Change a budget",
    description="A lower amount takes nothing back that workers hold.",
    response_model=BudgetBody,
    **operation(
        "budgets:update",
        BUDGET_INVALID,
        BUDGET_IS_WALLET,
        STATUS_CONFLICT,
        OPERATION_DENIED,
        is_change=True,
        is_of_object=True,
    ),
)
async def update_budget(call: CallParameter, budget_id: str, body: BudgetChangesBody) -> Response:
    """Change a budget."""

    async def work(session: WriteSession) -> BudgetBody:
        require_above(call, await service.get_budget(session, budget_id))
        updated = await service.update_budget(
            session,
            call.actor,
            budget_id,
            body.to_changes(),
            expected_version=call.expected_version,
        )
        return BudgetBody.of(updated)

    return await call.change(work)


@budgets.delete(
    "/{budget_id}",
    status_code=204,
    response_class=Response,
    summary="Delete a budget for good, with what was spent of it; usage stays",
    **operation(
        "budgets:delete", BUDGET_IS_WALLET, OPERATION_DENIED, is_change=True, is_of_object=True
    ),
)
async def delete_budget(call: CallParameter, budget_id: str) -> Response:
    """Delete a budget for good."""

    async def work(session: WriteSession) -> None:
        require_above(call, await service.get_budget(session, budget_id))
        await service.delete_budget(
            session, call.actor, budget_id, expected_version=call.expected_version
        )

    return await call.change(work)


@holds.get(
    "",
    summary="List what workers hold of budgets, oldest first",
    response_model=HoldPage,
    **operation("holds:list", PAGE_CURSOR_INVALID),
)
async def list_holds(call: CallParameter, query: Annotated[HoldsQuery, Query()]) -> Response:
    """List what workers hold of budgets, oldest first."""
    filters = query.model_dump(exclude={"limit", "cursor"})
    filters["project_id"] = call.narrow(query.organization_id, query.project_id)
    async with call.read() as session:
        found = await service.list_holds(session, query.to_page(), **filters)
        ids = {hold.window.budget_id for hold in found.items}
        held_of = await service.find_budgets(session, ids)
    data = [HoldBody.of(hold, budget=held_of.get(hold.window.budget_id)) for hold in found.items]
    return call.answer(HoldPage(data=data, next_cursor=found.next_cursor))
