"""Money between nodes and the database: holds that nodes ask for and give back."""

from collections.abc import Callable
from typing import Annotated, TypeVar

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from penstock.audit.door import problem_responses
from penstock.contract.money import FreeRequest, HoldRequest
from penstock.control.door import read_body
from penstock.control.errors import BODY_TOO_LARGE, HOLDS_INVALID
from penstock.control.messages import (
    MESSAGE_CONTENT,
    MESSAGE_TYPE,
    decode_message,
    describe_message,
)
from penstock.kit.clock import Clock
from penstock.kit.errors import PenstockError
from penstock.ledger.prepaying import find_lapses
from penstock.limits.budget_holds import free, hold
from penstock.limits.budget_messages import find_free_fault, find_hold_fault
from penstock.storage.database import Database
from penstock.storage.errors import UNAVAILABLE
from penstock.storage.scope import Scope

Message = TypeVar("Message", HoldRequest, FreeRequest)


def create_holds_router(
    database: Database, clock: Clock, authenticate: Callable[..., Scope]
) -> APIRouter:
    """Return the endpoints that nodes ask for holds and give them back at.

    Args:
        database: Where budgets are.
        clock: Says when something was asked for.
        authenticate: Checks a node's token.
    """
    router = APIRouter(prefix="/internal/v1/holds", tags=["node"])
    errors = problem_responses(HOLDS_INVALID, BODY_TOO_LARGE, UNAVAILABLE)

    # The scope is asked for first, so that nobody makes us read a body without a token.
    @router.post(
        "",
        summary="Hold something of budgets for a life of a worker",
        description="All or nothing. Repeated under its `take_id` it holds nothing more.",
        openapi_extra=describe_message("A `HoldRequest` as MessagePack."),
        response_class=Response,
        responses={200: {"content": MESSAGE_CONTENT}, **errors},
    )
    async def hold_money(
        scope: Annotated[Scope, Depends(authenticate)], request: Request
    ) -> Response:
        asked = _decode(await read_body(request), HoldRequest, find_hold_fault)
        async with database.write(scope) as session:
            answer = await hold(session, asked, clock.wall_ns() // 1_000, find_lapses)
        return Response(msgspec.msgpack.encode(answer), media_type=MESSAGE_TYPE)

    @router.post(
        "/free",
        status_code=204,
        summary="Give back what of holds is not used",
        description="Repeated, it gives back nothing more.",
        openapi_extra=describe_message("A `FreeRequest` as MessagePack."),
        response_class=Response,
        responses=errors,
    )
    async def free_money(
        scope: Annotated[Scope, Depends(authenticate)], request: Request
    ) -> Response:
        asked = _decode(await read_body(request), FreeRequest, find_free_fault)
        async with database.write(scope) as session:
            await free(session, asked, clock.wall_ns() // 1_000)
        return Response(status_code=204)

    return router


def _decode(
    content: bytes, kind: type[Message], find_fault: Callable[[Message], str | None]
) -> Message:
    message = decode_message(content, kind, HOLDS_INVALID)
    fault = find_fault(message)
    if fault is not None:
        raise PenstockError(HOLDS_INVALID, fault)
    return message
