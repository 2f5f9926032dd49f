"""What an engine's failure means for the caller, whatever shape it has. Pure."""

import re
from collections.abc import Iterable
from dataclasses import replace

from penstock.engines.registry import NO_ROOM
from penstock.gateway.dialects.errors import CONTEXT_EXCEEDED, REFUSED_BY_ENGINE, VERSION_NOT_FOUND
from penstock.gateway.dialects.openai import error_status, error_text
from penstock.gateway.errors import (
    BAD_ANSWER,
    CLOSED_EARLY,
    FAILED,
    MISCONFIGURED,
    OVERLOADED,
    UNAVAILABLE,
)
from penstock.kit.errors import ErrorCode, Refusal

PASSED_STATUSES = frozenset({400, 413, 415, 422})
"""What an engine finds wrong with a request goes to the caller under its own status."""
RETRIED_STATUSES = NO_ROOM | {502}
"""An engine that answers so, or what stands before it, did not begin with the request."""
BROKEN = (FAILED, BAD_ANSWER, CLOSED_EARLY)
"""What an engine is not well of which it is said."""
_MISCONFIGURED_STATUSES = frozenset({401, 403, 404, 405})
_UNAVAILABLE = 503
_OVERLOAD_STATUSES = NO_ROOM - {_UNAVAILABLE}
_BUSY = re.compile(r"busy|capacity|exceed|overload|priority|queue|too many", re.IGNORECASE)
"""Words with which engines say that they are up and have no room, where the status is 503."""
_TOO_LONG = re.compile(
    r"context[ _](length|window)|max_model_len|maximum (model|context|input) length"
    r"|prompt is too long",
    re.IGNORECASE,
)
"""Words with which engines say that there are more tokens than the model takes."""
_PLACE = re.compile(
    r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>]+"  # a URL
    r"|(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.])(?::\d+)?"  # an IPv4 address
    r"|\[[0-9a-f.]*:[0-9a-f.]*:[0-9a-f:.]*\](?::\d+)?"  # an IPv6 address
    r"|\b[a-z0-9-]+(?:\.[a-z0-9-]+)*\.(?:cluster|internal|intranet|lan|local|svc)\b[\w.-]*(?::\d+)?",
    re.IGNORECASE,
)
_UNREADABLE = re.compile(r"unable to parse|failed to parse", re.IGNORECASE)
"""With which Triton begins to tell of what it could not read, under 500."""
_NOT_FOUND, _ERROR, _NOT_IMPLEMENTED = 404, 500, 501
_REASON = re.compile(rb"[a-z]+(?:-[a-z]+){0,7}")
"""A word like `rejected-ttl-expired`, and no text in which there could be anything."""
_REDACTED = "[address]"
_ERRORS_FROM = 400
_REASON_BYTES = 64
_RETRY_AFTER_DIGITS = 6
"""A longer wait than eleven days is no wait."""


def status_failure(status: int, body: bytes, retry_after: bytes | None) -> Refusal:
    """Return what an answer other than 200 means; the engine's own words are kept.

    Args:
        status: HTTP status of the answer, not 200.
        body: Its body, of any shape.
        retry_after: Its `Retry-After`; only whole seconds, and not too many, are understood.
    """
    if status in PASSED_STATUSES:
        return Refusal(REFUSED_BY_ENGINE, error_text(body))
    if status in _MISCONFIGURED_STATUSES:
        return Refusal(MISCONFIGURED)  # the engine's words would tell of our access to it
    text = error_text(body)
    error = _lack_of_room(status, text)
    if error is not None:
        return Refusal(error, text, retry_after_s=_seconds(retry_after))
    return Refusal(FAILED if status >= _ERRORS_FROM else BAD_ANSWER, text)


