"""What the spans of a request are: names, times, parents, and what must never be in them."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, Status
from opentelemetry.semconv._incubating.attributes import (
    error_attributes,
    gen_ai_attributes,
    http_attributes,
    server_attributes,
)
from opentelemetry.semconv.attributes import error_attributes as stable_error
from opentelemetry.semconv.attributes import http_attributes as stable_http
from opentelemetry.semconv.attributes import server_attributes as stable_server
from tests.fakes.collector import attributes_of
from tests.fakes.fake_worker import make_event, make_open

from penstock.contract.finished import (
    Course,
    FinishedRequest,
    RefusedBy,
    Trace,
    finished_request,
)
from penstock.contract.usage import Attempt
from penstock.node.telemetry.messages import (
    TEXT_CHARACTERS,
    read_rejected,
    span_writer,
    write_span,
)
from penstock.node.telemetry.spans import ATTRIBUTES, STANDARD_ATTRIBUTES, write_spans

MS = 1_000_000
T = 1_750_000_000_000_000_000
TRACE = Trace("1" * 32, "2" * 15 + "0", "3" * 16, is_sampled=True)
COURSE = Course(TRACE, T - 2 * MS, T + MS, ("a:1", "b:2"), 100, 200, provider="vllm")
EARLIER = (Attempt("away", "connect_failed", T, T + 3 * MS),)


def _request(**changes: object) -> FinishedRequest:
    event = replace(
        make_event(make_open("event", T)),
        attempt_count=2,
        earlier_attempts=EARLIER,
        first_byte_at_ns=T + 5 * MS,
        finished_at_ns=T + 9 * MS,
        cached_input_tokens=3,
        cache_write_input_tokens=1,
        reasoning_output_tokens=2,
        upstream_request_id="chatcmpl-1",
        region="eu-de",
    )
    return replace(finished_request(event, COURSE, 3), **changes)


def _spans(request: FinishedRequest) -> list[Span]:
    """Return the spans as a collector reads them."""
    return list(ScopeSpans.FromString(b"".join(write_spans(request))).spans)


def _by_name(spans: list[Span]) -> dict[str, Span]:
    return {span.name: span for span in spans}


def _ms(span: Span) -> tuple[float, float]:
    return (span.start_time_unix_nano - T) / MS, (span.end_time_unix_nano - T) / MS


def test_a_request_has_a_span_for_each_part() -> None:
    """Admission, queue, each attempt and the stream are where they were, below their parents."""
    spans = _spans(_request())
    names = ["request", "admit", "queue", "chat emulated-70b", "chat emulated-70b", "stream"]
    assert [span.name for span in spans] == names
    request, admit, queue, given_up, last, stream = spans
    assert {span.trace_id.hex() for span in spans} == {"1" * 32}
    assert request.parent_span_id.hex() == "3" * 16
    assert {span.parent_span_id for span in (admit, queue, given_up, last)} == {request.span_id}
    assert stream.parent_span_id == last.span_id
    assert max(Counter(span.span_id for span in spans).values()) == 1
    assert [_ms(span) for span in spans] == [(-2, 9), (-2, 0), (0, 1), (1, 3), (3, 9), (5, 9)]
    kinds = [request.kind, last.kind, stream.kind]
    assert kinds == [Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT, Span.SPAN_KIND_INTERNAL]
    assert given_up.status.code == Status.STATUS_CODE_ERROR
    assert {span.status.code for span in (request, last)} == {Status.STATUS_CODE_UNSET}
    said = attributes_of(last)
    assert (said["server.address"], said["server.port"]) == ("b", 2)
    assert (said["gen_ai.provider.name"], said["gen_ai.usage.input_tokens"]) == ("vllm", 7)
    assert said["gen_ai.usage.cache_read.input_tokens"] == 3
    assert attributes_of(given_up)["error.type"] == "connect_failed"
    assert attributes_of(given_up)["server.address"] == "a"


def test_every_name_is_known() -> None:
    """Attributes are OpenTelemetry's, none that it gave up, or listed as ours; each is used."""
    known: set[str] = set()
    for module in (error_attributes, gen_ai_attributes, http_attributes, server_attributes):
        known |= {value for value in vars(module).values() if isinstance(value, str)}
    for module in (stable_error, stable_http, stable_server):
        known |= {value for value in vars(module).values() if isinstance(value, str)}
    gone = {"gen_ai.system", "gen_ai.usage.prompt_tokens", "gen_ai.usage.completion_tokens"}
    refused = replace(
        _request(),
        error_code="err:gateway:limits:rate_exceeded",
        error_source="downstream",
        outcome="refused",
        refused_by=RefusedBy("r1", "requests"),
    )
    used: set[str] = set()
    for span in [*_spans(_request()), *_spans(refused)]:
        used |= attributes_of(span).keys()
    ours = {name for name in used if name.startswith("penstock.")}
    assert ours == set(ATTRIBUTES)
    assert used - ours == set(STANDARD_ATTRIBUTES)
    assert set(STANDARD_ATTRIBUTES) <= known - gone


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"event_id": "", "attempt_count": 0, "earlier_attempts": ()}, ["request", "admit"]),
        (
            {"dispatched_at_ns": 0, "attempt_count": 0, "earlier_attempts": ()},
            ["request", "admit", "queue"],
        ),
        ({"attempt_count": 1}, ["request", "admit", "queue", "chat emulated-70b"]),
        ({"trace": None}, []),
        ({"trace": Trace("1" * 32, "", "3" * 16)}, []),
    ],
    ids=["not-admitted", "refused-by-a-limit", "refused-after-an-attempt", "no-trace", "not-ours"],
)
def test_what_did_not_happen_has_no_span(changes: dict[str, object], names: list[str]) -> None:
    """A refused request has no attempt, and one that is part of no trace of ours has nothing."""
    assert [span.name for span in _spans(_request(**changes))] == names


