"""What engines say of how busy they are, and how endpoints are chosen by it."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.contract.snapshot import Endpoint
from penstock.engines.load import Figures
from penstock.gateway.engine_load import WHOLE, EngineLoad, weigh
from penstock.gateway.limits import (
    LOAD_ASKED_AGAIN_S,
    LOAD_ASKED_S,
    LOAD_BELIEVED_S,
    LOAD_MOST_OFF,
)
from penstock.gateway.select import select

FULL, IDLE = Figures(8.0, 8.0, 1.0), Figures(8.0, 0.0, 0.0)
HALF = b"TEXT named_metrics.kv_cache_usage_perc=0.5"


def _pools(*weights: int, reports: bool = False) -> list[Any]:
    return [
        SimpleNamespace(
            endpoint=Endpoint("http", "10.0.0.1", 8000 + number, weight=weight),
            weight=weight * WHOLE,
            load=EngineLoad(reports=reports),
            in_flight=0,
            reading=0,
            cool_until_s=0.0,
            health=SimpleNamespace(out_until_s=0.0),
        )
        for number, weight in enumerate(weights)
    ]


def _shares(pools: list[Any], count: int) -> list[int]:
    """Return how many of so many requests each has, all in flight at once."""
    chosen: Counter[int] = Counter()
    for _ in range(count):
        pool: Any = select(pools, (), 0.0)
        pool.in_flight += 1
        chosen[pools.index(pool)] += 1
    for pool in pools:
        pool.in_flight = 0
    return [chosen[number] for number in range(len(pools))]


def test_a_strained_endpoint_has_less_and_never_nothing() -> None:
    """One that says that it is full has a quarter of what an idle one has, by its weight."""
    pools = _pools(1, 1, 2)
    pools[0].load.told(FULL, 0.0, 10.0)
    pools[1].load.told(IDLE, 0.0, 10.0)
    pools[2].load.told(IDLE, 0.0, 10.0)
    weigh(pools, 1.0)
    assert _shares(pools, 130) == [10, 40, 80]


def test_what_was_said_long_ago_counts_no_more() -> None:
    """When it is over, or the agent reads nothing any more, weights are those configured."""
    pools = _pools(1, 3)
    pools[0].load.told(FULL, 0.0, 10.0)
    pools[1].load.told(IDLE, 0.0, 10.0)
    weigh(pools, 9.9)
    assert pools[0].weight < WHOLE
    weigh(pools, 10.0)
    assert [pool.weight for pool in pools] == [WHOLE, 3 * WHOLE]
    pools[0].load.told(FULL, 10.0, 20.0)
    pools[0].load.told(None, 11.0, 21.0)
    weigh(pools, 11.0)
    assert [pool.weight for pool in pools] == [WHOLE, 3 * WHOLE]


def test_silence_is_no_sign_of_leisure() -> None:
    """One that says nothing is taken to be as strained as the others are on average."""
    pools = _pools(1, 1, 1)
    pools[0].load.told(FULL, 0.0, 10.0)
    pools[1].load.told(Figures(4.0, 4.0, None), 0.0, 10.0)
    pools[2].load.told(Figures(running=4.0), 0.0, 10.0)
    weigh(pools, 0.0)
    lighter, usual = pools[1].weight, pools[2].weight
    assert pools[0].weight < usual < lighter
    pools[1].load.told(None, 0.0, 10.0)
    weigh(pools, 0.0)
    assert pools[0].weight == pools[1].weight == pools[2].weight


@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.none() | st.builds(Figures, *[st.floats(0, 1e9)] * 3)),
        min_size=2,
        max_size=6,
    )
)
def test_no_word_of_an_engine_does_more_than_a_weight_of_four(
    endpoints: list[tuple[int, Figures | None]],
) -> None:
    """Whatever is said, no weight falls below a quarter or rises: a liar gets no more by it."""
    pools = _pools(*(weight for weight, _ in endpoints))
    for pool, (_, figures) in zip(pools, endpoints, strict=True):
        pool.load.told(figures, 0.0, 10.0)
    weigh(pools, 0.0)
    for pool, (weight, _) in zip(pools, endpoints, strict=True):
        assert weight * (WHOLE - LOAD_MOST_OFF) <= pool.weight <= weight * WHOLE


def test_reports_are_asked_for_now_and_then() -> None:
    """Once a second where they come, once a minute where they do not, and never of other kinds."""
    [pool] = pools = _pools(1, reports=True)
    weigh(pools, 0.0)
    assert pool.load.is_wanted
    assert pool.load.ask(0.0) == b"endpoint-load-metrics-format: text\r\n"
    assert not pool.load.is_wanted
    weigh(pools, LOAD_ASKED_AGAIN_S - 1)
    assert not pool.load.is_wanted
    pool.load.reported(HALF, 0, 5.0)
    weigh(pools, 5.0 + LOAD_ASKED_S)
    assert pool.load.is_wanted
    [other] = others = _pools(1)
    weigh(others, 1e9)
    assert not other.load.is_wanted
    other.load.reported(HALF, 0, 5.0)
    weigh(others, 1e9)
    assert not other.load.is_wanted


def test_a_report_is_newer_than_what_was_read() -> None:
    """It counts for a while whatever the agent says, who tells how many run beside it."""
    load = EngineLoad(reports=True)
    load.told(Figures(6.0, 0.0, 0.0), 0.0, 100.0)
    assert load.find_strain(1.0) == 0.0
    load.reported(b"TEXT named_metrics.num_requests_waiting=2", 1, 1.0)
    assert load.find_strain(1.0) == pytest.approx(0.25)
    load.told(FULL, 2.0, 100.0)
    assert load.find_strain(2.0) == pytest.approx(0.25)
    load.told(FULL, 1.0 + LOAD_BELIEVED_S / 2, 100.0)
    assert load.find_strain(99.0) == 1.0


def test_those_that_run_are_at_least_our_own() -> None:
    """An engine that says how many wait, and not how many run, has what this worker sent it."""
    load = EngineLoad(reports=False)
    load.told(Figures(None, 2.0, None), 0.0, 10.0, in_flight=8)
    assert load.find_strain(1.0) == 0.25


@pytest.mark.parametrize(
    "report", [b"", b"JSON {", b"TEXT other=1", b"BIN AAAA", b"JSON 7", b"TEXT named_metrics.=1"]
)
def test_a_report_of_nothing_changes_nothing(report: bytes) -> None:
    """What cannot be read leaves what is known, and another is read at once."""
    load = EngineLoad(reports=True)
    load.told(FULL, 0.0, 10.0)
    load.reported(report, 3, 1.0)
    assert load.find_strain(1.0) == 1.0
    load.reported(HALF, 3, 1.0)
    assert load.find_strain(1.0) == 0.5
    load.reported(b"TEXT named_metrics.kv_cache_usage_perc=0.75", 3, 1.0 + LOAD_ASKED_S / 2)
    assert load.find_strain(1.0) == 0.5
    assert load.find_strain(1.0 + LOAD_BELIEVED_S) is None
