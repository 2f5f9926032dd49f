"""The door of the admin API: token, role and size, in this order, before anything is parsed."""

import random
import re
import secrets
from collections import Counter
from collections.abc import Collection, MutableMapping
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from fastapi.exceptions import RequestValidationError

from penstock.access.authorization import find_refusal
from penstock.access.model import Principal
from penstock.access.peppers import Peppers
from penstock.control.calls import AdminCall
from penstock.control.errors import BODY_TOO_LARGE, IF_MATCH_INVALID
from penstock.control.principals import Principals
from penstock.kit.clock import Clock
from penstock.kit.errors import PenstockError
from penstock.kit.ids import EventIds
from penstock.kit.logs.event import know_request
from penstock.storage.database import Database
from penstock.storage.errors import OBJECT_UNKNOWN

MAX_BODY_BYTES = 1024 * 1024
MAX_BODY_BYTES_OF = {"platform:apply": 8 * 1024 * 1024, "prices:import": 2 * 1024 * 1024}
"""Bounds of operations that take more."""
MAX_VERSION = 2**63 - 1

_ETAG = re.compile(r'"([0-9]{1,19})"')
_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_READS = {"GET", "HEAD"}


class AdminDoor:
    """See `audit.door.Door`.

    Args:
        database: Where everything is.
        principals: Tells who holds a token.
        peppers: What keys are hashed under.
        idempotency_secret: What rows of idempotency keys are derived from.
        clock: Says when a request came.
    """

    def __init__(
        self,
        database: Database,
        principals: Principals,
        peppers: Peppers,
        idempotency_secret: bytes,
        clock: Clock,
    ) -> None:
        """See the class."""
        self._database = database
        self._principals = principals
        self._peppers = peppers
        self._idempotency_secret = idempotency_secret
        self._clock = clock
        self._ids = EventIds(clock.wall_ns, random.Random(secrets.randbits(128)).getrandbits)  # noqa: S311 - ids are unique, not secret

    async def admit(
        self, request: Request, operation: str, lists: Collection[str]
    ) -> tuple[Request, AdminCall]:
        """Return the request with its body read, and the call that it is.

        Raises:
            AuthenticationError: The caller is nobody that we know.
            RequestValidationError: A parameter is there twice.
            PenstockError: `OPERATION_DENIED`, `BODY_TOO_LARGE`, `IF_MATCH_INVALID`, and
                `OBJECT_UNKNOWN` for a path whose id cannot be one.
        """
        now_us = self._clock.wall_ns() // 1_000
        address = None if request.client is None else request.client.host
        authorization = request.headers.get("authorization", "")
        principal = await self._principals.identify(authorization, now_us=now_us, address=address)
        body = bytearray()
        call = self._build_call(request, operation, principal, body, now_us)
        await self._check_role(request, call)
        if not all(_ID.fullmatch(value) for value in request.path_params.values()):
            raise PenstockError(OBJECT_UNKNOWN)
        scope = _read_lists(request, lists)
        body += await read_body(request, MAX_BODY_BYTES_OF.get(operation, MAX_BODY_BYTES))
        return Request(scope, _Replay(bytes(body))), call

    def _build_call(
        self,
        request: Request,
        operation: str,
        principal: Principal,
        body: bytearray,
        now_us: int,
    ) -> AdminCall:
        given = request.headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else self._ids.next()
        know_request(request_id=request_id, operation=operation)
        address = None if request.client is None else request.client.host
        head = f"{request.method}\n{request.url.path}\n".encode()
        return AdminCall(
            database=self._database,
            peppers=self._peppers,
            principal=principal,
            actor=principal.actor(now_us, address=address, request_id=request_id),
            operation=operation,
            resource_id=next(iter(request.path_params.values()), ""),
            expected_version=_parse_if_match(request.headers.get("if-match")),
            idempotency_key=request.headers.get("idempotency-key"),
            idempotency_secret=self._idempotency_secret,
            fingerprint=lambda: head + body,
        )

    async def _check_role(self, request: Request, call: AdminCall) -> None:
        # Whether any object would do; that it is not another's is checked when it is known.
        principal = call.principal
        refusal = find_refusal(principal, call.operation, project_id=principal.project_id)
        if refusal is None:
            return
        if request.method not in _READS:
            await call.record_denied(refusal.message)
        raise PenstockError(refusal.error, refusal.detail)


def _read_lists(request: Request, lists: Collection[str]) -> MutableMapping[str, Any]:
    """Return what the request is: `name[]` of a list without its brackets, others given once."""
    # Of two values, whoever stands in front of us may have looked at the other one.
    given = [
        (bare if (bare := name.removesuffix("[]")) in lists else name, value)
        for name, value in request.query_params.multi_items()
    ]
    counts = Counter(name for name, _ in given)
    repeated = [name for name, count in counts.items() if count > 1 and name not in lists]
    if repeated:
        raise RequestValidationError(
            [{"loc": ("query", name), "msg": "It is given more than once."} for name in repeated]
        )
    if not lists:
        return request.scope
    return {**request.scope, "query_string": urlencode(given).encode()}


class _Replay:
    """The ASGI channel of a body that was read before."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __call__(self) -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": self._body, "more_body": False}


async def read_body(request: Request, max_bytes: int = MAX_BODY_BYTES) -> bytes:
    """Return the body of a request.

    Raises:
        PenstockError: `BODY_TOO_LARGE`.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise PenstockError(BODY_TOO_LARGE)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise PenstockError(BODY_TOO_LARGE)
    return bytes(body)


def _parse_if_match(value: str | None) -> int | None:
    if value is None or value.strip() == "*":
        return None
    match = _ETAG.fullmatch(value.strip())
    if match is None or int(match[1]) > MAX_VERSION:
        raise PenstockError(IF_MATCH_INVALID)
    return int(match[1])
