"""HTTP endpoints of what rates stored usage again: runs and simulations."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from penstock.audit.door import AdminRoute, Call, get_call, operation
from penstock.catalog.endpoints import create_router
from penstock.rating.books import get_book
from penstock.rating.errors import RUN_INVALID, RUN_WAITS
from penstock.rating.rerating import Post
from penstock.rating.run_schemas import (
    NewRunBody,
    RunBody,
    RunPage,
    RunsQuery,
    RunStepBody,
    SimulationBody,
    SimulationQuery,
)
from penstock.rating.runs import begin_run, continue_run, get_run, list_runs
from penstock.rating.simulation import simulate
from penstock.storage.errors import OBJECT_UNKNOWN, PAGE_CURSOR_INVALID
from penstock.storage.sessions import WriteSession

_Call = Annotated[Call, Depends(get_call)]


def create_run_routers(post: Post) -> list[APIRouter]:
    """Return the endpoints.

    Args:
        post: Books differences in the ledger.
    """
    return [_create_runs(post), _create_simulations()]


def _create_runs(post: Post) -> APIRouter:
    router = create_router("price_runs")

    @router.post(
        "",
        status_code=201,
        summary="Begin to rate stored usage again",
        description="Nothing is rated yet: ask for `/steps` until it is finished.",
        response_model=RunBody,
        **operation("price_runs:create", RUN_INVALID, OBJECT_UNKNOWN, is_change=True),
    )
    async def create_run(call: _Call, body: NewRunBody) -> Response:
        async def work(session: WriteSession) -> RunBody:
            return RunBody.of(await begin_run(session, call.actor, **body.to_new()))

        return await call.change(work, status=201)

    @router.get(
        "",
        summary="List runs, oldest first",
        response_model=RunPage,
        **operation("price_runs:list", PAGE_CURSOR_INVALID),
    )
    async def list_price_runs(call: _Call, query: Annotated[RunsQuery, Query()]) -> Response:
        async with call.read() as session:
            found = await list_runs(session, query.to_page(), query.organization)
        return call.answer(RunPage.of(found))

    @router.get(
        "/{price_run_id}",
        summary="Show how far a run is",
        response_model=RunBody,
        **operation("price_runs:get", is_of_object=True),
    )
    async def show_run(call: _Call, price_run_id: str) -> Response:
        async with call.read() as session:
            found = await get_run(session, price_run_id)
        return call.answer(RunBody.of(found))

    @router.post(
        "/steps",
        summary="Rate the next events of a run again",
        description="At most 500 in one transaction; what changes is booked as a difference.",
        response_model=RunBody,
        **operation("price_runs:step", OBJECT_UNKNOWN, RUN_WAITS, is_change=True),
    )
    async def step_run(call: _Call, body: RunStepBody) -> Response:
        async def work(session: WriteSession) -> RunBody:
            return RunBody.of(await continue_run(session, call.actor, body.price_run_id, post))

        return await call.change(work)

    return router


def _create_simulations() -> APIRouter:
    router = APIRouter(prefix="/api/v1/price_books", tags=["price_books"], route_class=AdminRoute)

    @router.get(
        "/{price_book_id}/simulation",
        summary="Show what usage would have cost by a book",
        description="Nothing is booked. Steps begin with the first event and with each month.",
        response_model=SimulationBody,
        **operation("price_books:simulate", RUN_INVALID, is_of_object=True),
    )
    async def show(
        call: _Call, price_book_id: str, asked: Annotated[SimulationQuery, Query()]
    ) -> Response:
        async with call.read() as session:
            book = await get_book(session, price_book_id)
            found = await simulate(session, book_id=book.id, **asked.to_filter(call.actor.at_us))
        return call.answer(SimulationBody.build(book.id, book.currency, found))

    return router
