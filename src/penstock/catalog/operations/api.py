"""HTTP endpoints of operations of engines."""

from typing import Annotated

from fastapi import Query, Response

from penstock.audit.door import operation
from penstock.catalog.endpoints import CallParameter, create_router
from penstock.catalog.errors import ENGINE_OPERATION_INVALID
from penstock.catalog.operations import service
from penstock.catalog.operations.schemas import (
    EngineOperationBody,
    EngineOperationPage,
    EngineOperationsQuery,
    NewEngineOperationBody,
)
from penstock.storage.errors import OBJECT_UNKNOWN, PAGE_CURSOR_INVALID
from penstock.storage.sessions import WriteSession

engine_operations = create_router("engine_operations")


@engine_operations.get(
    "",
    summary="List operations of engines, oldest first",
    response_model=EngineOperationPage,
    **operation("engines:list_operations", PAGE_CURSOR_INVALID),
)
async def list_engine_operations(
    call: CallParameter, query: Annotated[EngineOperationsQuery, Query()]
) -> Response:
    """List operations of engines, oldest first."""
    page = query.to_page()
    async with call.read() as session:
        found = await service.list_operations(session, page, upstream_id=query.upstream_id)
    shown = [EngineOperationBody.at(each, call.actor.at_us) for each in found.items]
    return call.answer(EngineOperationPage(data=shown, next_cursor=found.next_cursor))


@engine_operations.get(
    "/{engine_operation_id}",
    summary="Show an operation of engines, and what came of it",
    response_model=EngineOperationBody,
    **operation("engines:get_operation", is_of_object=True),
)
async def get_engine_operation(call: CallParameter, engine_operation_id: str) -> Response:
    """Show an operation of engines, and what came of it."""
    async with call.read() as session:
        found = await service.get_operation(session, engine_operation_id)
    return call.answer(EngineOperationBody.at(found, call.actor.at_us))


@engine_operations.post(
    "",
    status_code=201,
    summary="Have engines do what callers cannot ask of them",
    description="One node does it, once, at all endpoints of the upstream, or at one.",
    response_model=EngineOperationBody,
    **operation("engines:operate", ENGINE_OPERATION_INVALID, OBJECT_UNKNOWN, is_change=True),
)
async def create_engine_operation(call: CallParameter, body: NewEngineOperationBody) -> Response:
    """Have engines do what callers cannot ask of them."""

    async def work(session: WriteSession) -> EngineOperationBody:
        created = await service.create_operation(session, call.actor, body.to_new())
        return EngineOperationBody.at(created, call.actor.at_us)

    return await call.change(work, status=201)
