"""Answers that the worker gives itself: errors, models, health; and the heads of relayed ones."""

from urllib.parse import unquote

import msgspec

from penstock.gateway.dialects.errors import MODEL_NOT_FOUND
from penstock.gateway.dialects.openai import error_body
from penstock.gateway.errors import (
    CONNECT_FAILED,
    CONNECT_TIMEOUT,
    DRAINING,
    OVERLOADED,
    UNAVAILABLE,
    UPSTREAM_SATURATED,
)
from penstock.gateway.limits import RETRY_AFTER_S
from penstock.gateway.offer import Contexts
from penstock.gateway.request import MODEL_PREFIX
from penstock.gateway.runtime import Principal, Runtime
from penstock.kit.errors import Refusal, Source

_encode = msgspec.json.Encoder().encode

_REASONS = {
    200: b"OK",
    204: b"No Content",
    400: b"Bad Request",
    401: b"Unauthorized",
    402: b"Payment Required",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    413: b"Content Too Large",
    414: b"URI Too Long",
    415: b"Unsupported Media Type",
    417: b"Expectation Failed",
    422: b"Unprocessable Content",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
}
_DROPPED = {
    OVERLOADED: b"rejected-saturated",
    UPSTREAM_SATURATED: b"rejected-saturated",
    UNAVAILABLE: b"rejected-no-endpoints",
    CONNECT_FAILED: b"rejected-no-endpoints",
    CONNECT_TIMEOUT: b"rejected-no-endpoints",
    DRAINING: b"shutting-down",
}
"""Why nobody worked on a request, in llm-d's words, for callers that know those; where somebody
behind us said why, that is told instead."""
_UNAVAILABLE = 503
_UNAUTHORIZED = 401

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
_CLOSE = b"connection: close\r\n"
_KEEP_ALIVE_10 = b"connection: keep-alive\r\n"


def connection_line(*, keep_alive: bool, version: str) -> bytes:
    """Return the header line that says what becomes of the connection; mostly nothing."""
    if not keep_alive:
        return _CLOSE
    return b"" if version == "1.1" else _KEEP_ALIVE_10


def plain_head(request_id: bytes, content_type: bytes, length: int, connection: bytes) -> bytes:
    """Return the head of a relayed plain answer."""
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\nx-request-id: %b\r\n%bcontent-length: %d\r\n\r\n"
        % (content_type, request_id, connection, length)
    )


def stream_head(
    request_id: bytes, content_type: bytes, connection: bytes, *, is_chunked: bool
) -> bytes:
    """Return the head of a relayed stream; no proxy on the way may buffer it."""
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\nx-request-id: %b\r\ncache-control: no-cache\r\n"
        b"x-accel-buffering: no\r\n%b%b\r\n"
        % (
            content_type,
            request_id,
            connection,
            b"transfer-encoding: chunked\r\n" if is_chunked else b"",
        )
    )


def own_answer(
    status: int,
    body: bytes,
    request_id: bytes,
    connection: bytes,
    *,
    extra: bytes = b"",
    is_head: bool = False,
) -> bytes:
    """Return a whole answer of our own.

    Args:
        status: HTTP status.
        body: JSON, or nothing.
        request_id: Value of `x-request-id`.
        connection: From `connection_line`.
        extra: More header lines, each ending in CRLF.
        is_head: The question was HEAD: leave the body out.
    """
    head = b"HTTP/1.1 %d %b\r\n%bx-request-id: %b\r\n%b%b\r\n" % (
        status,
        _REASONS.get(status, b"Error"),
        b"content-type: application/json\r\n" if body else b"",
        request_id,
        extra + connection,
        b"" if status == 204 else b"content-length: %d\r\n" % len(body),  # noqa: PLR2004 - HTTP
    )
    return head if is_head else head + body


def error_lines(refusal: Refusal, status: int) -> bytes:
    """Return what the head of an answer says of an error, whatever its body's shape.

    Args:
        refusal: What went wrong.
        status: HTTP status that says so.
    """
    error = refusal.error
    failed = b"upstream" if error.source is Source.UPSTREAM else b"gateway"
    lines = b"x-penstock-error-code: %b\r\nx-penstock-error-source: %b\r\n" % (
        error.code.encode(),
        failed,
    )
    reason = refusal.reason.encode("ascii") or _DROPPED.get(error)
    if reason:
        lines += b"x-llm-d-request-dropped-reason: %b\r\n" % reason
    is_waited_for = status == _UNAVAILABLE or error is OVERLOADED
    if is_waited_for or refusal.retry_after_s is not None:
        lines += b"retry-after: %d\r\n" % (refusal.retry_after_s or RETRY_AFTER_S)
    return lines


def error_answer(
    refusal: Refusal,
    request_id: bytes,
    connection: bytes,
    *,
    status: int | None = None,
    body: bytes | None = None,
    allow: bytes = b"",
    is_head: bool = False,
) -> bytes:
    """Return the whole answer that tells a refusal.

    Args:
        refusal: What went wrong.
        request_id: Value of `x-request-id`.
        connection: From `connection_line`.
        status: Instead of the refusal's own, e.g. an engine's 422.
        body: As the caller's protocol tells it; OpenAI's when None.
        allow: Methods for the Allow header of a 405.
        is_head: The question was HEAD: leave the body out.
    """
    status = status or refusal.error.status
    extra = error_lines(refusal, status)
    if status == _UNAUTHORIZED:
        extra += b"www-authenticate: Bearer\r\n"
    if allow:
        extra += b"allow: %b\r\n" % allow
    told = error_body(refusal) if body is None else body
    return own_answer(status, told, request_id, connection, extra=extra, is_head=is_head)


def models_body(runtime: Runtime, principal: Principal, contexts: Contexts) -> bytes:
    """Return the list of models that a key may use."""
    names = runtime.list_alias_names(principal)
    models = [_model(runtime, principal, name, contexts) for name in names]
    return _encode({"object": "list", "data": models})


def model_body(
    runtime: Runtime, principal: Principal, target: bytes, contexts: Contexts
) -> bytes | Refusal:
    """Return one model, if the key may use it; others do not exist for it.

    Args:
        runtime: What the worker serves from.
        principal: Who asks.
        target: Path `/v1/models/<alias>`; the alias may be percent-encoded, as SDKs do with `/`.
        contexts: How many tokens requests may have.
    """
    name = unquote(target[len(MODEL_PREFIX) :].decode("latin-1"))
    if not runtime.may_use(principal, name):
        return Refusal(MODEL_NOT_FOUND, param="model")
    return _encode(_model(runtime, principal, name, contexts))


def _model(
    runtime: Runtime, principal: Principal, name: str, contexts: Contexts
) -> dict[str, str | int]:
    model: dict[str, str | int] = {
        "id": name,
        "object": "model",
        "created": runtime.created_s,
        "owned_by": "penstock",
    }
    parent = runtime.find_parent(principal, name)
    if parent is not None:
        model["parent"] = parent
    most = runtime.find_context(name, contexts)
    if most is not None:
        model["max_model_len"] = most
    return model
