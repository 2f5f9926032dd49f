"""What nodes report of keys that are stored under an old pepper."""

import hmac
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict

from penstock.access.peppers import Peppers
from penstock.access.rehash import record_reported
from penstock.audit.door import problem_responses
from penstock.contract.key_hashes import decode_key_hashes
from penstock.control import log_events
from penstock.control.door import read_body
from penstock.control.errors import BODY_TOO_LARGE, KEY_HASHES_INVALID, PEPPERS_DIFFER
from penstock.control.messages import describe_message
from penstock.kit.clock import Clock
from penstock.kit.errors import PenstockError
from penstock.storage.database import Database
from penstock.storage.errors import UNAVAILABLE
from penstock.storage.scope import Scope


class KeyHashesReceipt(BaseModel):
    """What became of a report."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"stored": 3}]})

    stored: int
    """Keys whose new hash is stored now; the others were not to be, or were before."""


def create_key_hashes_router(
    database: Database, peppers: Peppers, clock: Clock, authenticate: Callable[..., Scope]
) -> APIRouter:
    """Return the endpoint that nodes report to.

    Args:
        database: Where keys are.
        peppers: What keys are hashed under.
        clock: Says when a report came.
        authenticate: Checks a node's token.
    """
    router = APIRouter(prefix="/node/v1", tags=["node"])

    # The scope is asked for first, so that nobody makes us read a body without a token.
    @router.post(
        "/key-hashes",
        summary="Report keys that were shown and are stored under an old pepper",
        openapi_extra=describe_message("`KeyHashes` as MessagePack, at most 500 pairs."),
        responses=problem_responses(
            KEY_HASHES_INVALID, PEPPERS_DIFFER, BODY_TOO_LARGE, UNAVAILABLE
        ),
    )
    async def record_key_hashes(
        scope: Annotated[Scope, Depends(authenticate)], request: Request
    ) -> KeyHashesReceipt:
        try:
            report = decode_key_hashes(await read_body(request))
        except ValueError as error:
            raise PenstockError(KEY_HASHES_INVALID, f"The report cannot be read: {error}") from None
        if not hmac.compare_digest(report.check, peppers.check):
            raise PenstockError(PEPPERS_DIFFER)
        async with database.write(scope) as session:
            stored = await record_reported(session, peppers, report.pairs, clock.wall_ns() // 1_000)
        if stored:
            log_events.KEY_HASHES_MOVED.log(count=stored)
        return KeyHashesReceipt(stored=stored)

    return router
