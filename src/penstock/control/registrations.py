"""Engines that register themselves: what they say, what nodes are told, and when leases end."""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict

from penstock.access.peppers import Peppers
from penstock.audit.door import problem_responses
from penstock.catalog.errors import (
    REGISTRATION_INVALID,
    REGISTRATION_REFUSED,
    REGISTRATIONS_FULL,
)
from penstock.catalog.registrations import service
from penstock.catalog.registrations.model import (
    MAX_TTL_S,
    MAX_URL_CHARS,
    MIN_TTL_S,
    NewRegistration,
)
from penstock.contract.registrations import PATH, Registrations, RegistrationsRequest
from penstock.contract.snapshot import MAX_ENDPOINT_WEIGHT
from penstock.control import log_events
from penstock.control.authentication import BEARER, BEARER_AGAIN
from penstock.control.door import read_body
from penstock.control.errors import (
    BODY_TOO_LARGE,
    NODE_REQUEST_INVALID,
    TOKEN_MISSING,
    TOKEN_WRONG,
    AuthenticationError,
)
from penstock.control.messages import (
    MESSAGE_CONTENT,
    MESSAGE_TYPE,
    decode_message,
    describe_message,
)
from penstock.kit.clock import Clock
from penstock.kit.errors import PenstockError
from penstock.kit.moments import format_time
from penstock.storage.database import Database
from penstock.storage.errors import OBJECT_UNKNOWN, UNAVAILABLE
from penstock.storage.scope import Scope

ENGINES_PATH = "/engines/v1/registration"
RENEWALS = 3
"""How often an engine should renew while its lease lasts."""
_MAX_BODY_BYTES = 4_096
_MAX_GAP_US = 30_000_000
"""Behind so long a time without a look nobody knows whether leases could be renewed in it."""
_EXAMPLE = {"url": "http://10.0.0.5:8000", "ttl_s": 30, "weight": 1, "engine": "vllm"}
_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["url"],
    "properties": {
        "url": {
            "type": "string",
            "maxLength": MAX_URL_CHARS,
            "description": "`http://ADDRESS:PORTS[/PREFIX]`; each of the ports is an endpoint.",
        },
        "ttl_s": {"type": "integer", "minimum": MIN_TTL_S, "maximum": MAX_TTL_S, "default": 30},
        "weight": {"type": "integer", "minimum": 1, "maximum": MAX_ENDPOINT_WEIGHT, "default": 1},
        "engine": {"type": "string", "description": "Its provider.", "default": ""},
    },
    "examples": [_EXAMPLE],
}


class LeaseBody(BaseModel):
    """What an engine has."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "url": "http://10.0.0.5:8000",
                    "ttl_s": 30,
                    "renew_within_s": 10,
                    "expires_at": "2026-06-15T12:00:50.000000Z",
                }
            ]
        }
    )

    url: str
    """As it is kept: with its port, without a `/` at the end."""
    ttl_s: int
    renew_within_s: int
    """Said again so soon, it does not end when one or two of these are lost."""
    expires_at: str


class Leases:
    """Ends leases that were not renewed in time; time only counts while it could be done.

    Args:
        database: Where they are.
        clock: Tells the time.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        """See the class."""
        self._database = database
        self._clock = clock
        self._since_us = self._looked_us = clock.wall_ns() // 1_000
        self._has_failed = False

    async def end(self) -> None:
        """End what is due.

        Raises:
            DatabaseUnavailableError: It is not known what is, nor could anybody renew.
        """
        now_us = self._clock.wall_ns() // 1_000
        if self._has_failed or not 0 <= now_us - self._looked_us <= _MAX_GAP_US:
            self._since_us = now_us
        self._has_failed = True  # unless it comes to its end
        scope = Scope.all_organizations()
        async with self._database.read(scope) as session:
            is_due = await service.has_overdue(session, now_us, self._since_us)
        if is_due:
            async with self._database.write(scope) as session:
                count = await service.end_leases(session, now_us, self._since_us)
            log_events.LEASES_ENDED.log(count=count)
        self._looked_us, self._has_failed = now_us, False


