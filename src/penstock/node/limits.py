"""Answers workers that want to lease something of a limit.

A worker that dies keeps what it leased of windows: that ages out. Its permits are free again when
its end is known. A worker whose connection is lost lives on with what it has.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from penstock.contract.limits import Ask, Bucket, Lease, Return, Shortage
from penstock.contract.node import Granted, LimitsClock, PermitsHeld, Returned, Want
from penstock.kit.clock import Clock
from penstock.limits.authority import Authority, AuthorityUnavailableError
from penstock.limits.sizes import size_of
from penstock.node.limit_uses import LimitUses
from penstock.node.links import Link
from penstock.node.log import line

log = logging.getLogger(__name__)

LimitsMessage = Want | Returned | PermitsHeld


class Broker:
    """Stands between workers and the authority over limits.

    Args:
        authority: Gives the leases.
        time: The authority's.
        uses: Told what is left of which bucket.
    """

    def __init__(self, authority: Authority, time: "LimitsTime", uses: LimitUses) -> None:
        """See the class."""
        self.unavailable_count = 0
        """Wants that could not be answered."""
        self._authority = authority
        self._time = time
        self._uses = uses
        self._living: set[str] = set()
        self._stated: dict[str, dict[Bucket, int]] = {}
        """Permits that workers are just telling of."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._failed = asyncio.Event()

    async def run(self) -> None:
        """Raise what goes wrong in answering; runs until cancelled."""
        await self._failed.wait()
        if self._failure is not None:
            raise self._failure

    def greet(self, link: Link) -> None:
        """Tell a worker that has connected what time it is."""
        holder = holder_of(link)
        self._living.add(holder)
        self._stated.pop(holder, None)
        link.send(LimitsClock(self._time.base_ms))

    def hear(self, link: Link, message: LimitsMessage) -> None:
        """Do what a worker asks for; never waits."""
        match message:
            case Want():
                self._spawn(self._answer(link, message))
            case Returned():
                self._spawn(self._give_back(holder_of(link), message.returns))
            case PermitsHeld():
                holder = holder_of(link)
                permits = self._stated.setdefault(holder, {})
                permits.update(message.held)
                if message.is_last:
                    del self._stated[holder]
                    self._spawn(self._authority.restate(holder, permits))

    def bury(self, slot: int, epoch: int) -> None:
        """Free the permits of a worker that is known to be dead."""
        holder = f"{slot}-{epoch}"
        self._living.discard(holder)
        self._stated.pop(holder, None)
        self._spawn(self._authority.forget(holder))

    async def close(self) -> None:
        """Leave nothing half done."""
        await asyncio.gather(*self._tasks)

    async def _answer(self, link: Link, want: Want) -> None:
        holder = holder_of(link)
        asks = tuple(size_of(ask, self._uses.find_free(ask.bucket)) for ask in want.asks)
        try:
            take_id = f"{holder}:{want.take_id}"
            answer = await self._authority.take(asks, take_id=take_id, holder=holder)
        except AuthorityUnavailableError as error:
            self.unavailable_count += 1
            log.debug(line("nothing leased", why=error))
            link.send(Granted(want.take_id, None))
            return
        if isinstance(answer, Shortage):
            self._note(asks[answer.index], answer.remaining)
            link.send(Granted(want.take_id, None, answer))
            return
        for ask, lease in zip(asks, answer, strict=True):
            self._note(ask, lease.remaining)
        if link.is_closed:
            # Nobody heard of it. What a dead worker had is gone with it, but not its permits.
            await self._give_back(
                holder,
                tuple(
                    Return(ask.bucket, lease.sub_window, lease.amount)
                    for ask, lease in zip(asks, answer, strict=True)
                ),
            )
            if holder not in self._living:
                await self._authority.forget(holder)
            return
        link.send(Granted(want.take_id, answer))

    async def _give_back(self, holder: str, returns: tuple[Return, ...]) -> None:
        for one in returns:
            lease = Lease(one.amount, one.sub_window, 0)
            await self._authority.give_back(one.bucket, lease, one.amount, holder=holder)
            self._uses.note_returned(one.bucket, one.amount, self._time.now_ms())

    def _note(self, ask: Ask, remaining: int) -> None:
        self._uses.note(ask.bucket, remaining, self._time.now_ms())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._failed.set()
            self._failure = task.exception()


class LimitsTime:
    """Time as leases reckon it: the monotonic clock's, plus a number that workers are told.

    Args:
        clock: The machine's.
        base_ms: What is added.
    """

    def __init__(self, clock: Clock, base_ms: int) -> None:
        """See the class."""
        self._clock = clock
        self.base_ms = base_ms

    def now_ms(self) -> int:
        """Return milliseconds since the Unix epoch, or nearly so."""
        return int(self._clock.monotonic_s() * 1_000) + self.base_ms


def base_of(clock: Clock) -> int:
    """Return what makes the monotonic clock show the wall clock's time now."""
    return clock.wall_ns() // 1_000_000 - int(clock.monotonic_s() * 1_000)


def holder_of(link: Link) -> str:
    """Return the name of a worker's life among holders of permits."""
    return f"{link.hello.slot}-{link.hello.epoch}"
