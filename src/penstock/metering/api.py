"""HTTP endpoints of the metering room."""

from collections.abc import Callable
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Request

from penstock.contract.usage import UsageBatch, decode_batch
from penstock.kit.clock import Clock
from penstock.kit.errors import PenstockError
from penstock.metering import service
from penstock.metering.errors import BATCH_INVALID, BATCH_TOO_LARGE
from penstock.metering.model import Delivery
from penstock.metering.schemas import (
    ReceiptBody,
    TotalsBody,
    TotalsQuery,
    UsagePageBody,
    UsageQuery,
)
from penstock.storage.database import Database
from penstock.storage.scope import Scope

MAX_BODY_BYTES = 8 * 1024 * 1024

Authenticate = Callable[..., Scope]
"""A FastAPI dependency that says whose data the caller may touch, or raises."""

_BATCH_BODY = {
    "requestBody": {
        "required": True,
        "description": "A `UsageBatch` as MessagePack, at most 500 events and 8 MiB.",
        "content": {"application/msgpack": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def create_node_router(database: Database, clock: Clock, authenticate: Authenticate) -> APIRouter:
    """Return the endpoints that nodes use.

    Args:
        database: Where usage is kept.
        clock: Says when a batch came.
        authenticate: Checks a node's token.
    """
    router = APIRouter(prefix="/node/v1", tags=["node"])

    # The scope is asked for first, so that nobody makes us read a body without a token.
    @router.post(
        "/usage",
        summary="Store a batch of usage events",
        description=(
            "Idempotent by `event_id`: after a failure, or without an answer, send the same batch "
            "again. 200 means that every event is on disk."
        ),
        openapi_extra=_BATCH_BODY,
    )
    async def record_usage(
        scope: Annotated[Scope, Depends(authenticate)], request: Request
    ) -> ReceiptBody:
        batch = _decode(await _read_body(request))
        events = service.prepare_batch(batch)
        delivery = Delivery(
            producer=batch.producer, epoch=batch.epoch, recorded_at_us=clock.wall_ns() // 1_000
        )
        async with database.write(scope) as session:
            receipt = await service.record_events(session, scope, events, delivery)
        return ReceiptBody.from_receipt(receipt)

    return router


def create_usage_router(database: Database, authenticate: Authenticate) -> APIRouter:
    """Return the endpoints that people and their programs use.

    Args:
        database: Where usage is kept.
        authenticate: Checks who asks, and says whose usage that may be.
    """
    router = APIRouter(prefix="/api/v1/usage", tags=["usage"])

    @router.get(
        "",
        summary="List usage events, oldest first",
        description="Follow `next_cursor` until it is null to see each event once.",
    )
    async def list_usage(
        scope: Annotated[Scope, Depends(authenticate)], query: Annotated[UsageQuery, Query()]
    ) -> UsagePageBody:
        async with database.read(scope) as session:
            page = await service.list_usage(
                session, scope, query.to_filter(), cursor=query.cursor, limit=query.limit
            )
        return UsagePageBody.from_page(page)

    @router.get(
        "/totals",
        summary="Add up requests and tokens by group",
        response_model_exclude_none=True,
    )
    async def total_usage(
        scope: Annotated[Scope, Depends(authenticate)], query: Annotated[TotalsQuery, Query()]
    ) -> TotalsBody:
        async with database.read(scope) as session:
            totals = await service.total_usage(session, scope, query.to_filter(), query.by)
        return TotalsBody.from_totals(totals, query.by)

    return router


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


def _decode(body: bytes) -> UsageBatch:
    try:
        return decode_batch(body)
    except msgspec.ValidationError as error:
        # Its words are for the node that sent the body, and name the event by its place in it.
        raise PenstockError(BATCH_INVALID, f"not a usage batch: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PenstockError(BATCH_INVALID) from error