@pytest.mark.parametrize(
    ("source", "status", "is_error"),
    [("", 200, False), ("downstream", 429, False), ("upstream", 200, True), ("internal", 0, True)],
)
def test_errors_are_those_of_gateway_and_engine(
    source: str, status: int, *, is_error: bool
) -> None:
    """What the caller did wrong is no error of the server's span, what others did is."""
    request = _spans(_request(error_source=source, status=status))[0]
    assert (request.status.code == Status.STATUS_CODE_ERROR) == is_error


def test_a_usage_of_nothing_is_not_said() -> None:
    """An engine that gave no answer has no tokens; completions have OpenTelemetry's name."""
    spans = _spans(_request(first_byte_at_ns=None, operation="completions"))
    last = _by_name(spans)["text_completion emulated-70b"]
    assert not [name for name in attributes_of(last) if "usage.in" in name]
    assert "stream" not in _by_name(spans)


_moments = st.integers(-(10**18), 3 * 10**18)
_texts = st.text(max_size=300)


@settings(max_examples=60, deadline=None)
@given(
    times=st.tuples(_moments, _moments, _moments, _moments, _moments, _moments),
    text=_texts,
    count=st.integers(-(2**70), 2**70),
    tried=st.integers(0, 3),
)
def test_spans_nest_whatever_is_said(
    times: tuple[int, ...], text: str, count: int, tried: int
) -> None:
    """Clocks that jump, odd names and absurd figures make spans that nest, and bounded texts."""
    received, started, dispatched, first, finished, given_up = times
    earlier = tuple(Attempt(text, text, started, given_up) for _ in range(min(tried, 2)))
    request = _request(
        received_at_ns=received,
        started_at_ns=started,
        dispatched_at_ns=dispatched,
        first_byte_at_ns=first,
        finished_at_ns=finished,
        earlier_attempts=earlier,
        attempt_count=tried,
        endpoints=(text,) * tried,
        **dict.fromkeys(("request_id", "model", "served_model", "upstream", "operation"), text),
        **dict.fromkeys(("organization", "provider", "region", "upstream_request_id"), text),
        input_tokens=count,
        output_tokens=count,
        request_bytes=count,
    )
    spans = _spans(request)
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans)
    for span in spans:
        assert span.start_time_unix_nano <= span.end_time_unix_nano
        parent = by_id.get(span.parent_span_id)
        assert (parent is None) == (span is spans[0])
        if parent is not None:
            assert parent.start_time_unix_nano <= span.start_time_unix_nano
            assert span.end_time_unix_nano <= parent.end_time_unix_nano
        for value in attributes_of(span).values():
            assert not isinstance(value, str) or len(value) <= TEXT_CHARACTERS


_near = st.integers(-2, 3).map(lambda seconds: seconds * 1_000 * MS)


@settings(deadline=None)
@given(received=_near, started=_near, dispatched=_near, finished=_near)
def test_spans_begin_and_end_when_they_did(
    received: int, started: int, dispatched: int, finished: int
) -> None:
    """Moments are told as they were; one that is before another, or not known, is held to it."""
    changes = {"started_at_ns": started, "dispatched_at_ns": dispatched, "finished_at_ns": finished}
    spans = _by_name(_spans(_request(received_at_ns=received, **changes)))
    begin = max(min(received, started), 0)
    end = max(finished, begin)
    admitted = min(max(started, begin), end)
    left = min(max(dispatched or finished, admitted), end)
    wanted = {"request": (begin, end), "admit": (begin, admitted), "queue": (admitted, left)}
    if begin == admitted:  # it took no time
        del wanted["admit"]
    found = {
        name: (spans[name].start_time_unix_nano, spans[name].end_time_unix_nano)
        for name in ("request", "admit", "queue")
        if name in spans
    }
    assert found == wanted


_numbers = st.integers(1, 2**64 - 1)


@given(
    said=st.binary(max_size=300),
    trace_id=st.binary(min_size=16, max_size=16),
    ids=st.tuples(_numbers, _numbers),
    during=st.tuples(_numbers, _numbers),
)
def test_who_always_says_the_same_writes_the_same(
    said: bytes, trace_id: bytes, ids: tuple[int, int], during: tuple[int, int]
) -> None:
    """A writer for spans of which nothing else is said makes what is made of any span."""
    assert span_writer(said)(trace_id, *ids, *during) == write_span(trace_id, *ids, during, said)


def _answer(rejected: int) -> bytes:
    partial = ExportTracePartialSuccess(rejected_spans=rejected, error_message="full")
    return bytes(ExportTraceServiceResponse(partial_success=partial).SerializeToString())


@pytest.mark.parametrize(
    ("answer", "rejected"),
    [(b"", 0), (_answer(0), 0), (_answer(5), 5), (_answer(-5), 0), (b"<html>", 0)],
)
def test_what_an_answer_refuses_is_read(answer: bytes, rejected: int) -> None:
    """A part that is refused is a number, and what is no answer refuses nothing."""
    assert read_rejected(answer) == rejected
