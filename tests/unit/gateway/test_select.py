"""Which target and which endpoint take a request; pure."""

import asyncio
from collections.abc import Iterable
from typing import cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.worker_process import PEPPER, build_runtime, make_snapshot

from penstock.contract.snapshot import Deployment
from penstock.gateway.forward import Pool
from penstock.gateway.offer import Offer, ServedUpstream, Target
from penstock.gateway.retries import RetryBudget
from penstock.gateway.runtime import Principal
from penstock.gateway.select import rank, select

_NOW_S = 100.0
_DEPLOYMENT = Deployment("main", "engine", "served-model")
_UPSTREAM = cast("ServedUpstream", None)


def _pools(*loads: tuple[int, float]) -> tuple[Pool, ...]:
    """Return idle pools with so many requests in flight, cooling until then."""
    runtime = build_runtime(make_snapshot(list(range(1, len(loads) + 1))), PEPPER)
    principal = Principal("key", "org-a", "project-a", None, None)
    offer = runtime.find_offer(principal, msgspec.Raw(b'"model-a"'))
    assert isinstance(offer, Offer)
    upstream = offer.first.upstream
    loop = asyncio.new_event_loop()
    retries = RetryBudget(loop.time)
    pools = tuple(Pool(each, upstream, loop, retries) for each in upstream.endpoints)
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


def test_a_prompt_that_is_yet_to_be_read_counts_as_several() -> None:
    """As many more as it is said to be, however few requests there are."""
    pools = _pools((1, 0.0), (3, 0.0))
    assert select(pools, (), _NOW_S) is pools[0]
    pools[0].reading = 2
    assert select(pools, (), _NOW_S) is pools[0], "the earlier of equals"
    pools[0].reading = 3
    assert select(pools, (), _NOW_S) is pools[1]


def test_weights_say_how_many_requests_an_endpoint_has() -> None:
    """In flight are as many as weights say, from the first request on."""
    pools = _pools((0, 0.0), (0, 0.0), (0, 0.0))
    for pool, weight in zip(pools, (1, 4, 2), strict=True):
        pool.weight = weight
    order = []
    for _ in range(14):
        chosen = select(pools, (), _NOW_S)
        assert chosen is not None
        chosen.in_flight += 1
        order.append(pools.index(chosen))
    assert [order.count(number) for number in range(3)] == [2, 8, 4]
    assert order[0] == 1
    pools[1].cool_until_s = _NOW_S + 1
    assert select(pools, (), _NOW_S) in (pools[0], pools[2])


@pytest.mark.parametrize(
    ("out", "chosen"),
    [
        ([], 0),
        ([0], 1),
        ([0, 1], 2),
        ([0, 1, 2], 0),
        ([0, 1, 2, 3], 0),
    ],
)
def test_endpoints_that_are_out_are_passed_over(out: list[int], chosen: int) -> None:
    """Others are asked instead, unless more than half are out: then it is no reason any more."""
    pools = _pools((0, 0.0), (1, 0.0), (2, 0.0), (3, 0.0))
    for index in out:
        pools[index].health.told(_NOW_S + 1)
    assert select(pools, (), _NOW_S) is pools[chosen]
    assert select(pools, (), _NOW_S + 1) is pools[0]


def test_one_that_is_out_is_tried_when_nothing_else_is_left() -> None:
    """Nobody goes without an endpoint because of what is known of it."""
    pools = _pools((0, 0.0), (1, 0.0))
    pools[0].health.told(_NOW_S + 1)
    assert select(pools, (pools[1],), _NOW_S) is pools[0]


def test_every_endpoint_is_tried_once() -> None:
    """Endpoints that were tried are passed over, until none is left."""
    pools = _pools((0, 0.0), (1, 0.0), (2, _NOW_S + 1))
    tried: tuple[Pool, ...] = ()
    for pool in pools:
        assert select(pools, tried, _NOW_S) is pool
        tried = (*tried, pool)
    assert select(pools, tried, _NOW_S) is None
    assert select(pools[:1], tried[:1], _NOW_S) is None
    assert select(pools[:1], tried[1:], _NOW_S) is pools[0], "others were tried"


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


def _tier(*weights: int) -> tuple[Target, ...]:
    """Return targets that differ by their weight and their number, which is their alias."""
    return tuple(
        Target(str(number), _DEPLOYMENT, _UPSTREAM, msgspec.Raw(b'""'), b"", weight)
        for number, weight in enumerate(weights)
    )


def _names(targets: Iterable[Target]) -> list[str]:
    return [target.alias for target in targets]


@pytest.mark.parametrize(
    ("turn", "ranked"),
    [
        (0.0, ["0", "1", "3", "2"]),
        (0.49, ["0", "3", "1", "2"]),
        (0.5, ["1", "0", "3", "2"]),
        (0.76, ["3", "0", "1", "2"]),
        (1 - 2**-53, ["3", "1", "0", "2"]),
    ],
)
def test_weights_rank_a_tier(turn: float, ranked: list[str]) -> None:
    """A turn falls into the share of one target, its rest into another's; weight 0 is last."""
    assert _names(rank([_tier(2, 1, 0, 1)], turn)) == ranked


def test_a_tier_of_stand_ins_keeps_its_order() -> None:
    """Targets of weight 0 stand in for one another as the route names them."""
    assert _names(rank([_tier(0, 0), _tier(5)], 0.9)) == ["0", "1", "0"]


@given(
    st.lists(st.lists(st.integers(0, 1000), min_size=1, max_size=8), min_size=1, max_size=4),
    st.floats(0, 1, exclude_max=True),
)
def test_every_target_is_ranked_once(weights: list[list[int]], turn: float) -> None:
    """Whatever the weights and the turn, each target comes once, tier after tier."""
    tiers = [_tier(*tier) for tier in weights]
    ranked = list(rank(tiers, turn))
    for tier in tiers:
        part, ranked = ranked[: len(tier)], ranked[len(tier) :]
        assert sorted(_names(part)) == _names(tier)
        spare = [target.weight == 0 for target in part]
        assert spare == sorted(spare)
    assert ranked == []
