"""HTTP endpoints of the metering room."""

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response

from penstock.audit.door import AdminRoute, Call, get_call, operation, problem_responses
from penstock.contract.usage import (
    PLACES_PATH,
    PlacesAnswer,
    PlacesQuestion,
    StoredPlace,
    UsageBatch,
    decode_batch,
)
from penstock.kit.errors import PenstockError
from penstock.metering import service
from penstock.metering.errors import (
    BATCH_INVALID,
    BATCH_TOO_LARGE,
    CURSOR_INVALID,
    PLACES_INVALID,
)
from penstock.metering.intake import Take
from penstock.metering.model import UsageFilter
from penstock.metering.schemas import (
    FilterQuery,
    ReceiptBody,
    TotalsBody,
    TotalsQuery,
    UsagePageBody,
    UsageQuery,
)
from penstock.metering.visibility import narrow
from penstock.storage.database import Database
from penstock.storage.errors import OBJECT_UNKNOWN, UNAVAILABLE
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession

MAX_BODY_BYTES = 8 * 1024 * 1024

_WHOSE = (
    "A key with scope `usage:read` or `admin` sees the usage of its organization, one with a role "
    "in a single project that of its project."
)

Authenticate = Callable[..., Scope]
"""A FastAPI dependency that says whose data the caller may touch, or raises."""

_TYPE = "application/msgpack"
_CONTENT: dict[str, Any] = {_TYPE: {"schema": {"type": "string", "format": "binary"}}}


def _body(description: str) -> dict[str, Any]:
    return {
        "requestBody": {"required": True, "description": description, "content": _CONTENT},
    }


_Call = Annotated[Call, Depends(get_call)]

usage = APIRouter(prefix="/api/v1/usage", tags=["usage"], route_class=AdminRoute)


def create_node_router(database: Database, authenticate: Authenticate, take: Take) -> APIRouter:
    """Return the endpoints that nodes use.

    Args:
        database: Where usage is kept.
        authenticate: Checks a node's token.
        take: Stores a batch.
    """
    router = APIRouter(tags=["node"])

    # The scope is asked for first, so that nobody makes us read a body without a token.
    @router.post(
        "/node/v1/usage",
        summary="Store a batch of usage events",
        description=(
            "Idempotent by `event_id`: after a failure, or without an answer, send the same batch "
            "again. 200 means that every event is on disk."
        ),
        openapi_extra=_body("A `UsageBatch` as MessagePack, at most 500 events and 8 MiB."),
        responses=problem_responses(BATCH_INVALID, BATCH_TOO_LARGE, UNAVAILABLE),
    )
    async def record_usage(
        scope: Annotated[Scope, Depends(authenticate)], request: Request
    ) -> ReceiptBody:
        batch = _decode(await _read_body(request))
        return ReceiptBody.from_receipt(await take(batch, scope))

    @router.post(
        PLACES_PATH,
        summary="Say how far journals are stored",
        description="A node ships again from there what it has of a journal that is stored less.",
        openapi_extra=_body("A `PlacesQuestion` as MessagePack, of at most 500 lives."),
        response_class=Response,
        responses={
            200: {"content": _CONTENT},
            **problem_responses(PLACES_INVALID, BATCH_TOO_LARGE, UNAVAILABLE),
        },
    )
    async def list_places(
        scope: Annotated[Scope, Depends(authenticate)], request: Request
    ) -> Response:
        question = _decode_question(await _read_body(request))
        async with database.read(scope) as session:
            lives = [(life.producer, life.epoch) for life in question.lives]
            places = await service.list_places(session, lives)
        answer = PlacesAnswer(tuple(StoredPlace(*place) for place in places))
        return Response(msgspec.msgpack.encode(answer), media_type=_TYPE)

    return router


@usage.get(
    "",
    summary="List usage events, oldest first",
    description=f"Follow `next_cursor` until it is null to see each event once. {_WHOSE}",
    response_model=UsagePageBody,
    **operation("usage:read", CURSOR_INVALID, OBJECT_UNKNOWN),
)
async def list_usage(call: _Call, query: Annotated[UsageQuery, Query()]) -> Response:
    """List usage events, oldest first."""
    async with call.read() as session:
        usage_filter = await _find_filter(call, session, query)
        page = await service.list_usage(
            session, session.scope, usage_filter, cursor=query.cursor, limit=query.limit
        )
    return call.answer(UsagePageBody.from_page(page))


@usage.get(
    "/totals",
    summary="Add up requests and tokens by group",
    description=_WHOSE,
    response_model=TotalsBody,
    **operation("usage:read", OBJECT_UNKNOWN),
)
async def total_usage(call: _Call, query: Annotated[TotalsQuery, Query()]) -> Response:
    """Add up requests and tokens by group."""
    async with call.read() as session:
        usage_filter = await _find_filter(call, session, query)
        totals = await service.total_usage(session, session.scope, usage_filter, query.by)
    return call.answer(TotalsBody.from_totals(totals, query.by))


async def _find_filter(call: Call, session: ReadSession, query: FilterQuery) -> UsageFilter:
    """Return which usage is meant and may be seen."""
    project = await narrow(
        call,
        session,
        organization=query.organization,
        project=query.project,
        key_id=query.key_id,
    )
    return query.to_filter(project)


async def _read_body(request: Request) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > MAX_BODY_BYTES:
        raise PenstockError(BATCH_TOO_LARGE)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise PenstockError(BATCH_TOO_LARGE)
    return bytes(body)


def _decode_question(body: bytes) -> PlacesQuestion:
    try:
        return msgspec.msgpack.decode(body, type=PlacesQuestion)
    except ValueError as error:
        raise PenstockError(PLACES_INVALID, f"It cannot be read: {error}") from None


def _decode(body: bytes) -> UsageBatch:
    try:
        return decode_batch(body)
    except msgspec.ValidationError as error:
        # Its words are for the node that sent the body, and name the event by its place in it.
        raise PenstockError(BATCH_INVALID, f"not a usage batch: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PenstockError(BATCH_INVALID) from error
