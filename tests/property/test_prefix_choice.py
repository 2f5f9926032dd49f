"""Endpoints by the prompts that they had: as many as possible, and none has too much of it."""

from collections import Counter, deque
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.gateway.limits import ENDPOINTS_SEEN, PREFIX_LOAD, PREFIX_SLACK
from penstock.gateway.select import Turns, prefer, select

_NOW_S = 100.0
_turns = st.floats(0, 1, exclude_max=True).map(lambda start: Turns(start).next)


def _pools(weights: list[int]) -> list[Any]:
    return [
        SimpleNamespace(
            number=number,
            weight=weight,
            in_flight=0,
            reading=0,
            cool_until_s=0.0,
            health=SimpleNamespace(out_until_s=0.0),
        )
        for number, weight in enumerate(weights)
    ]


def _choose(pools: list[Any], keepers: list[Any], home: int, turn: Any) -> Any:
    found = prefer(pools, (), _NOW_S, keepers=keepers, home=home, turn=turn)
    return found or select(pools, (), _NOW_S, turn)


@given(
    st.lists(st.integers(1, 8), min_size=2, max_size=12),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=300),
    _turns,
)
def test_no_endpoint_gets_more_than_its_bound(
    weights: list[int], arrivals: list[tuple[int, int]], turn: Any
) -> None:
    """However hot a beginning is, an endpoint has its weight's share, a bit more and a few."""
    pools, under_way = _pools(weights), deque[Any]()
    keepers: dict[int, list[Any]] = {}
    for prefix, ended in arrivals:
        for _ in range(min(ended, len(under_way))):
            under_way.popleft().in_flight -= 1
        had = keepers.setdefault(prefix, [])
        chosen = _choose(pools, had, prefix * 7, turn)
        chosen.in_flight += 1
        under_way.append(chosen)
        if chosen not in had:
            had.append(chosen)
        mean = sum(pool.in_flight for pool in pools) * chosen.weight / sum(weights)
        assert chosen.in_flight <= PREFIX_LOAD * mean + PREFIX_SLACK


@given(st.integers(2, 12), st.integers(0, 2**64 - 1), st.data(), _turns)
def test_whoever_cannot_be_asked_is_no_choice(
    count: int, home: int, data: st.DataObject, turn: Any
) -> None:
    """Endpoints that cool, are out or were tried get nothing for what they had, nor new ones."""
    pools = _pools([1] * count)
    bad = data.draw(st.sets(st.integers(0, count - 1), min_size=1))
    tried = []
    for number in bad:
        match data.draw(st.integers(0, 2)):
            case 0:
                pools[number].cool_until_s = _NOW_S + 1
            case 1:
                pools[number].health.out_until_s = _NOW_S + 1
            case _:
                tried.append(pools[number])
    keepers = data.draw(st.lists(st.sampled_from(pools), unique_by=lambda pool: pool.number))
    found: Any = prefer(pools, tried, _NOW_S, keepers=keepers, home=home, turn=turn)
    assert found is None or found.number not in bad
    usable = [pool for pool in keepers if pool.number not in bad]
    if usable:
        assert found in usable


@given(st.integers(0, 2**64 - 1), _turns, _turns)
def test_workers_agree_on_what_is_new(home: int, one: Any, other: Any) -> None:
    """A beginning that nobody had goes to the same endpoint, unless it is busier."""
    pools = _pools([1] * 5)
    first, second = (_choose(pools, [], home, turn) for turn in (one, other))
    assert first is second
    first.in_flight = 1
    assert _choose(pools, [], home, one) is not first


@settings(max_examples=20)
@given(st.integers(ENDPOINTS_SEEN + 1, 500), _turns, st.data())
def test_of_very_many_each_has_its_share(count: int, turn: Any, data: st.DataObject) -> None:
    """A few are compared, and yet those that can be asked get near as many requests each."""
    pools = _pools([1] * count)
    out = set(data.draw(st.lists(st.integers(0, count - 1), max_size=count // 4)))
    for number in out:
        pools[number].health.out_until_s = _NOW_S + 1
    counts = Counter[int]()
    for _ in range(10 * (count - len(out))):
        chosen: Any = select(pools, (), _NOW_S, turn)
        chosen.in_flight += 1
        counts[chosen.number] += 1
    assert not out & set(counts)
    assert len(counts) == count - len(out)
    assert 8 <= min(counts.values()) <= max(counts.values()) <= 12


@given(_turns)
def test_the_last_of_very_many_is_found(turn: Any) -> None:
    """When most that are drawn cannot be asked, all are looked at."""
    pools = _pools([1] * (ENDPOINTS_SEEN + 1))
    for pool in pools[1:]:
        pool.cool_until_s = _NOW_S + 1
    assert select(pools, (), _NOW_S, turn) is pools[0]
    assert select(pools, pools, _NOW_S, turn) is None


@given(_turns)
def test_when_most_of_very_many_are_out_all_are_asked(turn: Any) -> None:
    """As of few: the others could not bear it, and whoever says so may be wrong."""
    pools = _pools([1] * 200)
    for pool in pools[20:]:
        pool.health.out_until_s = _NOW_S + 1
    for pool in pools[:20]:
        pool.in_flight = 5
    chosen: Any = select(pools, (), _NOW_S, turn)
    assert chosen.number >= 20


def test_a_keeper_beside_nobody_known_is_not_preferred() -> None:
    """Where none of those that are drawn can be asked, nothing says that it is not too busy."""
    pools = _pools([1] * 200)
    pools[0].in_flight = 100
    pools[-1].cool_until_s = _NOW_S + 1
    last = 1 - 2**-20
    for keepers in (pools[:1], []):
        found = prefer(pools, (), _NOW_S, keepers=keepers, home=0, turn=lambda: last)
        assert found is None
