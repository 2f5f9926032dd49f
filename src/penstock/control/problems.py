"""Every error answer: problem details (RFC 9457) with our code in them."""

from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from penstock.catalog.errors import PlatformFileError
from penstock.control.errors import (
    BUG,
    METHOD_NOT_ALLOWED,
    PATH_UNKNOWN,
    REQUEST_INVALID,
    REQUEST_REFUSED,
    AuthenticationError,
)
from penstock.kit.errors import ErrorCode, PenstockError
from penstock.storage.errors import UNAVAILABLE

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER_S = 1
MAX_PARAMETER_CHARS = 100
MAX_PARAMETER_PROBLEMS = 50
MAX_DOCUMENT_PROBLEMS = 1_000


class ParameterProblem(BaseModel):
    """What is wrong with one parameter."""

    parameter: str
    detail: str
    path: Annotated[
        list[str | int] | None, Field(description="Where it is in a document, step by step.")
    ] = None


class Problem(BaseModel):
    """An error answer. `type` and `code` are the same, and stable for ever."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": UNAVAILABLE.code,
                    "title": UNAVAILABLE.public,
                    "status": UNAVAILABLE.status,
                    "detail": UNAVAILABLE.public,
                    "code": UNAVAILABLE.code,
                    "is_retryable": UNAVAILABLE.retryable,
                }
            ]
        }
    )

    type: str
    title: str
    status: int
    detail: str
    code: Annotated[str, Field(description="`err:control:<category>:<specific>`.")]
    is_retryable: Annotated[bool, Field(description="Whether the same request may succeed later.")]
    errors: Annotated[
        list[ParameterProblem] | None, Field(description="The parameters at fault.")
    ] = None


PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "An error, as problem details (RFC 9457).",
        "content": {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
}
"""What every operation of the OpenAPI document can answer besides success."""


def describe_problems(schemas: dict[str, Any]) -> None:
    """Add the form of error answers to the schemas of an OpenAPI document."""
    _, document = models_json_schema(
        [(Problem, "serialization")], ref_template="#/components/schemas/{model}"
    )
    schemas.update(document["$defs"])


def install_problems(app: FastAPI) -> None:
    """Make the application answer every error as problem details."""
    app.exception_handler(PenstockError)(_answer_penstock_error)
    app.exception_handler(PlatformFileError)(_answer_document_error)
    app.exception_handler(RequestValidationError)(_answer_validation_error)
    app.exception_handler(HTTPException)(_answer_http_exception)
    app.exception_handler(ClientDisconnect)(_answer_nobody)
    app.exception_handler(Exception)(_answer_bug)


def render(
    error: ErrorCode,
    *,
    detail: str = "",
    status: int | None = None,
    headers: dict[str, str] | None = None,
    errors: list[ParameterProblem] | None = None,
) -> Response:
    """Return an error as a response.

    Args:
        error: The declared code.
        detail: A more exact sentence than the code's own; safe to show.
        status: Another HTTP status than the code's own.
        headers: Headers that the status asks for.
        errors: The parameters at fault.
    """
    status = error.status if status is None else status
    problem = Problem(
        type=error.code,
        title=error.public,
        status=status,
        detail=detail or error.public,
        code=error.code,
        is_retryable=error.retryable,
        errors=errors,
    )
    return JSONResponse(
        problem.model_dump(exclude_none=True),
        status_code=status,
        headers=headers,
        media_type=CONTENT_TYPE,
    )


async def _answer_penstock_error(_request: Request, error: PenstockError) -> Response:
    headers = {}
    if isinstance(error, AuthenticationError):
        headers["www-authenticate"] = error.challenge
    if error.error.status == UNAVAILABLE.status:
        headers["retry-after"] = str(RETRY_AFTER_S)
    return render(error.error, detail=str(error), headers=headers)


async def _answer_document_error(_request: Request, error: PlatformFileError) -> Response:
    problems = [
        ParameterProblem(
            parameter=finding.where, detail=finding.problem, path=[*finding.path] or None
        )
        for finding in error.findings[:MAX_DOCUMENT_PROBLEMS]
    ]
    count = len(error.findings)
    detail = "One fault was found." if count == 1 else f"{count:,} faults were found."
    return render(error.error, detail=detail, errors=problems)


async def _answer_validation_error(_request: Request, error: RequestValidationError) -> Response:
    problems = [
        ParameterProblem(
            # ("query", "since", ...): the place is said by the name alone.
            parameter=_printable(".".join(str(part) for part in fault["loc"][1:])),
            detail=fault["msg"].removeprefix("Value error, "),
        )
        for fault in error.errors()[:MAX_PARAMETER_PROBLEMS]
    ]
    names = ", ".join(dict.fromkeys(problem.parameter for problem in problems))
    return render(REQUEST_INVALID, detail=f"Wrong parameters: {names}.", errors=problems)


def _printable(name: str) -> str:
    # The caller's own words: of any length, and with halves of characters that cannot be sent.
    return "".join(char if char.isprintable() else "?" for char in name[:MAX_PARAMETER_CHARS])


async def _answer_http_exception(_request: Request, error: HTTPException) -> Response:
    code = {404: PATH_UNKNOWN, 405: METHOD_NOT_ALLOWED}.get(error.status_code, REQUEST_REFUSED)
    return render(code, status=error.status_code, headers=dict(error.headers or {}))


async def _answer_nobody(_request: Request, _error: ClientDisconnect) -> Response:
    # Who was killed while it sent its request hears nothing; that it left is no bug of ours.
    return render(REQUEST_REFUSED)


async def _answer_bug(_request: Request, _error: Exception) -> Response:
    # Starlette raises the exception again behind the answer, so that the server logs it.
    return render(BUG)
