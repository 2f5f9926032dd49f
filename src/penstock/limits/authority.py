"""The authority over buckets: deducts before it gives, so that nothing is ever given twice.

One interface, several keepers: this one is in the agent's memory, for a node of its own.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Protocol

from penstock.contract.limits import Ask, Bucket, Lease, Shortage
from penstock.limits.permits import BUCKET_KIND, Permits
from penstock.limits.ring import Ring
from penstock.limits.slots import Slots
from penstock.limits.windows import FIRST_KIND, Windows


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


class Header(IntEnum):
    """What is where among the header's cells of the slots in which a node counts."""

    SEEN_MS = 0
    """The newest time that was seen."""
    LOST_AT_MS = 1
    """When what was counted was lost; 0 if it never was."""
    BASE_MS = 2
    """What is added to the monotonic clock, since which boot."""
    BOOT = 3
    LIVE_NODES = 4
    """How many nodes share the limits, 0 if it was never known; and when that was seen."""
    LIVE_NODES_AT_MS = 5


class MemoryAuthority:
    """The authority of one node, in the memory of its agent.

    There is no `await` between look and deduction, so it is exact. What it counts outlives it in
    its slots.

    Args:
        clock_ms: Milliseconds since the Unix epoch. When it goes back, time stands still here.
        slots: Where it counts; in memory of its own when None.

    Raises:
        SlotsDamagedError: What the slots hold cannot be right.
    """

    def __init__(self, clock_ms: Callable[[], int], slots: Slots | None = None) -> None:
        """See the class."""
        self._clock_ms = clock_ms
        self._slots = Slots() if slots is None else slots
        self._header = self._slots.header
        self._windows = Windows(self._slots, self._header[Header.LOST_AT_MS])
        self._permits = Permits(self._slots)
        self._doubted: set[str] = set()
        self._claimed_count = 0
        self._takes: dict[str, tuple[Lease, ...]] = {}
        """Those of the last minute or two, for repetitions."""
        self._older_takes: dict[str, tuple[Lease, ...]] = {}
        self._takes_since_ms = 0

    @property
    def holders(self) -> frozenset[str]:
        """Those that may have permits."""
        return frozenset(self._doubted.union(self._permits.holders))

    def permits_of(self, holder: str) -> dict[str, int]:
        """Return the permits of a holder, by id of the bucket."""
        return self._permits.of_holder(holder)

    def doubt(self, holders: Iterable[str]) -> None:
        """Give no permits until each of these is forgotten or says what it has.

        They may have some that were given before the memory of that was lost.
        """
        self._doubted.update(holders)

    async def take(
        self, asks: Sequence[Ask], *, take_id: str, holder: str
    ) -> tuple[Lease, ...] | Shortage:
        """See `Authority`."""
        now_ms = self._tick()
        known = self._takes.get(take_id) or self._older_takes.get(take_id)
        if known is not None:
            return known
        with self._room(now_ms):
            found: list[tuple[Ask, Ring | None, int]] = []
            for index, ask in enumerate(asks):
                ring = None if ask.bucket.is_permits else self._windows.get(ask.bucket)
                free = self._free(ask, ring, now_ms)
                if free < ask.least:
                    return _shortage(index, ask, ring, free, now_ms)
                found.append((ask, ring, free))
            leases = tuple(
                self._deduct(ask, ring, free, holder, now_ms) for ask, ring, free in found
            )
        self._takes[take_id] = leases
        return leases

    async def give_back(self, bucket: Bucket, lease: Lease, amount: int, *, holder: str) -> None:
        """See `Authority`."""
        self._tick()
        if bucket.is_permits:
            self._permits.add(bucket.id, holder, -amount)
            return
        # Of a bucket that is not known nothing counts, so nothing can come off it.
        with _disk():
            ring = self._windows.find(bucket) if amount >= 0 else self._windows.get(bucket)
        if ring is not None:
            ring.add(lease.sub_window, -amount)

    async def forget(self, holder: str) -> None:
        """See `Authority`."""
        self._permits.forget(holder)
        self._doubted.discard(holder)

    async def restate(self, holder: str, permits: Mapping[Bucket, int]) -> None:
        """See `Authority`."""
        names = {bucket.id: amount for bucket, amount in permits.items()}
        known = self._permits.of_holder(holder)
        with _disk():
            for name in names.keys() | known:
                self._permits.add(name, holder, names.get(name, 0) - known.get(name, 0))
        self._doubted.discard(holder)

    def record(self, asks: Sequence[Ask], leases: Sequence[Lease], *, holder: str) -> None:
        """Count what another authority has given, whatever the limits.

        Raises:
            AuthorityUnavailableError: The disk is full.
        """
        self._tick()
        with _disk():
            for ask, lease in zip(asks, leases, strict=True):
                if ask.bucket.is_permits:
                    self._permits.add(ask.bucket.id, holder, lease.amount)
                else:
                    self._windows.get(ask.bucket).add(lease.sub_window, lease.amount)

    def _tick(self) -> int:
        now_ms = max(self._header[Header.SEEN_MS], self._clock_ms())
        self._header[Header.SEEN_MS] = now_ms
        if now_ms - self._takes_since_ms > _REPEAT_MS or len(self._takes) >= _REPEATS:
            self._older_takes, self._takes = self._takes, {}
            self._takes_since_ms = now_ms
        return now_ms

    @contextmanager
    def _room(self, now_ms: int) -> Iterator[None]:
        """When slots were claimed, or could not be, look whether some others are idle."""
        try:
            with _disk():
                yield
        except AuthorityUnavailableError:
            self._free_idle(now_ms)
            raise
        if self._slots.claimed_count > self._claimed_count:
            self._free_idle(now_ms)

    def _free_idle(self, now_ms: int) -> None:
        for number in self._slots.pass_by(_LOOK_AT):
            kind = self._slots.kind(number)
            if kind >= FIRST_KIND:
                self._windows.free_idle(number, now_ms)
            elif kind == BUCKET_KIND:
                self._permits.free_idle(number)
        self._claimed_count = self._slots.claimed_count

    def _free(self, ask: Ask, ring: Ring | None, now_ms: int) -> int:
        bucket = ask.bucket
        if ring is not None:
            return ring.free(bucket.limit, _sub_window(ask, now_ms))
        return 0 if self._doubted else bucket.limit - self._permits.total(bucket.id)

    def _deduct(self, ask: Ask, ring: Ring | None, free: int, holder: str, now_ms: int) -> Lease:
        amount = min(ask.want, max(free, 0))
        remaining = max(free, 0) - amount
        if ring is None:
            self._permits.add(ask.bucket.id, holder, amount)
            return Lease(amount, 0, remaining)
        at = _sub_window(ask, now_ms)
        ring.add(at, amount)
        return Lease(amount, at, remaining)


def _sub_window(ask: Ask, now_ms: int) -> int:
    return now_ms // ask.bucket.sub_window_ms + ask.is_ahead


def _shortage(index: int, ask: Ask, ring: Ring | None, free: int, now_ms: int) -> Shortage:
    bucket = ask.bucket
    if ring is None or ask.least > bucket.limit:
        return Shortage(index, max(0, free), None)
    then = ring.wait(bucket.limit, ask.least, now_ms // bucket.sub_window_ms)
    return Shortage(index, max(0, free), then * bucket.sub_window_ms)


@contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AuthorityUnavailableError(str(error)) from None


_REPEAT_MS = 60_000
_REPEATS = 20_000
_LOOK_AT = 16
