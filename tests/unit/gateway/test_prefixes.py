"""Which endpoints are remembered for which beginnings, and until when."""

import gc
import weakref
from types import SimpleNamespace
from typing import Any

import pytest

from penstock.gateway.limits import PREFIX_BOOKED_S, PREFIX_KEEPERS, PREFIX_KEPT_S
from penstock.gateway.prefix import Prefix
from penstock.gateway.prefixes import KEEPER_BYTES, Prefixes

LONG, SHORT = Prefix((3, 2, 1), (1, 2, 3)), Prefix((2, 1), (1, 2))


class _Pool:
    def __init__(self, position: int) -> None:
        self.position = position
        self.emptied_count = 0
        self.ref = weakref.ref(self)


class _Rig:
    """An index, its clock, and four endpoints."""

    def __init__(self, most: int = 1_000) -> None:
        self.now_s = 0.0
        self.index = Prefixes(most * KEEPER_BYTES, lambda: self.now_s)
        self.pools: list[Any] = [_Pool(position) for position in range(4)]

    def book(self, prefix: Prefix, position: int, target: Any = None) -> Any:
        return self.index.book(prefix, target or _target(), self.pools[position])

    def find(self, prefix: Prefix, target: Any = None) -> list[int]:
        found = self.index.find(prefix, target or _target(), self.pools)
        return [pool.position for pool in found]


def _target(upstream: str = "engine", model: str = "served") -> Any:
    return SimpleNamespace(deployment=SimpleNamespace(upstream=upstream, model=model))


@pytest.fixture
def rig() -> _Rig:
    """Return an index that knows nothing."""
    return _Rig()


def test_the_longest_beginning_decides(rig: _Rig) -> None:
    """Who had more of a prompt is found before who had less of it, the last one first."""
    assert rig.find(LONG) == []
    rig.book(SHORT, 0)
    assert rig.find(LONG) == [0]
    rig.book(LONG, 1)
    assert rig.find(LONG) == [1]
    assert rig.find(SHORT) == [1, 0]


def test_models_are_apart(rig: _Rig) -> None:
    """What a model, an adapter or another upstream had is nobody else's."""
    rig.book(LONG, 0)
    assert rig.find(LONG, _target(model="adapter")) == []
    assert rig.find(LONG, _target(upstream="other")) == []
    assert rig.find(LONG) == [0]


def test_a_booking_is_short_until_it_is_confirmed(rig: _Rig) -> None:
    """An endpoint that does not answer is forgotten soon, one that did later."""
    keeper = rig.book(LONG, 0)
    rig.now_s = PREFIX_BOOKED_S - 1
    assert rig.find(LONG) == [0]
    rig.index.confirm(keeper)
    rig.book(LONG, 1)
    rig.now_s += PREFIX_BOOKED_S + 1
    assert rig.find(LONG) == [0], "1 never answered"
    rig.now_s += PREFIX_KEPT_S
    assert rig.find(LONG) == []


def test_what_failed_is_forgotten_alone(rig: _Rig) -> None:
    """It takes nothing of who was sent the same before or since."""
    rig.index.confirm(rig.book(LONG, 0))
    failed = rig.book(LONG, 1)
    failed.until_s = 0.0
    assert rig.find(LONG) == [0]
    rig.book(LONG, 1)
    failed.until_s = 0.0
    assert rig.find(LONG) == [1, 0]


def test_endpoints_that_are_gone_are_not_found(rig: _Rig) -> None:
    """Neither are those of another version of the upstream, and none is kept in memory for it."""
    rig.book(LONG, 0)
    rig.book(LONG, 1)
    old, rig.pools[0] = rig.pools[0], _Pool(0)
    assert rig.find(LONG) == [1]
    gone = weakref.ref(old)
    del old
    gc.collect()
    assert gone() is None
    rig.pools = rig.pools[:1]
    assert rig.find(LONG) == []


def test_an_engine_that_has_nothing_any_more_is_not_found(rig: _Rig) -> None:
    """What it was sent before it said so counts no more, and what it is sent since does."""
    rig.book(LONG, 0)
    rig.book(LONG, 1)
    rig.pools[0].emptied_count += 1
    assert rig.find(LONG) == [1]
    rig.book(SHORT, 0)
    assert rig.find(SHORT) == [0, 1]
    assert rig.find(LONG) == [1]


def test_memory_is_bounded() -> None:
    """Those used longest ago go first, and of one beginning few endpoints are remembered."""
    rig = _Rig(most=6)
    first, second, third = (Prefix((n + 1, n), (n, n + 1)) for n in (10, 20, 30))
    for prefix in (first, second, third):
        rig.book(prefix, 0)
    assert rig.find(first) == [0]
    rig.book(Prefix((40,), (40,)), 0)
    assert len(rig.index) == 6
    assert rig.find(Prefix((10,), (10,))) == [], "it was used longest ago"
    assert rig.find(first) == rig.find(second) == [0]
    rig = _Rig()
    rig.pools = [_Pool(position) for position in range(PREFIX_KEEPERS + 2)]
    for position in range(PREFIX_KEEPERS + 2):
        rig.book(SHORT, position)
    assert len(rig.find(SHORT)) == PREFIX_KEEPERS
    assert len(rig.index) == 2 * PREFIX_KEEPERS


def test_nothing_is_remembered_without_room() -> None:
    """An index of 0 bytes is always empty."""
    rig = _Rig(most=0)
    rig.book(LONG, 0)
    assert (len(rig.index), rig.find(LONG)) == (0, [])
