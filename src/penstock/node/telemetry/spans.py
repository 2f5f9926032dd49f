"""What the spans of a request are: pure. Names are OpenTelemetry's where it has one.

    request (server)
    ├── admit            until it was known that it may be asked for
    ├── queue            until limits gave what it takes, and its OPEN was written
    ├── chat llama-70b   (client) an endpoint that was tried, one for each
    └── chat llama-70b   (client) the last one
        └── stream       from its first byte to its last

Nothing of a prompt or an answer is in them: what they are made of has nothing of it.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from penstock.contract.finished import (
    ADMIT_SPAN,
    QUEUE_SPAN,
    STREAM_SPAN,
    FinishedRequest,
    RefusedBy,
)
from penstock.node.telemetry.messages import (
    CLIENT,
    ENDS,
    INTERNAL,
    SERVER,
    SpanWriter,
    Value,
    describe,
    describe_span,
    read_ids,
    say_number,
    say_text,
    span_number,
    span_writer,
    write_span,
)

_OPERATIONS: Final = {
    "completions": "text_completion",
    "messages": "chat",
    "responses": "chat",
}
"""Our operations that OpenTelemetry calls otherwise."""
_SERVER_ERROR: Final = 500
_OURS: Final = frozenset({"upstream", "internal"})
"""Whose fault errors of a server are: what callers do wrong is none."""
_DIGIT: Final = 56
"""Where the digit of a part lies in the number of a span."""
_ADMIT, _QUEUE, _STREAM = (part << _DIGIT for part in (ADMIT_SPAN, QUEUE_SPAN, STREAM_SPAN))
_KEPT: Final = 4_096
"""Descriptions of each sort that are kept, with nothing in them that a caller can make up."""

SPANS: Final = {
    "request": ("the caller's span", "its last byte came", "its usage was recorded"),
    "admit": ("request", "its last byte came", "it was known that it may be asked for"),
    "queue": ("request", "then", "limits gave what it takes, or said no, and its OPEN was written"),
    "chat llama-70b": ("request", "an endpoint was turned to", "it was given up, or the end"),
    "stream": ("the last attempt", "the first byte of a stream", "the end"),
}
"""Each with what it is below, and from when to when it is."""
STANDARD_ATTRIBUTES: Final = {
    "gen_ai.operation.name": "request, attempt: `chat`, `text_completion`, `embeddings` ...",
    "gen_ai.request.model": "request: the alias; attempt: what the engine calls it",
    "gen_ai.request.stream": "attempt: whether a stream was asked for",
    "gen_ai.response.model": "attempt that ended well: what the engine calls the model",
    "gen_ai.provider.name": "attempt: kind of the engine, as `provider` of its upstream",
    "gen_ai.usage.input_tokens": "attempt that was answered: as in the usage event, as the others",
    "gen_ai.usage.output_tokens": "the same",
    "gen_ai.usage.cache_read.input_tokens": "the same",
    "gen_ai.usage.cache_creation.input_tokens": "the same",
    "gen_ai.usage.reasoning.output_tokens": "the same",
    "server.address": "attempt: host of the endpoint",
    "server.port": "attempt: its port",
    "error.type": "request, attempt: error code, or why it was given up",
    "http.response.status_code": "request: status that was answered",
    "http.request.body.size": "request: bytes",
    "http.response.body.size": "request: bytes that were shown of the engine's answer",
}
"""Those that OpenTelemetry names: on which span, and what."""
ATTRIBUTES: Final = {
    "penstock.organization": "who pays",
    "penstock.project": "of the organization",
    "penstock.key_id": "id of the key that was shown",
    "penstock.request_id": "`x-request-id` of the answer",
    "penstock.event_id": "of the usage event",
    "penstock.outcome": "as in the usage event",
    "penstock.error_code": "`err:...`, see the reference of errors",
    "penstock.error_source": "whose fault it is: `downstream`, `upstream`, `internal`",
    "penstock.rule.id": "the limit or budget that refused it",
    "penstock.rule.metric": "what that counts",
    "penstock.attempts": "endpoints that were tried",
    "penstock.upstream": "whose endpoint was tried",
    "penstock.region": "where it was processed, as the upstream says",
    "penstock.upstream_request_id": "what the engine calls the request",
    "penstock.usage_source": "how its tokens are known: `engine`, `counted`, `estimated`",
    "penstock.worker": "slot of the worker that served it",
}
"""Those that are ours, and what they are."""


def write_spans(request: FinishedRequest) -> list[bytes]:
    """Return the spans of a request, its own first; none when it belongs to no trace of ours.

    Children begin and end within their parents, whatever the wall clock did meanwhile.
    """
    trace = request.trace
    if trace is None or not trace.span_id:
        return []
    trace_id, own_id = read_ids(trace.trace_id, trace.span_id)
    parent_id = span_number(trace.parent_span_id) if trace.parent_span_id else 0
    begin_ns, admitted_ns, dispatched_ns, end_ns = _moments(request)
    is_sampled = trace.is_sampled
    said = _served(request, is_sampled)
    spans = [write_span(trace_id, own_id, parent_id, (begin_ns, end_ns), said)]
    if begin_ns < admitted_ns:
        write = _part_writer("admit", is_sampled)
        spans.append(write(trace_id, own_id | _ADMIT, own_id, begin_ns, admitted_ns))
    if request.event_id:
        write = _part_writer("queue", is_sampled)
        spans.append(write(trace_id, own_id | _QUEUE, own_id, admitted_ns, dispatched_ns))
    if request.attempt_count:
        spans += _attempts(request, is_sampled, (trace_id, own_id), (dispatched_ns, end_ns))
    return spans


def _moments(request: FinishedRequest) -> tuple[int, int, int, int]:
    """Return when it came, was admitted and dispatched, and ended: none before another."""
    begin_ns, admitted_ns = request.received_at_ns, request.started_at_ns
    end_ns = request.finished_at_ns
    dispatched_ns = request.dispatched_at_ns or end_ns
    if 0 <= begin_ns <= admitted_ns <= dispatched_ns <= end_ns:
        return begin_ns, admitted_ns, dispatched_ns, end_ns
    # The wall clock was set, or something is not known.
    begin_ns = max(min(begin_ns, admitted_ns), 0)
    end_ns = max(end_ns, begin_ns)
    admitted_ns = _between(begin_ns, admitted_ns, end_ns)
    return begin_ns, admitted_ns, _between(admitted_ns, dispatched_ns, end_ns), end_ns


def _between(earliest: int, moment: int, latest: int) -> int:
    """Return a moment, or the end of a period that it is beyond."""
    if moment < earliest:
        return earliest
    return min(moment, latest)


@lru_cache(maxsize=8)
def _part_writer(
    name: str,
    is_sampled: bool,  # noqa: FBT001 - what is kept is found by place
) -> SpanWriter:
    return span_writer(describe_span(name, INTERNAL, {}) + ENDS[is_sampled, False])


# The request's own span


def _served(request: FinishedRequest, is_sampled: bool) -> bytes:  # noqa: FBT001 - as below
    """Return what is said of all of it."""
    return b"".join(
        (
            _describe_request(
                (
                    request.operation,
                    request.model,
                    request.status,
                    request.attempt_count,
                    request.slot,
                    request.outcome,
                    request.error_code,
                    request.error_source,
                    request.refused_by,
                    is_sampled,
                )
            ),
            _describe_caller(request.organization, request.project, request.key_id),
            say_number("http.request.body.size", request.request_bytes),
            say_number("http.response.body.size", request.answer_bytes),
            say_text("penstock.request_id", request.request_id),
            say_text("penstock.event_id", request.event_id),
        )
    )


@lru_cache(maxsize=_KEPT)
def _describe_caller(organization: str, project: str, key_id: str) -> bytes:
    return describe(
        {
            "penstock.organization": organization,
            "penstock.project": project,
            "penstock.key_id": key_id,
        }
    )


@lru_cache(maxsize=_KEPT)
def _describe_request(
    what: tuple[str, str, int, int, int, str, str | None, str, RefusedBy | None, bool],
) -> bytes:
    operation, model, status, attempts, slot, outcome, error_code, error_source, by, is_sampled = (
        what
    )
    said = describe_span(
        "request",
        SERVER,
        {
            "gen_ai.operation.name": _OPERATIONS.get(operation, operation),
            "gen_ai.request.model": model,
            "http.response.status_code": status or None,
            "penstock.attempts": attempts,
            "penstock.worker": slot,
            "error.type": error_code,
            "penstock.outcome": outcome,
            "penstock.error_code": error_code,
            "penstock.error_source": error_source,
            "penstock.rule.id": None if by is None else by.rule,
            "penstock.rule.metric": None if by is None else by.metric,
        },
    )
    return said + ENDS[is_sampled, error_source in _OURS or status >= _SERVER_ERROR]


# Those of its attempts


def _attempts(
    request: FinishedRequest,
    is_sampled: bool,  # noqa: FBT001 - as below
    ids: tuple[bytes, int],
    during: tuple[int, int],
) -> list[bytes]:
    """Return spans of endpoints that were tried; the last may have been followed by a refusal."""
    (trace_id, own_id), (begin_ns, end_ns) = ids, during
    spans: list[bytes] = []
    number = 1
    for attempt in request.earlier_attempts:
        until_ns = _between(begin_ns, attempt.finished_at_ns, end_ns)
        # Another model than in the end may have been asked for, under another name.
        said = _describe_attempt(
            request.operation,
            request.model,
            attempt.upstream,
            _endpoint(request, number),
            attempt.reason,
        )
        said += ENDS[is_sampled, True]
        part_id = own_id | number << _DIGIT
        spans.append(write_span(trace_id, part_id, own_id, (begin_ns, until_ns), said))
        begin_ns = until_ns
        number += 1
    if request.attempt_count < number:
        return spans
    last_id = own_id | number << _DIGIT
    said = _last_attempt(request, _endpoint(request, number), is_sampled)
    spans.append(write_span(trace_id, last_id, own_id, (begin_ns, end_ns), said))
    if request.first_byte_at_ns is not None and request.is_stream:
        streams_ns = _between(begin_ns, request.first_byte_at_ns, end_ns)
        write = _part_writer("stream", is_sampled)
        spans.append(write(trace_id, own_id | _STREAM, last_id, streams_ns, end_ns))
    return spans


def _endpoint(request: FinishedRequest, number: int) -> str:
    endpoints = request.endpoints
    return endpoints[number - 1] if number <= len(endpoints) else ""


def _last_attempt(
    request: FinishedRequest,
    endpoint: str,
    is_sampled: bool,  # noqa: FBT001 - as below
) -> bytes:
    """Return what is said of it."""
    said = _describe_last(
        (
            request.operation,
            request.served_model,
            request.upstream,
            endpoint,
            None if request.outcome == "ok" else request.error_code or request.outcome,
            request.provider,
            request.region,
            request.usage_source,
            request.is_stream,
            request.error_source,
            is_sampled,
        )
    )
    engines_id = say_text("penstock.upstream_request_id", request.upstream_request_id)
    if request.first_byte_at_ns is None:
        return said + engines_id
    return b"".join(
        (
            said,
            engines_id,
            say_number("gen_ai.usage.input_tokens", request.input_tokens),
            say_number("gen_ai.usage.output_tokens", request.output_tokens),
            _describe_parts(
                request.cached_input_tokens,
                request.cache_write_input_tokens,
                request.reasoning_output_tokens,
            ),
        )
    )


@lru_cache(maxsize=_KEPT)
def _describe_parts(cached: int | None, cache_write: int | None, reasoning: int | None) -> bytes:
    return describe(
        {
            "gen_ai.usage.cache_read.input_tokens": cached,
            "gen_ai.usage.cache_creation.input_tokens": cache_write,
            "gen_ai.usage.reasoning.output_tokens": reasoning,
        }
    )


@lru_cache(maxsize=_KEPT)
def _describe_last(
    what: tuple[str, str, str, str, str | None, str, str, str, bool, str, bool],
) -> bytes:
    operation, model, upstream, endpoint, error, provider = what[:6]
    region, usage_source, is_stream, error_source, is_sampled = what[6:]
    said: Mapping[str, Value] = {
        "gen_ai.provider.name": provider,
        "gen_ai.request.stream": is_stream,
        "gen_ai.response.model": model if error is None else None,
        "penstock.region": region,
        "penstock.usage_source": usage_source,
    }
    return (
        _describe_attempt(operation, model, upstream, endpoint, error)
        + describe(said)
        + ENDS[is_sampled, error_source in _OURS]
    )


@lru_cache(maxsize=_KEPT)
def _describe_attempt(
    operation: str, model: str, upstream: str, endpoint: str, error: str | None
) -> bytes:
    operation = _OPERATIONS.get(operation, operation)
    host, _, port = endpoint.rpartition(":")
    return describe_span(
        f"{operation} {model}",
        CLIENT,
        {
            "gen_ai.operation.name": operation,
            "gen_ai.request.model": model,
            "penstock.upstream": upstream,
            "server.address": host,
            "server.port": int(port) if port.isascii() and port.isdigit() else None,
            "error.type": error,
        },
    )
