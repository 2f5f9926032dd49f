"""Time-outs that do not hold a stall of this process against others."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

_SLICES: Final = 5
_LONGEST: Final = 4
_LATE_S: Final = 0.005
_TURNS: Final = 5
"""One is read in; the others are for what was read to reach who waits for it in a task."""


def call_when_read(
    loop: asyncio.AbstractEventLoop, call: Callable[[], object], turns: int = _TURNS
) -> None:
    """Call back once the loop has taken in what has come until now.

    A process that stood still finds its timers due before it has read a byte. Who judges others by
    a clock takes the time, and judges by it when this calls: what came in time is known then.

    Args:
        loop: The running loop.
        call: Called once, a few turns of the loop later.
        turns: How many, >= 2.
    """
    if turns:
        loop.call_soon(partial(call_when_read, loop, call, turns - 1))
    else:
        call()


async def when_read() -> None:
    """Wait until the loop has taken in what has come until now; see `call_when_read`."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


@asynccontextmanager
async def running_timeout(seconds: float) -> AsyncIterator[None]:
    """Do what `asyncio.timeout` does, counting only time in which the event loop ran.

    When the loop was late, what is waited for may have come and lie there unread. So the time
    passes in slices, each of which counts as long as it should have been, and the last one has to
    end on time: in it everything is read that came meanwhile. A loop that is always late waits
    four times as many of them.

    Args:
        seconds: How long, > 0.

    Raises:
        TimeoutError: It took longer.
    """
    async with asyncio.timeout(None) as bound:
        slices = _Slices(bound, seconds)
        try:
            yield
        finally:
            slices.stop()


class _Slices:
    """Ends a time-out when the last of its slices was on time."""

    def __init__(self, bound: asyncio.Timeout, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._bound = bound
        self._slice_s = seconds / _SLICES
        self._left = _SLICES
        self._most = _SLICES * _LONGEST
        self._begin(self._loop.time())

    def stop(self) -> None:
        self._handle.cancel()

    def _begin(self, now_s: float) -> None:
        self._due_s = now_s + self._slice_s
        self._handle = self._loop.call_at(self._due_s, self._end)

    def _end(self) -> None:
        now_s = self._loop.time()
        self._most -= 1
        if self._left > 1 or now_s - self._due_s <= _LATE_S:
            self._left -= 1
        if self._left and self._most:
            self._begin(now_s)
        else:
            self._bound.reschedule(now_s)
