"""What the spans of a request are: pure. Names are OpenTelemetry's where it has one.

    request (server)
    ├── admit            until it was known that it may be asked for
    ├── queue            until limits gave what it takes, and its OPEN was written
    ├── chat llama-70b   (client) an endpoint that was tried, one for each
    └── chat llama-70b   (client) the last one
        └── stream       from its first byte to its last

Nothing of a prompt or an answer is in them: what they are made of has nothing of it.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from penstock.contract.finished import (
    ADMIT_SPAN,
    QUEUE_SPAN,
    STREAM_SPAN,
    FinishedRequest,
    Trace,
    part_span_id,
)
from penstock.node.telemetry.messages import CLIENT, INTERNAL, SERVER, Kind, Span, Value

_OPERATIONS: Final = {"completions": "text_completion"}
"""Our operations that OpenTelemetry calls otherwise."""
_SERVER_ERROR: Final = 500
_OURS: Final = frozenset({"upstream", "internal"})
"""Whose fault errors of a server are: what callers do wrong is none."""
_NOTHING: Final[Mapping[str, Value]] = {}

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
    "penstock.organization": "who pays; not there when nobody was authenticated",
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


def make_spans(request: FinishedRequest) -> list[Span]:
    """Return the spans of a request, its own first; none when it belongs to no trace of ours.

    Children begin and end within their parents, whatever the wall clock did meanwhile.
    """
    trace = request.trace
    if trace is None or not trace.span_id:
        return []
    times, own = _Times(request), trace.span_id
    attributes = _request_attributes(request)
    is_error = request.error_source in _OURS or request.status >= _SERVER_ERROR
    parent = trace.parent_span_id
    spans = [
        _span(
            trace,
            own,
            parent,
            "request",
            times.whole,
            kind=SERVER,
            attributes=attributes,
            is_error=is_error,
        )
    ]
    if times.admit[0] < times.admit[1]:
        spans.append(_span(trace, part_span_id(own, ADMIT_SPAN), own, "admit", times.admit))
    if request.event_id:
        spans.append(_span(trace, part_span_id(own, QUEUE_SPAN), own, "queue", times.queue))
    spans += _attempts(request, trace, times)
    return spans


class _Times:
    """Moments of a request in the order in which they were, each not before the one before it."""

    def __init__(self, request: FinishedRequest) -> None:
        begin = max(min(request.received_at_ns, request.started_at_ns), 0)
        self._end = max(request.finished_at_ns, begin)
        self._last = begin
        admitted = self.next(request.started_at_ns)
        dispatched = self.next(request.dispatched_at_ns or request.finished_at_ns)
        self.whole = begin, self._end
        self.admit = begin, admitted
        self.queue = admitted, dispatched

    def next(self, moment_ns: int) -> int:
        """Return a moment, or the last one before it or the end where it is not between them."""
        self._last = max(self._last, min(moment_ns, self._end))
        return self._last

    @property
    def last(self) -> int:
        """The latest moment that was asked for."""
        return self._last

    @property
    def end(self) -> int:
        """The end of the request."""
        return self._end


def _attempts(request: FinishedRequest, trace: Trace, times: _Times) -> Iterator[Span]:
    """Yield spans of endpoints that were tried; the last may have been followed by a refusal."""
    operation = _OPERATIONS.get(request.operation, request.operation)
    own, number = trace.span_id, 0
    for number, attempt in enumerate(request.earlier_attempts, 1):
        # Another model than in the end may have been asked for, under another name.
        name = f"{operation} {request.model}"
        attributes = _attempt_attributes(request, number, request.model, attempt.upstream)
        attributes["error.type"] = attempt.reason
        during = times.last, times.next(attempt.finished_at_ns)
        yield _span(
            trace,
            part_span_id(own, number),
            own,
            name,
            during,
            kind=CLIENT,
            attributes=attributes,
            is_error=True,
        )
    if request.attempt_count <= number:
        return
    last = part_span_id(own, number + 1)
    name, during = f"{operation} {request.served_model}", (times.last, times.end)
    attributes = _attempt_attributes(request, number + 1, request.served_model, request.upstream)
    attributes |= _last_attributes(request)
    is_error = request.error_source in _OURS
    yield _span(
        trace, last, own, name, during, kind=CLIENT, attributes=attributes, is_error=is_error
    )
    if request.first_byte_at_ns is not None and request.is_stream:
        during = times.next(request.first_byte_at_ns), times.end
        yield _span(trace, part_span_id(own, STREAM_SPAN), last, "stream", during)


def _attempt_attributes(
    request: FinishedRequest, number: int, model: str, upstream: str
) -> dict[str, Value]:
    endpoints = request.endpoints
    host, _, port = endpoints[number - 1].rpartition(":") if number <= len(endpoints) else ("",) * 3
    return {
        "gen_ai.operation.name": _OPERATIONS.get(request.operation, request.operation),
        "gen_ai.request.model": model,
        "penstock.upstream": upstream,
        "server.address": host,
        "server.port": int(port) if port.isascii() and port.isdigit() else None,
    }


def _last_attributes(request: FinishedRequest) -> dict[str, Value]:
    is_ok = request.outcome == "ok"
    first_byte_ns = request.first_byte_at_ns
    found: dict[str, Value] = {
        "gen_ai.provider.name": request.provider,
        "gen_ai.request.stream": request.is_stream,
        "gen_ai.response.model": request.served_model if is_ok else None,
        "error.type": None if is_ok else request.error_code or request.outcome,
        "penstock.region": request.region,
        "penstock.upstream_request_id": request.upstream_request_id,
        "penstock.usage_source": request.usage_source,
    }
    if first_byte_ns is not None:
        found |= {
            "gen_ai.usage.input_tokens": request.input_tokens,
            "gen_ai.usage.output_tokens": request.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": request.cached_input_tokens,
            "gen_ai.usage.cache_creation.input_tokens": request.cache_write_input_tokens,
            "gen_ai.usage.reasoning.output_tokens": request.reasoning_output_tokens,
        }
    return found


def _request_attributes(request: FinishedRequest) -> dict[str, Value]:
    by = request.refused_by
    return {
        "gen_ai.operation.name": _OPERATIONS.get(request.operation, request.operation),
        "gen_ai.request.model": request.model,
        "http.response.status_code": request.status or None,
        "http.request.body.size": request.request_bytes,
        "http.response.body.size": request.answer_bytes,
        "error.type": request.error_code,
        "penstock.organization": request.organization,
        "penstock.project": request.project,
        "penstock.key_id": request.key_id,
        "penstock.request_id": request.request_id,
        "penstock.event_id": request.event_id,
        "penstock.outcome": request.outcome,
        "penstock.error_code": request.error_code,
        "penstock.error_source": request.error_source,
        "penstock.rule.id": None if by is None else by.rule,
        "penstock.rule.metric": None if by is None else by.metric,
        "penstock.attempts": request.attempt_count,
        "penstock.worker": request.slot,
    }


def _span(
    trace: Trace,
    span_id: str,
    parent_id: str,
    name: str,
    during: tuple[int, int],
    *,
    kind: Kind = INTERNAL,
    attributes: Mapping[str, Value] = _NOTHING,
    is_error: bool = False,
) -> Span:
    start_ns, end_ns = during
    return Span(
        trace.trace_id,
        span_id,
        parent_id,
        name,
        kind,
        start_ns,
        end_ns,
        trace.is_sampled,
        attributes,
        is_error,
    )
