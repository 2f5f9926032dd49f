"""Which endpoint takes a request; pure."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.worker_process import PEPPER, build_runtime, make_snapshot

from penstock.gateway.forward import Pool
from penstock.gateway.select import select

_NOW_S = 100.0


def _pools(*loads: tuple[int, float]) -> tuple[Pool, ...]:
    """Return idle pools with so many requests in flight, cooling until then."""
    runtime = build_runtime(make_snapshot(list(range(1, len(loads) + 1))), PEPPER)
    target = runtime.find_alias("model-a")
    assert target is not None
    upstream = target.upstream
    loop = asyncio.new_event_loop()
    pools = tuple(Pool(endpoint, upstream, loop) for endpoint in upstream.endpoints)
    loop.close()
    for pool, (in_flight, cool_until_s) in zip(pools, loads, strict=True):
        pool.in_flight, pool.cool_until_s = in_flight, cool_until_s
    return pools


@pytest.mark.parametrize(
    ("loads", "chosen"),
    [
        ([(0, 0.0)], 0),
        ([(9, 0.0)], 0),
        ([(9, _NOW_S + 1)], 0),
        ([(1, 0.0), (0, 0.0)], 1),
        ([(0, 0.0), (0, 0.0)], 0),
        ([(2, 0.0), (1, 0.0), (1, 0.0)], 1),
        ([(0, _NOW_S + 1), (5, 0.0)], 1),
        ([(0, _NOW_S), (5, 0.0)], 0),
        ([(3, _NOW_S + 1), (2, _NOW_S + 9)], 1),
    ],
)
def test_the_least_busy_endpoint_is_chosen(loads: list[tuple[int, float]], chosen: int) -> None:
    """The fewest requests in flight win, the earlier of equals, cooling ones last."""
    pools = _pools(*loads)
    assert select(pools, (), _NOW_S) is pools[chosen]


def test_every_endpoint_is_tried_once() -> None:
    """Endpoints that were tried are passed over, until none is left."""
    pools = _pools((0, 0.0), (1, 0.0), (2, _NOW_S + 1))
    tried: tuple[Pool, ...] = ()
    for pool in pools:
        assert select(pools, tried, _NOW_S) is pool
        tried = (*tried, pool)
    assert select(pools, tried, _NOW_S) is None
    assert select(pools[:1], tried[:1], _NOW_S) is None


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from((0.0, _NOW_S + 1)), st.booleans()),
        min_size=1,
        max_size=6,
    )
)
def test_no_better_endpoint_is_passed_over(loads: list[tuple[int, float, bool]]) -> None:
    """Of those not tried none is less busy than the chosen one, unless it is cooling."""
    pools = _pools(*((in_flight, cool) for in_flight, cool, _ in loads))
    tried = [pool for pool, (_, _, was_tried) in zip(pools, loads, strict=True) if was_tried]
    left = [pool for pool in pools if pool not in tried]
    chosen = select(pools, tried, _NOW_S)
    if chosen is None:
        assert left == []
        return
    rank = (chosen.cool_until_s > _NOW_S, chosen.in_flight)
    assert rank == min((pool.cool_until_s > _NOW_S, pool.in_flight) for pool in left)
