"""The sliding window: whatever is taken when, no stretch of a window's length holds too much."""

from collections import defaultdict
from contextlib import suppress
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.fakes.effort import tries

from penstock.limits.ring import Ring, cells_of


class RingMachine(RuleBasedStateMachine):
    """A ring beside a dictionary that never forgets."""

    @initialize(count=st.integers(1, 8), limit=st.integers(1, 50))
    def start(self, count: int, limit: int) -> None:
        """Make an empty ring."""
        self.ring, self.count, self.limit, self.now = Ring(count), count, limit, 5
        self.taken: dict[int, int] = defaultdict(int)

    @rule(steps=st.integers(0, 12))
    def pass_time(self, steps: int) -> None:
        """Go on, also over more than the ring holds."""
        self.now += steps

    @rule(want=st.integers(1, 60), ahead=st.integers(0, 1))
    def take(self, want: int, ahead: int) -> None:
        """Take as much of what is wanted as is free, for now or for the next sub-window."""
        at = self.now + ahead
        amount = min(want, self.ring.free(self.limit, at))
        if amount > 0:
            self.ring.add(at, amount)
            self.taken[at] += amount

    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        """Give back a part of what was taken at some time, or more: only what was taken counts."""
        at = data.draw(st.sampled_from([*sorted(self.taken), self.now, self.now + 1_000]))
        amount = data.draw(st.integers(0, self.taken[at] + 3))
        self.ring.add(at, -amount)
        self.taken[at] -= min(amount, self.taken[at])

    @rule()
    def begin_anew(self) -> None:
        """Whoever kept it is killed, and another one takes its cells over."""
        self.ring = Ring(self.count, self.ring._cells)

    @rule(amount=st.integers(1, 50))
    def wait(self, amount: int) -> None:
        """The wait is enough, bounded, and one sub-window less is not enough."""
        if amount > self.limit:
            return
        then = self.ring.wait(self.limit, amount, self.now)
        assert self.now <= then <= self.now + self.count + 2
        assert self.room(then) >= amount
        if then > self.now:
            assert self.room(then - 1) < amount

    def room(self, at: int) -> int:
        """What the dictionary says is free in a sub-window."""
        stretches = [at] if not any(later > at for later, n in self.taken.items() if n) else []
        stretches = stretches or [at, at + 1]
        return self.limit - max(self.sum_at(end) for end in stretches)

    def sum_at(self, end: int) -> int:
        """What counts together with a sub-window."""
        return sum(n for at, n in self.taken.items() if end - self.count <= at <= end)

    @invariant()
    def never_too_much(self) -> None:
        """No stretch holds more than the limit."""
        assert all(self.sum_at(end) <= self.limit for end in range(self.now + self.count + 3))

    @invariant()
    def all_that_fits_is_free(self) -> None:
        """Free is exactly what the limit leaves."""
        assert self.ring.free(self.limit, self.now) == self.room(self.now)


TestRing = RingMachine.TestCase
TestRing.settings = settings(max_examples=tries(150), stateful_step_count=40)


@given(count=st.integers(1, 60), share=st.integers(1, 1_000), extra=st.integers(0, 1_000))
def test_a_saturated_limit_is_used_but_for_one_sub_window(
    count: int, share: int, extra: int
) -> None:
    """Under any steady demand that is too much, count / (count + 1) of a limit is used."""
    limit, ring, used, rounds = share * (count + 1), Ring(count), 0, 10
    for now in range(1, rounds * (count + 1) + 1):
        amount = min(share + extra, ring.free(limit, now))
        ring.add(now, amount)
        used += amount
    assert used == rounds * limit


@pytest.mark.parametrize("gap", [1, 60, 61, 62, 63, 10_000])
def test_all_is_free_after_a_window_and_a_sub_window(gap: int) -> None:
    """What was taken counts for as long as a window and one sub-window, and then not at all."""
    ring = Ring(60)
    ring.add(100, 10)
    assert ring.free(10, 100 + gap) == (10 if gap > 60 else 0)


class Killed(Exception):  # noqa: N818 - it says what happened, and is no error
    """Whoever writes is killed."""


class FragileCells(list[int]):
    """Cells of a ring whose keeper is killed before a given write."""

    writes_left = 10**9

    def __setitem__(self, at: Any, number: Any) -> None:
        """Write, as long as it lives."""
        if self.writes_left == 0:
            raise Killed
        self.writes_left -= 1
        super().__setitem__(at, number)


@given(
    count=st.integers(1, 5),
    takes=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=8),
    writes=st.integers(0, 60),
)
def test_a_kill_at_any_write_loses_nothing(
    count: int, takes: list[tuple[int, int]], writes: int
) -> None:
    """Whoever takes the cells over from a keeper that was killed finds all that was given."""
    cells = FragileCells([0] * cells_of(count))
    ring, now = Ring(count, cast("memoryview[int]", cells)), 10
    given: dict[int, int] = defaultdict(int)
    cells.writes_left = writes
    with suppress(Killed):
        for steps, amount in takes:
            now += steps
            ring.add(now, amount)
            given[now] += amount
    cells.writes_left = 10**9
    heir = Ring(count, cast("memoryview[int]", cells))
    for at in (now, now + 1):
        counts = sum(n for taken_at, n in given.items() if at - count <= taken_at <= at)
        assert heir.free(1_000, at) <= 1_000 - counts
