"""What an agent does about limits and money: one authority, and budgets in memory."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from penstock.contract.limits import Lease, Shortage
from penstock.contract.money import Hold, HoldShortage
from penstock.contract.node import (
    AgentMessage,
    CheckHolds,
    FreeHolds,
    Granted,
    HoldsChecked,
    HoldsGranted,
    LimitsClock,
    PermitsHeld,
    Returned,
    Want,
    WantHolds,
    WorkerMessage,
)
from penstock.limits.authority import MemoryAuthority

Result = TypeVar("Result")


def at_once(waiting: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of what has `await` written and waits for nothing."""
    try:
        waiting.send(None)
    except StopIteration as end:
        result: Result = end.value
        return result
    raise AssertionError


class LimitsAgent:
    """Answers workers.

    Args:
        clock_ms: Milliseconds of CLOCK_MONOTONIC.
        base_ms: What its time is ahead of that.
        budgets: Nano-units by budget's id.
    """

    def __init__(
        self, clock_ms: Callable[[], int], *, base_ms: int, budgets: dict[str, int]
    ) -> None:
        """See the class."""
        self.clock = LimitsClock(base_ms)
        self.authority = MemoryAuthority(lambda: clock_ms() + base_ms)
        self.budgets = budgets
        """What is neither held nor spent."""
        self.holds: dict[str, int] = {}
        """What of each is not freed."""
        self.use_ms = 300_000
        self.is_away = False
        """Neither authority nor database can be reached."""
        self.received: list[WorkerMessage] = []
        self._budget_of: dict[str, str] = {}
        self._freed: dict[str, int] = {}

    def answer(self, message: WorkerMessage) -> list[AgentMessage]:
        """Return what to say to a message."""
        self.received.append(message)
        match message:
            case Want():
                return [self._lease(message)]
            case WantHolds():
                return [self._hold(message)]
            case CheckHolds(at_ms):
                return [HoldsChecked(at_ms, is_there=not self.is_away)]
            case _:
                self._take_back(message)
                return []

    def _lease(self, want: Want) -> Granted:
        if self.is_away:
            return Granted(want.take_id, None)
        take = self.authority.take
        took = at_once(take(want.asks, take_id=want.take_id, holder="worker"))
        if isinstance(took, Shortage):
            return Granted(want.take_id, None, took)
        return Granted(want.take_id, took)

    def _take_back(self, message: WorkerMessage) -> None:
        match message:
            case Returned(returns):
                for one in returns:
                    lease = Lease(0, one.sub_window, 0)
                    give = self.authority.give_back
                    at_once(give(one.bucket, lease, one.amount, holder="worker"))
            case PermitsHeld(held):
                at_once(self.authority.forget("worker"))
                for bucket, amount in held:
                    give = self.authority.give_back
                    at_once(give(bucket, Lease(0, 0, 0), -amount, holder="worker"))
            case FreeHolds(freed):
                for hold, amount in freed:
                    more = amount - self._freed.get(hold, 0)
                    assert 0 <= more <= self.holds[hold]
                    self._freed[hold] = amount
                    self.holds[hold] -= more
                    self.budgets[self._budget_of[hold]] += more
            case _:
                pass

    def _hold(self, want: WantHolds) -> HoldsGranted:
        if self.is_away:
            return HoldsGranted(want.take_id, None)
        for index, ask in enumerate(want.asks):
            left = self.budgets[ask.budget]
            if left < ask.least:
                return HoldsGranted(want.take_id, None, HoldShortage(index, left, 3_600))
        holds = []
        for ask in want.asks:
            left = self.budgets[ask.budget]
            amount = max(ask.least, min(ask.want, left // 4))
            self.budgets[ask.budget] = left - amount
            name = f"hold-{len(self.holds)}"
            self.holds[name] = amount
            self._budget_of[name] = ask.budget
            holds.append(Hold(name, amount, left - amount, self.use_ms))
        return HoldsGranted(want.take_id, tuple(holds))
