"""Histograms of times: near to what they are of, and the same however they were put together."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.metering.usage_events import make_event

from penstock.contract.usage import UsageEvent
from penstock.metering.latency_rules import (
    MEASURES,
    Counts,
    bucket_of,
    count_times,
    merge,
    middle_us,
    quantile_us,
    times_of,
)

_times = st.integers(0, 100) | st.integers(0, 10**9)


@given(time_us=_times | st.integers(0, 2**53))
def test_a_bucket_is_near_to_its_times(time_us: int) -> None:
    """The middle of a bucket is at most 1/16 away, and buckets are in the order of their times."""
    bucket = bucket_of(time_us)
    assert abs(middle_us(bucket) - time_us) * 16 <= time_us
    assert bucket_of(time_us + 1) - bucket in {0, 1}
    assert bucket_of(-time_us) == 0
    assert bucket_of(2**62) == bucket_of(2**53)


@given(times=st.lists(_times, min_size=1, max_size=60), percentage=st.sampled_from([50, 90, 99]))
def test_a_percentile_is_near_to_what_it_is(times: list[int], percentage: int) -> None:
    """A percentile of a histogram is within 1/16 of the one of the times themselves."""
    exact = sorted(times)[-(-len(times) * percentage // 100) - 1]
    buckets = Counter(str(bucket_of(time_us)) for time_us in times)
    assert abs(quantile_us(buckets, percentage) - exact) * 16 <= exact


@st.composite
def _events(draw: st.DrawFn) -> list[UsageEvent]:
    events = []
    for number in range(draw(st.integers(0, 12))):
        start_ns = 1_750_000_000 * 10**9 + draw(st.integers(0, 3)) * 3_600 * 10**9
        waited_us = draw(st.none() | _times)
        first_ns = None if waited_us is None else start_ns + waited_us * 1_000
        event = make_event(
            number,
            started_at_ns=start_ns,
            first_byte_at_ns=first_ns,
            finished_at_ns=(first_ns or start_ns) + draw(_times) * 1_000,
            is_stream=draw(st.booleans()),
            outcome=draw(st.sampled_from(["ok", "timeout", "caller_gone"])),
            output_tokens=draw(st.integers(0, 3)),
            model=draw(st.sampled_from(["a", "b"])),
        )
        events.append(event)
    return events


@given(events=_events(), place=st.integers(0, 12))
def test_histograms_add_up(events: list[UsageEvent], place: int) -> None:
    """Histograms of two parts, put together, are those of all at once."""
    parts = [count_times(events[:place]), count_times(events[place:])]
    sums: dict[object, Counts] = {}
    for part in parts:
        for cell, counts in part.items():
            merge(sums.setdefault(cell, {}), counts)
    assert sums == count_times(events)


@given(events=_events())
def test_times_are_of_what_has_them(events: list[UsageEvent]) -> None:
    """Only streams have a first token, only those of several each token, only good ones an end."""
    for event in events:
        times = dict(times_of(event))
        assert {*times} <= {*MEASURES}
        first_ns = event.first_byte_at_ns
        assert ("time_to_first_token" in times) == (event.is_stream and first_ns is not None)
        assert ("request_duration" in times) == (event.outcome == "ok")
        if event.is_stream and first_ns is not None and event.output_tokens > 1:
            all_us = (event.finished_at_ns - first_ns) // 1_000
            assert times["time_per_output_token"] == all_us // (event.output_tokens - 1)
        else:
            assert "time_per_output_token" not in times
