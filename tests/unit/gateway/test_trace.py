"""Which trace a request belongs to, and what its engine is told of it."""

import random

import pytest

from penstock.contract.finished import ADMIT_SPAN, part_span_id
from penstock.contract.node import Tracing
from penstock.gateway.limits import ATTEMPTS
from penstock.gateway.request import Request
from penstock.gateway.trace import Tracer, engine_traceparent

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{SPAN}-01".encode()
NOT_SAMPLED = f"00-{TRACE}-{SPAN}-00".encode()


def _tracer(tracing: Tracing | None) -> Tracer:
    return Tracer(tracing, random.Random(7).getrandbits)


def test_without_tracing_nothing_is_made() -> None:
    """A request without a trace has none, and one with a trace keeps its caller's."""
    tracer = _tracer(None)
    assert tracer.begin(None) is None
    found = tracer.begin(SAMPLED)
    assert found is not None
    assert (found.trace_id, found.span_id, found.parent_span_id) == (TRACE, "", SPAN)
    assert found.is_sampled


def test_a_trace_goes_on() -> None:
    """Our span is a child of the caller's, and the engine's become children of our attempt's."""
    found = _tracer(Tracing()).begin(SAMPLED)
    assert found is not None
    assert (found.trace_id, found.parent_span_id, found.is_sampled) == (TRACE, SPAN, True)
    assert len(found.span_id) == 16
    assert found.span_id.endswith("0")
    for attempt in range(1, ATTEMPTS + 1):
        told = engine_traceparent(found, attempt).decode()
        assert told == f"00-{TRACE}-{part_span_id(found.span_id, attempt)}-01"
    assert ATTEMPTS < ADMIT_SPAN


def test_new_ids_are_such() -> None:
    """Each request has a trace of its own, of ids that are well formed."""
    tracer = _tracer(Tracing())
    found = [tracer.begin(None) for _ in range(100)]
    ids = {(each.trace_id, each.span_id) for each in found if each is not None}
    assert len({trace for trace, _ in ids}) == len({span for _, span in ids}) == 100
    assert {(len(trace), len(span), span[-1]) for trace, span in ids} == {(32, 16, "0")}
    for trace, span in ids:
        assert int(trace, 16)
        assert int(span, 16)


def test_a_ratio_chooses_by_the_trace() -> None:
    """About as many are chosen as it says, the same by everybody, and all or none at its ends."""
    same = Tracing(0.25, is_parent_based=False)
    quarter = _tracer(same)
    found = [quarter.begin(None) for _ in range(2_000)]
    chosen = [each for each in found if each is not None and each.is_sampled]
    assert 400 < len(chosen) < 600
    for each in found:
        assert each is not None
        again = _tracer(same).begin(f"00-{each.trace_id}-{SPAN}-00".encode())
        assert again is not None
        assert again.is_sampled == each.is_sampled
    for ratio, is_sampled in ((0.0, False), (1.0, True)):
        tracer = _tracer(Tracing(ratio, is_parent_based=False))
        every = [tracer.begin(None) for _ in range(50)]
        assert {each.is_sampled for each in every if each is not None} == {is_sampled}


@pytest.mark.parametrize(("parent", "is_sampled"), [(SAMPLED, True), (NOT_SAMPLED, False)])
def test_a_callers_decision_counts_where_it_may(parent: bytes, *, is_sampled: bool) -> None:
    """By default what the caller decided holds; otherwise the ratio does."""
    theirs = _tracer(Tracing(0.0 if is_sampled else 1.0)).begin(parent)
    assert theirs is not None
    assert theirs.is_sampled == is_sampled
    ours = _tracer(Tracing(0.0 if is_sampled else 1.0, is_parent_based=False)).begin(parent)
    assert ours is not None
    assert ours.is_sampled != is_sampled


def test_of_two_traces_neither_counts() -> None:
    """Which of them was meant nobody knows, so it is as if none was named."""
    request = Request()
    request.take_field(b"traceparent", SAMPLED)
    request.take_field(b"traceparent", NOT_SAMPLED)
    request.take_field(b"traceparent", SAMPLED)
    assert request.traceparent is None


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ([b"a=1"], b"a=1"),
        ([b"a=1", b"b=2"], b"a=1,b=2"),
        ([b"a=1", b"x" * 510], b"a=1"),
        ([b"x" * 513], None),
        ([b"a=\xe9"], None),
        ([b"a=\x1b[31m"], None),
    ],
)
def test_a_tracestate_is_kept_when_it_may_be_passed_on(
    values: list[bytes], kept: bytes | None
) -> None:
    """It is bounded and printable; of several fields one is made."""
    request = Request()
    for value in values:
        request.take_field(b"tracestate", value)
    assert request.tracestate == kept
