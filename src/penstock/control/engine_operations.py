"""Operations of engines, as nodes take them and say what came of them."""

import asyncio
import re
from collections.abc import Callable
from typing import Annotated, TypeVar

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from penstock.audit.door import problem_responses
from penstock.catalog.operations import service
from penstock.contract.operations import MAX_WAIT_S, Claim, ClaimRequest, OutcomeReport
from penstock.control.door import read_body
from penstock.control.errors import BODY_TOO_LARGE, NODE_REQUEST_INVALID
from penstock.control.feed import POLL_S, is_over
from penstock.control.messages import (
    MESSAGE_CONTENT,
    MESSAGE_TYPE,
    decode_message,
    describe_message,
)
from penstock.kit.clock import Clock
from penstock.kit.errors import PenstockError
from penstock.storage.database import Database
from penstock.storage.errors import OBJECT_UNKNOWN, UNAVAILABLE
from penstock.storage.scope import Scope

FOREIGN_POLL_S = 1.0
"""How often an open question asks the database, in case another process wants something."""
_NODE_ID = re.compile(r"[!-~]{1,64}")

Message = TypeVar("Message", ClaimRequest, OutcomeReport)


def create_engine_operations_router(
    database: Database, clock: Clock, authenticate: Callable[..., Scope]
) -> APIRouter:
    """Return the endpoints that nodes take operations from and report to.

    Args:
        database: Where operations are kept.
        clock: Says which are too old.
        authenticate: Checks a node's token.
    """
    router = APIRouter(prefix="/internal/v1/engine_operations", tags=["node"])
    errors = problem_responses(NODE_REQUEST_INVALID, BODY_TOO_LARGE, UNAVAILABLE)

    # The scope is asked for first, so that nobody makes us read a body without a token.
    @router.post(
        "/claim",
        summary="Take an operation that engines are to do",
        description=(
            "Answers at once or as soon as there is one; 204 when there is none. No other node is "
            "given the same one."
        ),
        openapi_extra=describe_message("A `ClaimRequest` as MessagePack."),
        response_class=Response,
        responses={
            200: {"content": MESSAGE_CONTENT},
            204: {"description": "Nothing is wanted."},
            **errors,
        },
    )
    async def claim_engine_operation(
        scope: Annotated[Scope, Depends(authenticate)], request: Request
    ) -> Response:
        asked = _decode(await read_body(request), ClaimRequest)
        found = await _claim(database, clock, scope, asked, request)
        if found is None:
            return Response(status_code=204)
        return Response(msgspec.msgpack.encode(found), media_type=MESSAGE_TYPE)

    @router.post(
        "/outcome",
        status_code=204,
        summary="Say what came of an operation",
        description="Repeated, it changes nothing.",
        openapi_extra=describe_message("An `OutcomeReport` as MessagePack."),
        response_class=Response,
        responses={**errors, **problem_responses(OBJECT_UNKNOWN)},
    )
    async def finish_engine_operation(
        scope: Annotated[Scope, Depends(authenticate)], request: Request
    ) -> Response:
        report = _decode(await read_body(request), OutcomeReport)
        async with database.write(scope) as session:
            await service.finish(session, report, clock.wall_ns() // 1_000)
        return Response(status_code=204)

    return router


async def _claim(
    database: Database, clock: Clock, scope: Scope, asked: ClaimRequest, request: Request
) -> Claim | None:
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + min(max(asked.wait_s, 0.0), MAX_WAIT_S)
    while True:
        commits, looked_s = database.commit_count, loop.time()
        now_us = clock.wall_ns() // 1_000
        async with database.read(scope) as session:
            is_wanted = await service.has_waiting(session, now_us)
        if is_wanted:
            async with database.write(scope) as session:
                found = await service.claim(session, asked.node_id, now_us)
            if found is not None:  # else another node was faster
                return found
        while commits == database.commit_count and loop.time() < looked_s + FOREIGN_POLL_S:
            if loop.time() >= deadline_s or await is_over(request):
                return None
            await asyncio.sleep(POLL_S)
        if loop.time() >= deadline_s:
            return None


def _decode(content: bytes, kind: type[Message]) -> Message:
    message = decode_message(content, kind, NODE_REQUEST_INVALID)
    if _NODE_ID.fullmatch(message.node_id) is None:
        raise PenstockError(NODE_REQUEST_INVALID, "It names no node.")
    return message
