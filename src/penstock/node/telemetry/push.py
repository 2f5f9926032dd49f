"""Pushes to a collector what `/metrics` shows, once in a while."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias

from penstock import __version__
from penstock.contract.exposition import Family
from penstock.kit.clock import Clock
from penstock.node.telemetry.door import METRICS
from penstock.node.telemetry.messages import write_part, write_request
from penstock.node.telemetry.points import POINTS, Starts, write_family
from penstock.node.telemetry.sender import Sender

Families: TypeAlias = Callable[[], Iterable[Family]]
_Message: TypeAlias = tuple[bytes, int]
"""And how many points are in it, fewer than `2 * POINTS`: collectors take 4 MB."""
_GAVE_UP: Final = (METRICS.name, "gave_up")


class MetricsPush:
    """All metrics on their way to a collector, one push at a time.

    Args:
        sender: Who brings them there.
        resource: Who we are, as a message.
        families: Returns all metrics, as they are when each is asked for.
        clock: Tells the time.
        interval_s: Time between two pushes, and the most that one may take.
    """

    def __init__(
        self,
        sender: Sender,
        resource: bytes,
        families: Families,
        clock: Clock,
        *,
        interval_s: float,
    ) -> None:
        """See the class."""
        self._sender = sender
        self._resource = resource
        self._families = families
        self._clock = clock
        self._interval_s = interval_s
        self._starts = Starts(clock.wall_ns())
        self._turn = asyncio.Lock()

    async def run(self) -> None:
        """Push until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            await self.push()

    async def push(self) -> None:
        """Push once. What is not taken in time is lost, counted: the next has newer totals."""
        async with self._turn:
            left = deque(await self._collect())
            try:
                async with asyncio.timeout(self._interval_s):
                    while left:
                        await self._sender.send(METRICS, *left[0])
                        left.popleft()
            except TimeoutError:
                self._sender.lost[_GAVE_UP] += sum(count for _, count in left)

    async def _collect(self) -> list[_Message]:
        self._starts.look(self._clock.wall_ns())
        messages: list[_Message] = []
        parts: list[bytes] = []
        points = 0
        for family in self._families():
            for part, count in write_family(family, self._starts):
                parts.append(write_part(part))
                points += count
                if points >= POINTS:
                    messages.append((self._write(parts), points))
                    parts, points = [], 0
                await asyncio.sleep(0)  # workers that want a lease must not wait for all of it
        if parts:
            messages.append((self._write(parts), points))
        return messages

    def _write(self, parts: Sequence[bytes]) -> bytes:
        return write_request(self._resource, "penstock", __version__, parts)
