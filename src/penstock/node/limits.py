"""Answers workers that want to lease something of a limit.

A worker that dies keeps what it leased of windows: that ages out. Its permits are free again when
its end is known. A worker whose connection is lost lives on with what it has.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any

from penstock.contract.limits import Ask, Bucket, Lease, Return, Shortage
from penstock.contract.node import Granted, LimitsClock, PermitsHeld, Returned, Want
from penstock.contract.series import Histogram
from penstock.limits.authority import Authority, AuthorityUnavailableError
from penstock.limits.sizes import size_of
from penstock.node import log_events
from penstock.node.identity import name_of
from penstock.node.limit_counts import LimitCounts
from penstock.node.limit_uses import LimitUses
from penstock.node.links import Link
from penstock.node.metrics import LIMITS_LEASE

LOOK_AFTER_S = 5.0
"""How often the dead are looked for, and counts synced to the disk: what was counted since then is
lost with the power."""
LimitsMessage = Want | Returned | PermitsHeld


class Broker:
    """Stands between workers and the authority over limits.

    Args:
        counts: What this node has leased, and the time.
        authority: Gives the leases.
        uses: Told what is left of which bucket.
        living: Returns the names of the workers that live.
    """

    def __init__(
        self,
        counts: LimitCounts,
        authority: Authority,
        uses: LimitUses,
        living: Callable[[], Collection[str]],
    ) -> None:
        """See the class."""
        self.want_count = 0
        self.wait_s = 0.0
        """What they took, added up."""
        self.unavailable_count = 0
        """Those that nobody could decide about."""
        self.lease_sizes = Histogram(LIMITS_LEASE)
        """What was leased at once, as a share of the limit."""
        self._authority = authority
        self._counts = counts
        self._time = counts.time
        self._uses = uses
        self._find_living = living
        self._greeted: dict[str, Link] = {}
        """Workers that live, and their newest connections."""
        self._stated: dict[str, dict[Bucket, int]] = {}
        """Permits that workers are just telling of."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._failed = asyncio.Event()

    async def run(self) -> None:
        """Look after what is counted until cancelled; raise what goes wrong in answering."""
        while self._failure is None:
            # Of workers that were never heard of nobody else knows that they are dead.
            silent = self._counts.authority.holders - self._greeted.keys()
            if silent:
                for holder in silent - set(await asyncio.to_thread(self._find_living)):
                    await self._quietly(self._authority.forget(holder))
            try:
                await asyncio.to_thread(self._counts.sync)
            except OSError as error:
                log_events.COUNTS_OF_LIMITS_NOT_SYNCED.log(error=error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AFTER_S):
                    await self._failed.wait()
        raise self._failure

    def greet(self, link: Link) -> None:
        """Tell a worker that has connected what time it is."""
        holder = holder_of(link)
        self._greeted[holder] = link
        self._stated.pop(holder, None)
        link.send(LimitsClock(self._time.base_ms))

    def tell_time(self) -> None:
        """Tell all workers what time it is, which has become another one."""
        for link in self._greeted.values():
            if not link.is_closed:
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
                    self._spawn(self._quietly(self._authority.restate(holder, permits)))

    def bury(self, slot: int, epoch: int) -> None:
        """Free the permits of a worker that is known to be dead."""
        holder = name_of(slot, epoch)
        self._greeted.pop(holder, None)
        self._stated.pop(holder, None)
        self._spawn(self._quietly(self._authority.forget(holder)))

    async def close(self) -> None:
        """Leave nothing half done."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _answer(self, link: Link, want: Want) -> None:
        holder = holder_of(link)
        self.want_count += 1
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        asks = tuple(size_of(ask, self._uses.find_free(ask.bucket)) for ask in want.asks)
        try:
            take_id = f"{holder}:{want.take_id}"
            answer = await self._authority.take(asks, take_id=take_id, holder=holder)
        except AuthorityUnavailableError as error:
            self.unavailable_count += 1
            log_events.NOTHING_LEASED.log(why=error)
            link.send(Granted(want.take_id, None))
            return
        finally:
            self.wait_s += loop.time() - began_s
        if isinstance(answer, Shortage):
            self._note(asks[answer.index], answer.remaining)
            link.send(Granted(want.take_id, None, answer))
            return
        for ask, lease in zip(asks, answer, strict=True):
            self._note(ask, lease.remaining)
            self.lease_sizes.observe(lease.amount / max(ask.bucket.limit, 1))
        if link.is_closed:
            # Nobody heard of it. What a dead worker had is gone with it, but not its permits.
            await self._give_back(
                holder,
                tuple(
                    Return(ask.bucket, lease.sub_window, lease.amount)
                    for ask, lease in zip(asks, answer, strict=True)
                ),
            )
            if holder not in self._greeted:
                await self._quietly(self._authority.forget(holder))
            return
        link.send(Granted(want.take_id, answer))

    async def _give_back(self, holder: str, returns: tuple[Return, ...]) -> None:
        for one in returns:
            lease = Lease(one.amount, one.sub_window, 0)
            back = self._authority.give_back(one.bucket, lease, one.amount, holder=holder)
            await self._quietly(back)
            self._uses.note_returned(one.bucket, one.amount, self._time.now_ms())

    @staticmethod
    async def _quietly(work: Awaitable[None]) -> None:
        """Do what leaves too much counted, but no worker in want, when it fails."""
        try:
            await work
        except AuthorityUnavailableError as error:
            log_events.COUNTS_OF_LIMITS_NOT_PUT_RIGHT.log(why=error)

    def _note(self, ask: Ask, remaining: int) -> None:
        self._uses.note(ask.bucket, remaining, self._time.now_ms())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="lease")
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._failed.set()
            self._failure = task.exception()


def holder_of(link: Link) -> str:
    """Return the name of a worker's life among holders of permits."""
    return name_of(link.hello.slot, link.hello.epoch)
