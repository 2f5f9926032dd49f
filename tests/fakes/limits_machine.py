"""A state machine for authorities over limits: step by step the same as the reference."""

import asyncio
from collections.abc import Coroutine
from typing import Any, NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from tests.fakes.limits_reference import ReferenceAuthority

from penstock.contract.limits import Ask, Bucket, Lease, Shortage
from penstock.limits.authority import Authority, MemoryAuthority

SUB_WINDOW_MS = 10_000
"""Long ones: in Redis, keys live by its own clock, which knows nothing of ours."""
HOUR_MS = 3_600_000
REPEAT_MS = 60_000
"""For so long a taking is known by its name."""
HOLDERS = ("a", "b", "c")


class Taking(NamedTuple):
    """One that gave something."""

    at_ms: int
    """The newest time that was ever seen then."""
    name: str
    holder: str
    asks: tuple[Ask, ...]
    leases: tuple[Lease, ...]


class LimitsMachine(RuleBasedStateMachine):
    """An authority in memory, the reference, and a clock that may jump.

    Subclasses make another authority, with a reference of its own.
    """

    def __init__(self) -> None:
        """See the class."""
        super().__init__()
        self.runner = asyncio.Runner()
        self.now_ms = 1_000_000
        self.count = 0
        self.takings: list[Taking] = []
        self.left: list[tuple[Bucket, Lease, str]] = []
        """What can be given back."""
        self.most: dict[str, int] = {}
        """The highest limit that each bucket ever had, and what was used beyond leases."""
        self.authority = self.run(self.make_authority())
        self.reference = self.make_reference()

    async def make_authority(self) -> Authority:
        """Return an empty one that lives by `self.now_ms`."""
        return MemoryAuthority(lambda: self.now_ms)

    def make_reference(self) -> ReferenceAuthority:
        """Return what it has to be like."""
        return ReferenceAuthority()

    async def renew(self) -> None:
        """Tell the authority that all holders live, if it wants to know."""

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run something of the authority."""
        return self.runner.run(coroutine)

    def teardown(self) -> None:
        """Leave nothing behind."""
        self.runner.close()

    @initialize(
        limits=st.tuples(*[st.integers(1, 40)] * 3), counts=st.tuples(*[st.integers(1, 3)] * 2)
    )
    def start(self, limits: tuple[int, ...], counts: tuple[int, ...]) -> None:
        """Two buckets of windows and one of permits."""
        shapes = [(SUB_WINDOW_MS, count) for count in counts]
        self.buckets = [
            Bucket(f"org/{n}:k", limit, *shape)
            for n, (limit, shape) in enumerate(zip(limits, [*shapes, (0, 1)], strict=True))
        ]
        self.most = {bucket.id: bucket.limit for bucket in self.buckets}

    @rule(milliseconds=st.sampled_from([1, 9_999, 10_000, 10_000, 20_000, 70_000, HOUR_MS]))
    def wait(self, milliseconds: int) -> None:
        """Time goes on; no holder was silent meanwhile."""
        self.now_ms += milliseconds
        self.run(self.renew())

    @rule(milliseconds=st.sampled_from([1, 10_000, 25_000, HOUR_MS]))
    def turn_back(self, milliseconds: int) -> None:
        """The clock goes back, and nothing is free for that."""
        self.now_ms = max(0, self.now_ms - milliseconds)

    @rule(data=st.data(), holder=st.sampled_from(HOLDERS))
    def take(self, data: st.DataObject, holder: str) -> None:
        """The answer is the reference's: amounts, what remains, who lacks, when to come back."""
        buckets = data.draw(st.permutations(self.buckets))[: data.draw(st.integers(1, 3))]
        asks = []
        for bucket in buckets:
            least = data.draw(st.integers(0, 12))
            want = least + data.draw(st.integers(0, 9))
            is_ahead = not bucket.is_permits and data.draw(st.booleans())
            asks.append(Ask(bucket, least, want, is_ahead))
        self.ask(tuple(asks), holder)

    @rule(data=st.data())
    def ask_for_all(self, data: st.DataObject) -> None:
        """All that is left of a bucket is asked for, or more than it can ever give."""
        bucket = data.draw(st.sampled_from(self.buckets))
        want = data.draw(st.sampled_from([bucket.limit, bucket.limit + 1]))
        is_ahead = not bucket.is_permits and data.draw(st.booleans())
        self.ask((Ask(bucket, data.draw(st.sampled_from([0, want])), want, is_ahead),), "a")

    @rule(data=st.data(), ahead=st.integers(0, 9), now=st.integers(0, 9))
    def take_ahead_and_now(self, data: st.DataObject, ahead: int, now: int) -> None:
        """Leases of the next sub-window are out while the one that is now is asked for."""
        bucket = data.draw(st.sampled_from(self.buckets[:-1]))
        self.ask((Ask(bucket, 0, ahead, is_ahead=True),), "a")
        self.ask((Ask(bucket, 0, now),), "b")
        least = data.draw(st.integers(1, bucket.limit))
        self.ask((Ask(bucket, least, least),), "c")

    @rule(data=st.data(), more=st.integers(0, 1))
    def wait_for_a_window(self, data: st.DataObject, more: int) -> None:
        """As long as what was taken now counts, or a moment longer."""
        bucket = data.draw(st.sampled_from(self.buckets[:-1]))
        self.wait((bucket.count + more) * SUB_WINDOW_MS)

    @precondition(lambda self: self.takings)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """A taking that is asked for again gives the same, and charges nothing more."""
        recent = [one for one in self.takings if self.reference.newest_ms - one.at_ms < REPEAT_MS]
        if recent:
            one = data.draw(st.sampled_from(recent))
            again = self.authority.take(one.asks, take_id=one.name, holder=one.holder)
            assert self.run(again) == one.leases
            self.reference.see(self.now_ms)

    @precondition(lambda self: self.left)
    @rule(data=st.data(), part=st.integers(1, 4))
    def give_back(self, data: st.DataObject, part: int) -> None:
        """A half of a lease, or all, or by mistake twice as much, goes back, now or long after."""
        at = data.draw(st.integers(0, len(self.left) - 1))
        bucket, lease, holder = self.left.pop(at)
        self.change(bucket, lease, lease.amount * part // 2, holder)

    @precondition(lambda self: self.left)
    @rule(data=st.data(), amount=st.integers(1, 9))
    def overrun(self, data: st.DataObject, amount: int) -> None:
        """More was used than was leased: that counts as well."""
        bucket, lease, holder = data.draw(st.sampled_from(self.left))
        if not bucket.is_permits:
            self.most[bucket.id] += amount
            self.change(bucket, lease, -amount, holder)

    @rule(holder=st.sampled_from(HOLDERS))
    def die(self, holder: str) -> None:
        """A holder is gone: its permits are free, and what it had of windows stays used."""
        self.run(self.authority.forget(holder))
        self.reference.forget(holder)
        self.left = [one for one in self.left if not (one[0].is_permits and one[2] == holder)]

    @rule(data=st.data(), holder=st.sampled_from(HOLDERS))
    def restate(self, data: st.DataObject, holder: str) -> None:
        """A holder says how many permits it has: as many as it is known to have, or fewer."""
        bucket = self.buckets[-1]
        amount = data.draw(st.integers(0, self.reference.permits[bucket.id][holder]))
        self.run(self.authority.restate(holder, {bucket: amount}))
        self.reference.restate(holder, {bucket: amount})

    @rule(data=st.data(), limit=st.integers(1, 60))
    def change_limit(self, data: st.DataObject, limit: int) -> None:
        """A rule is changed: that holds from the next taking on."""
        at = data.draw(st.integers(0, len(self.buckets) - 1))
        old = self.buckets[at]
        self.buckets[at] = Bucket(old.id, limit, old.sub_window_ms, old.count)
        self.most[old.id] = max(limit, self.most[old.id])

    @invariant()
    def no_window_holds_too_much(self) -> None:
        """Whatever happened, every stretch is within the limit and what was used beyond leases."""
        for bucket in self.buckets if self.most else ():
            for end in self.reference.charged[bucket.id]:
                assert self.reference.sum_at(bucket, end) <= self.most[bucket.id]
            assert self.reference.permits[bucket.id].total() <= self.most[bucket.id]

    def ask(self, asks: tuple[Ask, ...], holder: str) -> None:
        """Ask both."""
        self.count += 1
        name = str(self.count)
        got = self.run(self.authority.take(asks, take_id=name, holder=holder))
        assert got == self.reference.take(asks, holder=holder, now_ms=self.now_ms)
        if isinstance(got, Shortage):
            self.expect_wait_is_short(asks[got.index].bucket, got)
            return
        self.takings.append(Taking(self.reference.newest_ms, name, holder, asks, got))
        self.left += [(ask.bucket, one, holder) for ask, one in zip(asks, got, strict=True)]

    def change(self, bucket: Bucket, lease: Lease, amount: int, holder: str) -> None:
        """Give back to both, or overrun in both."""
        self.run(self.authority.give_back(bucket, lease, amount, holder=holder))
        self.reference.give_back(bucket, lease, amount, holder=holder, now_ms=self.now_ms)

    def expect_wait_is_short(self, bucket: Bucket, shortage: Shortage) -> None:
        """Fail if somebody is sent away for longer than the window and three sub-windows."""
        if shortage.retry_at_ms is not None:
            newest = max(self.reference.charged[bucket.id], default=0)
            # Of a clock that went back, time stands still at the newest sub-window.
            now = max(self.now_ms // bucket.sub_window_ms, newest)
            assert shortage.retry_at_ms <= (now + bucket.count + 2) * bucket.sub_window_ms