def create_registrations_router(
    database: Database, peppers: Peppers, clock: Clock, authenticate_node: Callable[..., Scope]
) -> APIRouter:
    """Return the endpoints that engines register at, and nodes ask.

    Args:
        database: Where registrations are.
        peppers: What tokens are hashed under.
        clock: Says when something was said.
        authenticate_node: Checks a node's token.
    """
    router = APIRouter()
    authenticate = _create_authentication(database, peppers)
    _add_registering(router, database, clock, authenticate)

    # The scope is asked for first, so that nobody makes us read a body without a token.
    @router.post(
        PATH,
        tags=["node"],
        summary="Ask what engines are registered for an upstream",
        description="204 when the answer is the one whose hash is said.",
        openapi_extra=describe_message("A `RegistrationsRequest` as MessagePack."),
        response_class=Response,
        responses={
            200: {"content": MESSAGE_CONTENT},
            204: {"description": "Nothing changed."},
            **problem_responses(NODE_REQUEST_INVALID, BODY_TOO_LARGE, UNAVAILABLE),
        },
    )
    async def list_registered(
        scope: Annotated[Scope, Depends(authenticate_node)], request: Request
    ) -> Response:
        content = await read_body(request, _MAX_BODY_BYTES)
        asked = decode_message(content, RegistrationsRequest, NODE_REQUEST_INVALID)
        async with database.read(scope) as session:
            found = await service.list_held(session, asked.upstream)
        answer = msgspec.msgpack.encode(Registrations(found))
        if hashlib.sha256(answer).digest() == asked.known:
            return Response(status_code=204)
        return Response(answer, media_type=MESSAGE_TYPE)

    return router


def _create_authentication(database: Database, peppers: Peppers) -> Callable[..., Awaitable[str]]:
    bearer = HTTPBearer(
        auto_error=False,
        scheme_name="registrationToken",
        description="`penstock registrations create-token UPSTREAM` shows one",
    )

    async def authenticate(
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    ) -> str:
        """Return the id of the upstream that the token is for."""
        if credentials is None:
            raise AuthenticationError(TOKEN_MISSING, BEARER)
        scope = Scope.all_organizations()
        async with database.read(scope) as session:
            holder = await service.identify(session, peppers, credentials.credentials)
        if holder is None:
            raise AuthenticationError(TOKEN_WRONG, BEARER_AGAIN)
        if holder.new_mac is not None:
            async with database.write(scope) as session:
                await service.rehash(session, holder)
        return holder.upstream_id

    return authenticate


def _add_registering(
    router: APIRouter,
    database: Database,
    clock: Clock,
    authenticate: Callable[..., Awaitable[str]],
) -> None:
    errors = (
        REGISTRATION_INVALID,
        REGISTRATION_REFUSED,
        REGISTRATIONS_FULL,
        OBJECT_UNKNOWN,
        BODY_TOO_LARGE,
    )

    @router.put(
        ENGINES_PATH,
        tags=["engines"],
        summary="Register as an endpoint, or renew the lease",
        description=(
            "Requests go there until the lease ends. Said again before, it goes on from then; "
            "each time it is said whole, so what was lost is mended by the next time."
        ),
        openapi_extra={
            "requestBody": {"required": True, "content": {"application/json": {"schema": _SCHEMA}}}
        },
        responses=problem_responses(*errors, UNAVAILABLE),
    )
    async def register_engine(
        upstream_id: Annotated[str, Depends(authenticate)], request: Request
    ) -> LeaseBody:
        content = await read_body(request, _MAX_BODY_BYTES)
        try:
            new = msgspec.json.decode(content, type=NewRegistration)
        except ValueError as error:
            raise PenstockError(REGISTRATION_INVALID, f"It cannot be read: {error}.") from None
        now_us = clock.wall_ns() // 1_000
        async with database.write(Scope.all_organizations()) as session:
            lease, is_new = await service.register(session, upstream_id, new, now_us)
        if is_new:
            log_events.ENGINE_REGISTERED.log(upstream=upstream_id, url=lease.url)
        return LeaseBody(
            url=lease.url,
            ttl_s=lease.ttl_s,
            renew_within_s=lease.ttl_s // RENEWALS,
            expires_at=format_time(lease.expires_at_us),
        )

    @router.delete(
        ENGINES_PATH,
        tags=["engines"],
        status_code=204,
        summary="Withdraw as an endpoint",
        description=(
            "New requests go elsewhere within seconds; those on their way are to be finished. "
            "Said again, it changes nothing."
        ),
        response_class=Response,
        responses=problem_responses(UNAVAILABLE),
    )
    async def withdraw_engine(
        upstream_id: Annotated[str, Depends(authenticate)],
        url: Annotated[str, Query(max_length=MAX_URL_CHARS, description="What was registered.")],
    ) -> Response:
        async with database.write(Scope.all_organizations()) as session:
            was_held = await service.withdraw(session, upstream_id, url)
        if was_held:
            log_events.ENGINE_WITHDRAWN.log(upstream=upstream_id, url=url)
        return Response(status_code=204)