def oip_failure(
    status: int, body: bytes, retry_after: bytes | None, *, has_version: bool
) -> Refusal:
    """Return what an answer other than 200 means in the Open Inference Protocol.

    Triton tells of some mistakes of callers as if they were its own: 500 for data that do not
    fill their shape, 501 for `infer` of a model that answers more than once.

    Args:
        status: HTTP status of the answer, not 200.
        body: Its body, `{"error": text}`, or an event of it where a stream was asked for.
        retry_after: As in `status_failure`.
        has_version: Whether the request named a version of the model.
    """
    if body.startswith(b"data:"):
        body = body[5:]
    if status == _NOT_FOUND and has_version:
        return Refusal(VERSION_NOT_FOUND)
    text = error_text(body)
    if status == _NOT_IMPLEMENTED or (status == _ERROR and _UNREADABLE.match(text)):
        return Refusal(REFUSED_BY_ENGINE, text)
    return status_failure(status, body, retry_after)


def _lack_of_room(status: int | None, text: str) -> ErrorCode | None:
    """Return what a status means with which an engine does not even try; None for others.

    vLLM, SGLang and Triton answer 503 when their queue is full, Dynamo 529, or what it is told to.
    """
    if status in _OVERLOAD_STATUSES:
        return OVERLOADED
    if status != _UNAVAILABLE:
        return None
    return OVERLOADED if _BUSY.search(text) else UNAVAILABLE


def _seconds(retry_after: bytes | None) -> int | None:
    if retry_after is None or len(retry_after) > _RETRY_AFTER_DIGITS or not retry_after.isdigit():
        return None
    return int(retry_after)


def too_long(refusal: Refusal, most_tokens: int | None, input_tokens: int) -> Refusal:
    """Return what a refusal is when the request was too long for its model.

    vLLM and SGLang say so in words under 400; Dynamo answers 500, with any words.

    Args:
        refusal: What the engine's answer meant by its status.
        most_tokens: How many tokens a request may have; None when nobody said.
        input_tokens: About how many it had.
    """
    if refusal.error is REFUSED_BY_ENGINE:
        is_so = _TOO_LONG.search(refusal.detail or "") is not None
    else:
        is_so = refusal.error is FAILED and most_tokens is not None and input_tokens > most_tokens
    return Refusal(CONTEXT_EXCEEDED, refusal.detail, "messages") if is_so else refusal


def redacted(refusal: Refusal, authorization: bytes, hosts: Iterable[str]) -> Refusal:
    """Return the refusal as its caller may see it.

    The engine's words are dropped when they repeat our credential; addresses in them are replaced.

    Args:
        refusal: What the caller shall be told.
        authorization: The header line that showed the engine our credential, or nothing.
        hosts: Names and addresses of the upstream's endpoints.
    """
    text = refusal.detail
    if not text:
        return refusal
    shown_key = authorization.partition(b"\r\n")[0].rpartition(b" ")[2]
    credential = shown_key.decode("ascii")
    if credential and credential in text:
        return replace(refusal, detail="")
    shown = _PLACE.sub(_REDACTED, text)
    for host in (host for host in hosts if host in shown):
        shown = re.sub(rf"(?<![\w.-]){re.escape(host)}(?![\w-])", _REDACTED, shown)
    if shown == text:
        return refusal
    return replace(refusal, detail=shown)


def dropped(refusal: Refusal, reason: bytes | None) -> Refusal:
    """Return a refusal with the word that an endpoint picker has for why it dropped the request.

    Args:
        refusal: What its answer means.
        reason: Its `x-llm-d-request-dropped-reason`, if there was one.
    """
    if reason is None or len(reason) > _REASON_BYTES or _REASON.fullmatch(reason) is None:
        return refusal
    return replace(refusal, reason=reason.decode("ascii"))


def error_in_answer(raw: bytes) -> Refusal:
    """Return what an error object under HTTP 200 means.

    Args:
        raw: The `error` member as JSON.
    """
    status, text = error_status(raw), error_text(raw)
    if status in PASSED_STATUSES:
        return Refusal(REFUSED_BY_ENGINE, text)
    return Refusal(_lack_of_room(status, text) or FAILED, text)
