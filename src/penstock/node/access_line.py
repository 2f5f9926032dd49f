"""A line of the access log: what is said of a request that ended. Pure.

No line holds content of prompts or answers. What many requests have in common is written once and
kept: only `RequestPart` is written of each.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from penstock.contract.finished import FinishedRequest, RefusedBy
from penstock.contract.usage import Attempt
from penstock.kit.logs.event import line
from penstock.kit.logs.redaction import redact
from penstock.kit.moments import format_time
from penstock.node import log_events

_LEVEL: Final = log_events.REQUEST_ENDED.level.name.lower()
_KEPT: Final = 4_096
"""Parts of each sort that are kept, with nothing in them that a caller can make up."""
_encode = msgspec.json.Encoder().encode


class CommonPart(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What lines begin with, behind their time: where a request was served, and how it ended.

    Of all parts: they say things in this order, and leave out what is not known or does not apply.
    """

    level: str
    event: str
    process: str
    node: str
    slot: int
    status: int
    outcome: str
    operation: str = ""
    stream: bool = False
    model: str = ""
    served_model: str = ""
    upstream: str = ""
    provider: str = ""
    region: str = ""
    attempts: int = 0
    usage_source: str = ""
    service_tier: str = ""
    error: str = ""
    """The error's code: what it means and what to do is in the reference of errors."""
    error_source: str = ""
    """`downstream`, `upstream` or `internal`."""
    dropped_reason: str = ""
    """Why llm-d, or another endpoint picker, dropped it, in its word."""
    rule: str = ""
    """Id of the limit or budget that said no, and what it counts and gives."""
    rule_metric: str = ""
    rule_limit: int | None = None
    retry_after_s: int | None = None


class CallerPart(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Whose request it was."""

    organization: str = ""
    project: str = ""
    key_id: str = ""


class RequestPart(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What is another in each line. Times are milliseconds of this request."""

    request_id: str
    event_id: str = ""
    """Names its usage event, if an engine was asked: see `attempts`."""
    trace_id: str = ""
    endpoints: tuple[str, ...] = ()
    """Those that were tried, in order."""
    given_up: tuple[dict[str, Any], ...] = ()
    """Attempts before the last one: `upstream`, `reason`, `ms`."""
    admit_ms: float | None = None
    """From the request's last byte until it was admitted, or refused."""
    limits_ms: float | None = None
    """From there until limits and budgets had answered, and an endpoint was turned to."""
    first_byte_ms: float | None = None
    """From there until the first byte of the answer."""
    total_ms: float | None = None
    """From the request's last byte until the answer's last one."""
    input_tokens: int = 0
    cached_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    output_tokens: int = 0
    reasoning_output_tokens: int | None = None
    request_bytes: int = 0
    answer_bytes: int = 0
    upstream_request_id: str = ""


def write_line(request: FinishedRequest, node: str, *, is_text: bool) -> bytes:
    """Return a request's line, in ASCII and with its end.

    Args:
        request: It has ended.
        node: The node's id.
        is_text: Whether people read it; else it is JSON.
    """
    raw = b"".join(
        (
            b'{"ts":"',
            format_time(request.finished_at_ns // 1_000).encode(),
            b'",',
            _common_part(
                (
                    node,
                    request.slot,
                    request.status,
                    request.outcome,
                    request.operation,
                    request.is_stream,
                    request.model,
                    request.served_model,
                    request.upstream,
                    request.provider,
                    request.region,
                    request.attempt_count,
                    request.usage_source if request.attempt_count else "",
                    request.service_tier,
                    request.error_code or "",
                    request.error_source,
                    request.dropped_reason,
                ),
                request.refused_by,
            ),
            _caller_part(request.organization, request.project, request.key_id),
            _encode(_request_part(request))[1:],
        )
    )
    if is_text:
        return _in_words(msgspec.json.decode(raw))
    if not raw.isascii() or b"\x7f" in raw:
        # As in every log: what ends a line, or is half a character, differs between readers.
        raw = json.dumps(msgspec.json.decode(raw), separators=(",", ":")).encode()
        raw = raw.replace(b"\x7f", b"\\u007f")
    return raw + b"\n"


def _in_words(said: dict[str, Any]) -> bytes:
    ts, level = said.pop("ts"), said.pop("level")
    for name in ("event", "process", "node"):
        del said[name]
    return line(f"{ts} {level.upper():<8} {log_events.REQUEST_ENDED.words}", said).encode() + b"\n"


@lru_cache(maxsize=_KEPT)
def _common_part(what: tuple[Any, ...], by: RefusedBy | None) -> bytes:
    """Return a part, with a comma behind it.

    Args:
        what: Its members from `node` to `dropped_reason`.
        by: The rest.
    """
    rule = () if by is None else msgspec.structs.astuple(by)
    part = CommonPart(_LEVEL, log_events.REQUEST_ENDED.name, "agent", *what, *rule)
    return _encode(part)[1:-1] + b","


@lru_cache(maxsize=_KEPT)
def _caller_part(organization: str, project: str, key_id: str) -> bytes:
    said = _encode(CallerPart(organization, project, key_id))[1:-1]
    return said + b"," if said else b""


def _request_part(request: FinishedRequest) -> RequestPart:
    request_id, event_id, trace = request.request_id, request.event_id, request.trace
    received_at_ns, admitted_at_ns = request.received_at_ns, request.started_at_ns
    dispatched_at_ns, finished_at_ns = request.dispatched_at_ns, request.finished_at_ns
    limited_at_ns = dispatched_at_ns or (finished_at_ns if request.refused_by else 0)
    earlier = request.earlier_attempts
    return RequestPart(
        # The only words of callers and engines in it that may be any.
        request_id if request_id == event_id else redact(request_id),
        event_id,
        "" if trace is None else trace.trace_id,
        request.endpoints,
        _given_up(earlier) if earlier else (),
        _ms(received_at_ns, admitted_at_ns),
        _ms(admitted_at_ns, limited_at_ns),
        _ms(dispatched_at_ns, request.first_byte_at_ns or 0),
        _ms(received_at_ns, finished_at_ns),
        request.input_tokens,
        request.cached_input_tokens,
        request.cache_write_input_tokens,
        request.output_tokens,
        request.reasoning_output_tokens,
        request.request_bytes,
        request.answer_bytes,
        redact(request.upstream_request_id),
    )


def _given_up(attempts: Sequence[Attempt]) -> tuple[dict[str, Any], ...]:
    return tuple(
        {
            "upstream": each.upstream,
            "reason": each.reason,
            "ms": _ms(each.started_at_ns, each.finished_at_ns),
        }
        for each in attempts
    )


def _ms(began_at_ns: int, ended_at_ns: int) -> float | None:
    """Return the time between; None when one of them is not known."""
    if not began_at_ns or not ended_at_ns:
        return None
    return (ended_at_ns - began_at_ns + 500) // 1_000 / 1_000
