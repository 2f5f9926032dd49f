"""Money between nodes and the database: holds that nodes ask for, usage that is settled.

It stands here because rooms that rate and rooms that limit do not know each other.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from penstock.audit.door import problem_responses
from penstock.contract.money import FreeRequest, HoldAnswer, HoldRequest
from penstock.contract.usage import UsageEvent
from penstock.control.door import read_body
from penstock.control.errors import BODY_TOO_LARGE, HOLDS_INVALID
from penstock.kit.clock import Clock
from penstock.kit.errors import PenstockError
from penstock.limits.budget_holds import free, hold
from penstock.limits.budget_messages import find_free_fault, find_hold_fault
from penstock.limits.budget_model import Life, RatedEvent
from penstock.limits.budget_settling import settle
from penstock.metering.model import Delivery
from penstock.rating.service import rate
from penstock.storage.database import Database
from penstock.storage.errors import UNAVAILABLE
from penstock.storage.scope import Scope
from penstock.storage.sessions import WriteSession

log = logging.getLogger(__name__)

_TYPE = "application/msgpack"
_CONTENT = {_TYPE: {"schema": {"type": "string", "format": "binary"}}}

Message = TypeVar("Message", HoldRequest, FreeRequest)


class Settlement:
    """Counts what new usage cost in the budgets that it counts for."""

    def __init__(self) -> None:
        """See the class."""
        self.faults: Counter[str] = Counter()
        """How often something was wrong since the start, by what it was."""

    async def __call__(
        self, session: WriteSession, events: Sequence[UsageEvent], delivery: Delivery
    ) -> None:
        """Settle events in the transaction that stores them; see `limits.budget_settling`."""
        charges = await rate(session, events)
        rated = [
            RatedEvent(
                event_id=event.event_id,
                organization_id=event.organization,
                project_id=event.project,
                key_id=event.key_id,
                alias=event.model,
                # A node whose clock is ahead must not count in a window that has not begun.
                at_us=min(event.started_at_ns // 1_000, delivery.recorded_at_us),
                charges_atto=charged,
                holds=event.holds,
            )
            for event, charged in zip(events, charges, strict=True)
        ]
        life = Life(delivery.producer, delivery.epoch)
        faults = await settle(session, rated, life, delivery.recorded_at_us)
        if faults:
            self.faults.update(faults)
            log.warning(
                "usage could not be settled in full producer=%s epoch=%s faults=%s",
                delivery.producer,
                delivery.epoch,
                dict(faults),
            )


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
        openapi_extra=_body("A `HoldRequest` as MessagePack."),
        response_class=Response,
        responses={200: {"content": _CONTENT}, **errors},
    )
    async def hold_money(
        scope: Annotated[Scope, Depends(authenticate)], request: Request
    ) -> Response:
        asked = _decode(await read_body(request), HoldRequest, find_hold_fault)
        async with database.write(scope) as session:
            answer = await hold(session, asked, clock.wall_ns() // 1_000)
        return Response(_encode(answer), media_type=_TYPE)

    @router.post(
        "/free",
        status_code=204,
        summary="Give back what of holds is not used",
        description="Repeated, it gives back nothing more.",
        openapi_extra=_body("A `FreeRequest` as MessagePack."),
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


def _body(description: str) -> dict[str, object]:
    return {
        "requestBody": {"required": True, "description": description, "content": _CONTENT},
    }


def _encode(answer: HoldAnswer) -> bytes:
    return msgspec.msgpack.encode(answer)


def _decode(
    content: bytes, kind: type[Message], find_fault: Callable[[Message], str | None]
) -> Message:
    try:
        message = msgspec.msgpack.decode(content, type=kind)
    except ValueError as error:
        raise PenstockError(HOLDS_INVALID, f"It cannot be read: {error}") from None
    fault = find_fault(message)
    if fault is not None:
        raise PenstockError(HOLDS_INVALID, fault)
    return message
