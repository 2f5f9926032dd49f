"""What became of one request, for those who tell of it: traces and the access log.

Nothing that counts is made of it: that is the usage event's. It is made of the record that a worker
writes of a request that was sent to an engine, and by the worker itself of one that was refused
before. It holds no content of prompts or answers.
"""

from typing import Final

import msgspec

from penstock.contract.usage import Attempt, Outcome, UsageEvent, UsageSource

ADMIT_SPAN: Final = 13
QUEUE_SPAN: Final = 14
STREAM_SPAN: Final = 15
_DIGITS: Final = "0123456789abcdef"


class Trace(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a request belongs among traces (W3C Trace Context)."""

    trace_id: str
    """32 hexadecimal digits, lower-case."""
    span_id: str = ""
    """The request's own span, 16 digits of which the last is 0; "" when none is made of it."""
    parent_span_id: str = ""
    """The caller's span; "" when it named none."""
    is_sampled: bool = False
    """Whether those who see the trace should keep it."""


def part_span_id(span_id: str, part: int) -> str:
    """Return the id of the span of a part of a request.

    So one random number names them all, and whoever makes them again makes the same.

    Args:
        span_id: The request's.
        part: The number of an attempt, 1..12, or one of `ADMIT_SPAN`, `QUEUE_SPAN`, `STREAM_SPAN`.
    """
    return span_id[:15] + _DIGITS[part]


class RefusedBy(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The limit or budget that said no."""

    rule: str
    """Its id."""
    metric: str
    """What it counts: `requests`, `tokens` ..., or `money`."""
    limit: int | None = None
    """What it gives; None for money."""
    retry_after_s: int | None = None
    """When there may be enough again; None when nobody knows."""


class Course(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How a request went, beside what it consumed. Fields are only ever appended, with a default.

    Times are nanoseconds since the Unix epoch.
    """

    trace: Trace | None = None
    received_at_ns: int = 0
    """When its last byte came; 0 when that is not known."""
    dispatched_at_ns: int = 0
    """When the first endpoint was turned to: what it takes of limits was taken, and its OPEN
    written. 0 when none was."""
    endpoints: tuple[str, ...] = ()
    """Hosts and ports of the endpoints that were tried, in order."""
    request_bytes: int = 0
    """Of its body."""
    answer_bytes: int = 0
    """What its caller was sent of an engine's answer."""
    error_source: str = ""
    """Whose fault its error is: `downstream`, `upstream` or `internal`."""
    refused_by: RefusedBy | None = None
    provider: str = ""
    """Kind of the engine that was asked last: `vllm`, `openai` ..."""
    dropped_reason: str = ""
    """Why an endpoint picker behind the upstream dropped it, e.g. `rejected-saturated`."""


class FinishedRequest(msgspec.Struct, frozen=True, gc=False):
    """One request that has ended. What is not said here means what it means in `UsageEvent`."""

    event_id: str
    """"" for one that was refused before anything was admitted."""
    request_id: str
    slot: int
    """Of the worker that served it."""
    trace: Trace | None
    organization: str
    """"" where nobody was authenticated."""
    project: str
    key_id: str
    model: str
    """The alias that was asked for; "" where that was not admitted, so it may be anything."""
    served_model: str
    provider: str
    upstream: str
    endpoints: tuple[str, ...]
    region: str
    operation: str
    """"" where the path is none of ours."""
    is_stream: bool
    outcome: Outcome
    status: int
    error_code: str | None
    error_source: str
    refused_by: RefusedBy | None
    received_at_ns: int
    started_at_ns: int
    """When it was admitted; when it was refused, for want of that."""
    dispatched_at_ns: int
    first_byte_at_ns: int | None
    finished_at_ns: int
    attempt_count: int
    """Endpoints tried, 0 when none was."""
    earlier_attempts: tuple[Attempt, ...]
    usage_source: UsageSource
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int | None
    cache_write_input_tokens: int | None
    reasoning_output_tokens: int | None
    request_bytes: int
    answer_bytes: int
    service_tier: str
    upstream_request_id: str
    dropped_reason: str

    @property
    def trace_id(self) -> str:
        """Its trace; "" when there is none."""
        return "" if self.trace is None else self.trace.trace_id


def finished_request(event: UsageEvent, course: Course | None, slot: int) -> FinishedRequest:
    """Return a request that has ended.

    Args:
        event: What it consumed.
        course: How it went; None for a record of an older worker.
        slot: Of its worker.
    """
    went = course or _UNKNOWN
    return FinishedRequest(
        event.event_id,
        event.request_id,
        slot,
        went.trace,
        event.organization,
        event.project,
        event.key_id,
        event.model,
        event.served_model,
        went.provider,
        event.upstream,
        went.endpoints,
        event.region,
        event.operation,
        event.is_stream,
        event.outcome,
        event.status,
        event.error_code,
        went.error_source,
        went.refused_by,
        went.received_at_ns or event.started_at_ns,
        event.started_at_ns,
        went.dispatched_at_ns,
        event.first_byte_at_ns,
        event.finished_at_ns,
        event.attempt_count,
        event.earlier_attempts,
        event.usage_source,
        event.input_tokens,
        event.output_tokens,
        event.cached_input_tokens,
        event.cache_write_input_tokens,
        event.reasoning_output_tokens,
        went.request_bytes,
        went.answer_bytes,
        event.service_tier,
        event.upstream_request_id,
        went.dropped_reason,
    )


_UNKNOWN: Final = Course()
