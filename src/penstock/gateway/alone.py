"""Answers that the worker has by itself: refusals, health, models, and what a path takes."""

from typing import TYPE_CHECKING, Final

from penstock import __version__
from penstock.gateway.answer import (
    connection_line,
    error_answer,
    model_body,
    models_body,
    own_answer,
)
from penstock.gateway.dialects.oip import V2, V2_LIVE, V2_READY, metadata_body
from penstock.gateway.request import LIVE, MODELS, READY, Request
from penstock.kit.errors import Refusal

if TYPE_CHECKING:
    from penstock.gateway.worker import Worker

_LIVE_BODY: Final = b'{"status":"live"}'
_READY_BODY: Final = b'{"status":"ready"}'
_V2_BODY: Final = metadata_body(__version__)


def answer_alone(worker: "Worker", request: Request) -> bytes:
    """Return the whole answer to a request that no engine is asked for; note its refusal.

    Args:
        worker: What it runs in.
        request: The request; it is refused, or one of the paths that we have by ourselves.
    """
    request.request_id = request.request_id or worker.event_ids.next()
    request_id = request.request_id.encode("ascii")
    keep_alive = request.keep_alive and not worker.is_draining
    line = connection_line(keep_alive=keep_alive, version=request.version)
    is_head = request.method == b"HEAD"
    found: bytes | Refusal
    if request.refusal is not None:
        found = request.refusal
    elif request.method == b"OPTIONS":
        extra = b"allow: %b\r\n" % request.allow
        return own_answer(204, b"", request_id, line, extra=extra)
    elif request.target in {LIVE, V2_LIVE}:
        found = _LIVE_BODY
    elif request.target in {READY, V2_READY}:
        found = worker.unreadiness() or _READY_BODY
    elif request.target == V2:
        found = _V2_BODY
    elif request.principal is not None and request.target == MODELS:
        found = models_body(worker.runtime, request.principal, worker.contexts)
    else:
        assert request.principal is not None  # noqa: S101 - other paths need a key
        found = model_body(worker.runtime, request.principal, request.target, worker.contexts)
    if isinstance(found, Refusal):
        request.refusal = found
        allow = request.allow if found.error.status == 405 else b""  # noqa: PLR2004 - HTTP
        told = request.telling.body(found, request_id)
        return error_answer(found, request_id, line, body=told, allow=allow, is_head=is_head)
    return own_answer(200, found, request_id, line, is_head=is_head)
