"""What an engine's failure means for the caller, whatever shape it has. Pure."""

from penstock.contract.usage import Attempt
from penstock.gateway.dialects.openai import error_status, error_text
from penstock.gateway.errors import (
    BAD_ANSWER,
    FAILED,
    MISCONFIGURED,
    OVERLOADED,
    REFUSED_BY_ENGINE,
)
from penstock.gateway.offer import ServedUpstream
from penstock.kit.errors import Refusal

PASSED_STATUSES = frozenset({400, 413, 415, 422})
"""What an engine finds wrong with a request goes to the caller under its own status."""
_MISCONFIGURED_STATUSES = frozenset({401, 403, 404, 405})
_OVERLOAD_STATUSES = frozenset({429, 503, 529})
_ERRORS_FROM = 400
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
    if status in _OVERLOAD_STATUSES:
        return Refusal(OVERLOADED, error_text(body), retry_after_s=_seconds(retry_after))
    return Refusal(FAILED if status >= _ERRORS_FROM else BAD_ANSWER, error_text(body))


def _seconds(retry_after: bytes | None) -> int | None:
    if retry_after is None or len(retry_after) > _RETRY_AFTER_DIGITS or not retry_after.isdigit():
        return None
    return int(retry_after)


def without_credential(refusal: Refusal, authorization: bytes) -> Refusal:
    """Return the refusal without the engine's words when they repeat our credential.

    Args:
        refusal: What the caller shall be told.
        authorization: The header line that the engine got, or nothing.
    """
    credential = authorization.partition(b"Bearer ")[2].strip().decode("ascii")
    if credential and credential in refusal.detail:
        return Refusal(refusal.error, retry_after_s=refusal.retry_after_s)
    return refusal


def error_in_answer(raw: bytes) -> Refusal:
    """Return what an error object under HTTP 200 means.

    Args:
        raw: The `error` member as JSON.
    """
    status, text = error_status(raw), error_text(raw)
    if status in PASSED_STATUSES:
        return Refusal(REFUSED_BY_ENGINE, text)
    if status in _OVERLOAD_STATUSES:
        return Refusal(OVERLOADED, text)
    return Refusal(FAILED, text)


def given_up(upstream: ServedUpstream, refusal: Refusal, left_s: float, now_ns: int) -> Attempt:
    """Return an attempt to connect that was given up for another one, as it is recorded.

    Args:
        upstream: Whose endpoint was tried.
        refusal: Why it was given up.
        left_s: Until it would have taken too long; negative when it did.
        now_ns: Nanoseconds since the Unix epoch.
    """
    took_ns = max(0, round((upstream.timeouts.connect_ms / 1_000 - left_s) * 1e9))
    reason = refusal.error.code.rpartition(":")[2]
    return Attempt(upstream.name, reason, now_ns - took_ns, now_ns)
