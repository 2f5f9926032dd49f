"""A line of the access log: what is said of a request that ended. Pure.

No line holds content of prompts or answers.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from penstock.contract.finished import FinishedRequest
from penstock.contract.usage import Attempt
from penstock.kit.logs.event import line
from penstock.kit.logs.redaction import redact
from penstock.kit.moments import format_time
from penstock.node import log_events

_LEVEL: Final = log_events.REQUEST_ENDED.level.name.lower()
_encode = msgspec.json.Encoder().encode


class AccessLine(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """What a line says, in its order; what is not known or does not apply is left out.

    Times are milliseconds of this request.
    """

    ts: str
    level: str
    event: str
    process: str
    node: str
    slot: int
    request_id: str
    event_id: str = ""
    """Names its usage event, if an engine was asked: see `attempts`."""
    trace_id: str = ""
    organization: str = ""
    project: str = ""
    key_id: str = ""
    model: str = ""
    served_model: str = ""
    operation: str = ""
    stream: bool = False
    status: int
    outcome: str
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
    upstream: str = ""
    provider: str = ""
    endpoints: tuple[str, ...] = ()
    """Those that were tried, in order."""
    region: str = ""
    attempts: int = 0
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
    usage_source: str = ""
    request_bytes: int = 0
    answer_bytes: int = 0
    service_tier: str = ""
    upstream_request_id: str = ""


def write_line(request: FinishedRequest, node: str, *, is_text: bool) -> bytes:
    """Return a request's line, in ASCII and with its end.

    Args:
        request: It has ended.
        node: The node's id.
        is_text: Whether people read it; else it is JSON.
    """
    said = access_line(request, node)
    if is_text:
        fields = msgspec.to_builtins(said)
        ts, level = fields.pop("ts"), fields.pop("level")
        for name in ("event", "process", "node"):
            del fields[name]
        return (
            line(f"{ts} {level.upper():<8} {log_events.REQUEST_ENDED.words}", fields).encode()
            + b"\n"
        )
    raw = _encode(said)
    if not raw.isascii() or b"\x7f" in raw:
        # As in every log: what ends a line, or is half a character, differs between readers.
        raw = json.dumps(msgspec.json.decode(raw), separators=(",", ":")).encode()
        raw = raw.replace(b"\x7f", b"\\u007f")
    return raw + b"\n"


def access_line(request: FinishedRequest, node: str) -> AccessLine:
    """Return what is said of a request."""
    request_id, event_id, by = request.request_id, request.event_id, request.refused_by
    trace = request.trace
    has_engine = request.attempt_count > 0
    return AccessLine(
        ts=format_time(request.finished_at_ns // 1_000),
        level=_LEVEL,
        event=log_events.REQUEST_ENDED.name,
        process="agent",
        node=node,
        slot=request.slot,
        # The only words of callers and engines in it that may be any.
        request_id=request_id if request_id == event_id else redact(request_id),
        upstream_request_id=redact(request.upstream_request_id),
        event_id=event_id,
        trace_id="" if trace is None else trace.trace_id,
        organization=request.organization,
        project=request.project,
        key_id=request.key_id,
        model=request.model,
        served_model=request.served_model,
        operation=request.operation,
        stream=request.is_stream,
        status=request.status,
        outcome=request.outcome,
        error=request.error_code or "",
        error_source=request.error_source,
        dropped_reason=request.dropped_reason,
        rule="" if by is None else by.rule,
        rule_metric="" if by is None else by.metric,
        rule_limit=None if by is None else by.limit,
        retry_after_s=None if by is None else by.retry_after_s,
        upstream=request.upstream,
        provider=request.provider,
        endpoints=request.endpoints,
        region=request.region,
        attempts=request.attempt_count,
        given_up=_given_up(request.earlier_attempts) if request.earlier_attempts else (),
        admit_ms=_ms(request.received_at_ns, request.started_at_ns),
        limits_ms=_ms(
            request.started_at_ns,
            request.dispatched_at_ns or (0 if by is None else request.finished_at_ns),
        ),
        first_byte_ms=_ms(request.dispatched_at_ns, request.first_byte_at_ns or 0),
        total_ms=_ms(request.received_at_ns, request.finished_at_ns),
        input_tokens=request.input_tokens,
        cached_input_tokens=request.cached_input_tokens,
        cache_write_input_tokens=request.cache_write_input_tokens,
        output_tokens=request.output_tokens,
        reasoning_output_tokens=request.reasoning_output_tokens,
        usage_source=request.usage_source if has_engine else "",
        request_bytes=request.request_bytes,
        answer_bytes=request.answer_bytes,
        service_tier=request.service_tier,
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
