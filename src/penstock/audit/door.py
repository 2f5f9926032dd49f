"""What endpoints of the admin API see of a request: who calls, what they may, how to answer.

It stands here because every room with such endpoints is above this one; `control.calls` is behind
it. An endpoint declares its operation; without one, the application does not start.
"""

from collections.abc import Awaitable, Callable, Collection, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel

from penstock.audit.model import Actor
from penstock.kit.errors import ErrorCode
from penstock.storage.errors import OBJECT_UNKNOWN, UNAVAILABLE, VERSION_CONFLICT
from penstock.storage.sessions import ReadSession, WriteSession

OPERATION = "x-penstock-operation"
"""Member of an operation of the OpenAPI document: its name in `access.matrix`."""
LISTS = "x-penstock-lists"
"""The same: the parameters that may be given several times."""

Work = Callable[[WriteSession], Awaitable[BaseModel | None]]
"""What a mutation does in its transaction, and what is answered; None for an empty answer."""
Prepare = Callable[[], Awaitable[None]]
"""What a mutation does before its transaction."""


class Call(Protocol):
    """One request, after its token was checked and its role allows the operation at all."""

    @property
    def actor(self) -> Actor:
        """Who does it, for services and the audit log."""
        ...

    @property
    def organization_id(self) -> str | None:
        """The only organization that the caller can touch; None for the platform's operator."""
        ...

    @property
    def project_id(self) -> str | None:
        """The only project that the caller can touch, if any."""
        ...

    @property
    def expected_version(self) -> int | None:
        """The version that `If-Match` asks for, if it does."""
        ...

    def check(self, *, organization_id: str | None = None, project_id: str | None = None) -> None:
        """Check that the caller may do the operation on an object of that owner.

        Raises:
            PenstockError: `OBJECT_UNKNOWN` for what is another's, `OPERATION_DENIED`.
        """
        ...

    def check_also(self, operation: str) -> None:
        """Check that the caller may do another operation, too.

        Raises:
            PenstockError: `OPERATION_DENIED`.
        """
        ...

    def narrow(self, organization_id: str | None, project_id: str | None) -> str | None:
        """Check that the caller may do the operation on all that is in a place.

        Args:
            organization_id: Of the place; everywhere when None.
            project_id: A project in it, maybe.

        Returns:
            The project that is meant: the caller's only one when none is named.

        Raises:
            PenstockError: As `check`.
        """
        ...

    def check_grant(self, *roles: str) -> None:
        """Check that the caller has all rights of these roles.

        Raises:
            PenstockError: `GRANT_EXCEEDED`.
        """
        ...

    def read(self, *, is_long: bool = False) -> AbstractAsyncContextManager[ReadSession]:
        """Hand out a session that shows what the caller may see; `is_long` as `Database.read`."""
        ...

    def change(
        self,
        work: Work,
        *,
        status: int = 200,
        prepare: Prepare | None = None,
        locks_itself: bool = False,
    ) -> Awaitable[Response]:
        """Do a mutation once for its idempotency key, and answer after it is committed.

        Args:
            work: Done in one transaction.
            status: Of the answer.
            prepare: Done before the transaction begins, because it takes long or has transactions
                of its own. What it refuses is recorded like what `work` refuses. It may be
                repeated though the work is not: when a process dies in between.
            locks_itself: The work takes the lock of the configuration itself, for it has something
                to do before that takes long; else it has it from the beginning.
        """
        ...

    def rehearse(self, work: Work) -> Awaitable[Response]:
        """Do a mutation, answer with what came of it, and undo it."""
        ...

    def answer(self, body: BaseModel) -> Response:
        """Answer with an object or a listing; an object's version is its `ETag`."""
        ...


class Door(Protocol):
    """Lets requests in; the application has it as `state.door`."""

    async def admit(
        self, request: Request, operation: str, lists: Collection[str]
    ) -> tuple[Request, Call]:
        """Return the request with its body read, and the call that it is.

        Args:
            request: As it came.
            operation: Its name.
            lists: Parameters that may be given several times, with `[]` behind the name or not.

        Raises:
            PenstockError: The caller is nobody, may not do it, or sent too much.
        """
        ...


class AdminRoute(APIRoute):
    """A route that asks the door before anything of the request's body is read."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request.

        Raises:
            ValueError: The endpoint declares no operation.
        """
        handle = super().get_route_handler()
        extra = self.openapi_extra or {}
        name, lists = extra.get(OPERATION), extra.get(LISTS, ())
        if not isinstance(name, str):
            message = f"{self.path} declares no operation"
            raise ValueError(message)  # noqa: TRY004 - the value is missing, the type is right

        async def admit(request: Request) -> Response:
            door: Door = request.app.state.door
            admitted, call = await door.admit(request, name, lists)
            admitted.state.call = call
            response = await handle(admitted)
            response.headers["x-request-id"] = call.actor.request_id or ""
            return response

        return admit


async def get_call(request: Request) -> Any:
    """Return the call that a request is: a dependency of every endpoint.

    Waits for nothing; but a plain function would be run in a thread, which costs more than it.
    """
    return request.state.call


def operation(
    name: str,
    *errors: ErrorCode,
    is_change: bool = False,
    is_of_object: bool = False,
    lists: Collection[str] = (),
) -> dict[str, Any]:
    """Return what the decorator of an endpoint says of it besides its path and summary.

    Args:
        name: The operation in `access.matrix`.
        *errors: What it can be answered with, besides what all endpoints can.
        is_change: Whether it changes anything, and so takes an idempotency key.
        is_of_object: Whether it is about one object, named in the path.
        lists: Parameters that may be given several times.
    """
    parameters = []
    if is_change:
        parameters.append(_header("Idempotency-Key", "The same answer for the same key for 24 h."))
    if is_of_object:
        errors = (*errors, OBJECT_UNKNOWN)
    if is_change and is_of_object:
        parameters.append(_header("If-Match", "The `ETag` of the object as it was read."))
        errors = (*errors, VERSION_CONFLICT)
    extra: dict[str, Any] = {OPERATION: name}
    if parameters:
        extra["parameters"] = parameters
    if lists:
        extra[LISTS] = list(lists)
    return {"openapi_extra": extra, "responses": problem_responses(*errors, UNAVAILABLE)}


def _header(name: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string", "maxLength": 255},
    }


def problem_responses(*errors: ErrorCode) -> dict[int | str, dict[str, Any]]:
    """Return the error answers of an endpoint as its decorator takes them, by status."""
    lines: dict[int, list[str]] = {}
    for error in errors:
        lines.setdefault(error.status, []).append(f"`{error.code}`: {error.public}")
    return {
        status: {
            "description": "\n\n".join(texts),
            "content": {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
            },
        }
        for status, texts in sorted(lines.items())
    }
