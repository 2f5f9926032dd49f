"""The authority over buckets: deducts before it gives, so that nothing is ever given twice.

One interface, several keepers: this one is in the agent's memory, for a node of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from penstock.contract.limits import Ask, Bucket, Lease, Shortage
from penstock.limits.ring import Ring


class Authority(Protocol):
    """Gives leases of buckets. Every amount given was deducted before."""

    async def take(
        self, asks: Sequence[Ask], *, take_id: str, holder: str
    ) -> tuple[Lease, ...] | Shortage:
        """Give something of each bucket, or nothing of any.

        Args:
            asks: 1 to some tens of them, each of another bucket.
            take_id: Names this taking: repeated, it gives the same and deducts nothing more.
            holder: Who takes it: permits are given back for it when it is gone.

        Returns:
            A lease for each ask, of `least` to `want`; or the first bucket that has too little.

        Raises:
            AuthorityUnavailableError: Nobody knows what was deducted; the holder has nothing.
        """
        ...

    async def give_back(self, bucket: Bucket, lease: Lease, amount: int, *, holder: str) -> None:
        """Take back what was not used; a negative amount was used beyond the lease.

        Raises:
            AuthorityUnavailableError: It may have been given back.
        """
        ...

    async def forget(self, holder: str) -> None:
        """Take back all permits of a holder that is gone. Amounts of windows stay used."""
        ...

    async def restate(self, holder: str, permits: Mapping[Bucket, int]) -> None:
        """Count exactly these permits for a holder, which knows best what it has."""
        ...


class AuthorityUnavailableError(Exception):
    """The authority did not answer in time."""


class MemoryAuthority:
    """The authority of one node, in the memory of its agent.

    There is no `await` between look and deduction, so it is exact. What it holds is lost with the
    agent: whoever starts anew calls `close_windows` with what may have been given before.

    Args:
        clock_ms: Milliseconds since the Unix epoch. When it goes back, time stands still here.
    """

    def __init__(self, clock_ms: Callable[[], int]) -> None:
        """See the class."""
        self._clock_ms = clock_ms
        self._now_ms = 0
        self._rings: dict[str, Ring] = {}
        self._permits: dict[str, dict[str, int]] = {}
        """By bucket and holder."""
        self._takes: dict[str, tuple[Lease, ...]] = {}
        """Those of the last minute or two, for repetitions."""
        self._older_takes: dict[str, tuple[Lease, ...]] = {}
        self._takes_since_ms = 0

    async def take(
        self, asks: Sequence[Ask], *, take_id: str, holder: str
    ) -> tuple[Lease, ...] | Shortage:
        """See `Authority`."""
        now_ms = self._tick()
        known = self._takes.get(take_id) or self._older_takes.get(take_id)
        if known is not None:
            return known
        amounts = []
        for index, ask in enumerate(asks):
            free = self._free(ask, now_ms)
            if free < ask.least:
                return self._shortage(index, ask, free, now_ms)
            amounts.append(min(ask.want, max(free, 0)))
        leases = tuple(
            self._deduct(ask, amount, holder, now_ms)
            for ask, amount in zip(asks, amounts, strict=True)
        )
        self._takes[take_id] = leases
        return leases

    async def give_back(self, bucket: Bucket, lease: Lease, amount: int, *, holder: str) -> None:
        """See `Authority`."""
        self._tick()
        if bucket.is_permits:
            held = self._permits.get(bucket.id, {})
            held[holder] = max(0, held.get(holder, 0) - amount)
            if not held[holder]:
                del held[holder]
            return
        self._ring(bucket).add(lease.sub_window, -amount)

    async def forget(self, holder: str) -> None:
        """See `Authority`."""
        for held in self._permits.values():
            held.pop(holder, None)

    async def restate(self, holder: str, permits: Mapping[Bucket, int]) -> None:
        """See `Authority`."""
        await self.forget(holder)
        for bucket, amount in permits.items():
            if amount > 0:
                self._permits.setdefault(bucket.id, {})[holder] = amount

    def _tick(self) -> int:
        self._now_ms = max(self._now_ms, self._clock_ms())
        if self._now_ms - self._takes_since_ms > _REPEAT_MS:
            self._older_takes, self._takes = self._takes, {}
            self._takes_since_ms = self._now_ms
        return self._now_ms

    def _ring(self, bucket: Bucket) -> Ring:
        ring = self._rings.get(bucket.id)
        if ring is None:
            ring = self._rings[bucket.id] = Ring(bucket.count)
        return ring

    def _free(self, ask: Ask, now_ms: int) -> int:
        bucket = ask.bucket
        if bucket.is_permits:
            return bucket.limit - sum(self._permits.get(bucket.id, {}).values())
        at = now_ms // bucket.sub_window_ms + ask.is_ahead
        return self._ring(bucket).free(bucket.limit, at)

    def _deduct(self, ask: Ask, amount: int, holder: str, now_ms: int) -> Lease:
        bucket = ask.bucket
        remaining = max(0, self._free(ask, now_ms) - amount)
        if bucket.is_permits:
            held = self._permits.setdefault(bucket.id, {})
            held[holder] = held.get(holder, 0) + amount
            return Lease(amount, 0, remaining)
        at = now_ms // bucket.sub_window_ms + ask.is_ahead
        self._ring(bucket).add(at, amount)
        return Lease(amount, at, remaining)

    def _shortage(self, index: int, ask: Ask, free: int, now_ms: int) -> Shortage:
        bucket = ask.bucket
        if bucket.is_permits or ask.least > bucket.limit:
            return Shortage(index, max(0, free), None)
        at = now_ms // bucket.sub_window_ms
        then = self._ring(bucket).wait(bucket.limit, ask.least, at)
        return Shortage(index, max(0, free), then * bucket.sub_window_ms)


_REPEAT_MS = 60_000
