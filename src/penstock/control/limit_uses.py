"""What nodes report of how much of limits is used."""

from collections.abc import Callable
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from penstock.audit.door import problem_responses
from penstock.contract.limits import UseReport
from penstock.control.door import read_body
from penstock.control.errors import BODY_TOO_LARGE
from penstock.control.messages import describe_message
from penstock.kit.errors import PenstockError
from penstock.limits.errors import USE_REPORT_INVALID
from penstock.limits.rule_use import record_report
from penstock.storage.database import Database
from penstock.storage.errors import UNAVAILABLE
from penstock.storage.scope import Scope

_decode = msgspec.msgpack.Decoder(UseReport).decode


def create_limit_uses_router(database: Database, authenticate: Callable[..., Scope]) -> APIRouter:
    """Return the endpoint that nodes report to.

    Args:
        database: Where reports are kept.
        authenticate: Checks a node's token.
    """
    router = APIRouter(prefix="/internal/v1", tags=["node"])

    # The scope is asked for first, so that nobody makes us read a body without a token.
    @router.post(
        "/limits/use",
        status_code=204,
        response_class=Response,
        summary="Report how much of limits is used",
        description="What is older than a report that is here already changes nothing.",
        openapi_extra=describe_message("A `UseReport` as MessagePack, at most 5,000 buckets."),
        responses=problem_responses(USE_REPORT_INVALID, BODY_TOO_LARGE, UNAVAILABLE),
    )
    async def record_limit_uses(
        scope: Annotated[Scope, Depends(authenticate)], request: Request
    ) -> None:
        try:
            report = _decode(await read_body(request))
        except (msgspec.DecodeError, ValueError) as error:
            message = f"The report cannot be read: {error}"
            raise PenstockError(USE_REPORT_INVALID, message) from None
        async with database.write(scope) as session:
            await record_report(session, report)

    return router
