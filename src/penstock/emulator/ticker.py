"""One timer for all answers on their way.

Answers that are due in the same millisecond share a slot, and slots a single timer of the event
loop. That costs thousands of streams far less than a timer or a task each.
"""

import heapq
import math
from asyncio import TimerHandle
from collections.abc import Callable
from typing import Protocol


class Timers(Protocol):
    """The part of an event loop that a ticker needs."""

    def time(self) -> float:
        """Return monotonic seconds."""
        ...

    def call_at(self, when: float, callback: Callable[[], None], /) -> TimerHandle:
        """Call back at that time."""
        ...


class Ticking(Protocol):
    """What a ticker calls."""

    def tick(self, slot_ms: int) -> None:
        """Do what is due until `slot_ms`, and `schedule` again if more follows."""
        ...


class Ticker:
    """Calls things at their times, late when the loop is busy, but never early.

    Args:
        timers: The running event loop, or a stand-in.
    """

    def __init__(self, timers: Timers) -> None:
        """See the class."""
        self._timers = timers
        self._slots: dict[int, list[Ticking]] = {}
        self._times: list[int] = []
        self._handle: TimerHandle | None = None
        self._armed_ms = 0

    def now_ms(self) -> float:
        """Return monotonic milliseconds."""
        return self._timers.time() * 1000

    def schedule(self, due_ms: float, ticking: Ticking) -> None:
        """Have `ticking` called in the first whole millisecond that is not before `due_ms`.

        A call takes place from the event loop only, also for a time that is past.
        """
        slot_ms = math.ceil(due_ms)
        slot = self._slots.get(slot_ms)
        if slot is not None:
            slot.append(ticking)
            return
        self._slots[slot_ms] = [ticking]
        heapq.heappush(self._times, slot_ms)
        if self._handle is None or slot_ms < self._armed_ms:
            self._arm(slot_ms)

    def stop(self) -> None:
        """Call nothing any more."""
        if self._handle is not None:
            self._handle.cancel()
        self._slots.clear()
        self._times.clear()

    def _arm(self, slot_ms: int) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._armed_ms = slot_ms
        self._handle = self._timers.call_at(slot_ms / 1000, self._fire)

    def _fire(self) -> None:
        self._handle = None
        # Loops round to a millisecond, so a timer may come a little early.
        now_ms = self.now_ms() + 0.5
        # What is scheduled meanwhile waits for the next turn, else a stream that lags would keep
        # the loop from reading.
        due = []
        while self._times and self._times[0] <= now_ms:
            slot_ms = heapq.heappop(self._times)
            due.append((slot_ms, self._slots.pop(slot_ms)))
        for slot_ms, tickings in due:
            for ticking in tickings:
                ticking.tick(slot_ms)
        if self._times and (self._handle is None or self._times[0] < self._armed_ms):
            self._arm(self._times[0])
