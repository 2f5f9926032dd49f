"""What an authority over limits has to answer: said with sums over all that was ever charged."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from penstock.contract.limits import Ask, Bucket, Lease, Shortage


class ReferenceAuthority:
    """Knows everything and forgets nothing; slow, and too simple to be wrong.

    What is used in a sub-window counts in it and in the `count` sub-windows behind it.

    Args:
        has_one_clock: Whether time that went back stands still for all buckets, or for each at
            the newest sub-window of its own.
    """

    def __init__(self, *, has_one_clock: bool = True) -> None:
        """See the class."""
        self._has_one_clock = has_one_clock
        self.newest_ms = 0
        """The newest time that was ever seen."""
        self._seen: Counter[str] = Counter()
        """The newest sub-window that each bucket saw."""
        self.charged: dict[str, Counter[int]] = defaultdict(Counter)
        """By bucket and sub-window."""
        self.permits: dict[str, Counter[str]] = defaultdict(Counter)
        """By bucket and holder."""

    def take(
        self, asks: Sequence[Ask], *, holder: str, now_ms: int
    ) -> tuple[Lease, ...] | Shortage:
        """See `Authority.take`; a repetition is not noticed."""
        now_ms = self.see(now_ms)
        amounts = []
        for index, ask in enumerate(asks):
            free = self._free(ask, now_ms)
            if free < ask.least:
                retry_ms = self._retry_ms(ask, now_ms)
                return Shortage(index, max(0, free), retry_ms)
            amounts.append((min(ask.want, max(0, free)), free))
        leases = []
        for ask, (amount, free) in zip(asks, amounts, strict=True):
            name, rest = ask.bucket.id, max(0, free - amount)
            if ask.bucket.is_permits:
                self.permits[name][holder] += amount
                leases.append(Lease(amount, 0, rest))
            else:
                at = self._at(ask.bucket, now_ms) + ask.is_ahead
                self.charged[name][at] += amount
                leases.append(Lease(amount, at, rest))
        return tuple(leases)

    def give_back(
        self, bucket: Bucket, lease: Lease, amount: int, *, holder: str, now_ms: int
    ) -> None:
        """See `Authority.give_back`."""
        self.see(now_ms)
        if bucket.is_permits:
            held = self.permits[bucket.id]
            held[holder] = max(0, held[holder] - amount)
        else:
            charged = self.charged[bucket.id]
            charged[lease.sub_window] -= min(amount, charged[lease.sub_window])

    def forget(self, holder: str) -> None:
        """See `Authority.forget`."""
        for held in self.permits.values():
            held[holder] = 0

    def restate(self, holder: str, permits: Mapping[Bucket, int]) -> None:
        """See `Authority.restate`."""
        self.forget(holder)
        for bucket, amount in permits.items():
            self.permits[bucket.id][holder] = amount

    def sum_at(self, bucket: Bucket, end: int) -> int:
        """Return what counts together with a sub-window."""
        charged = self.charged[bucket.id]
        return sum(n for at, n in charged.items() if end - bucket.count <= at <= end)

    def see(self, now_ms: int) -> int:
        """Return the time that holds when the clock shows this."""
        self.newest_ms = max(self.newest_ms, now_ms)
        return self.newest_ms if self._has_one_clock else now_ms

    def _at(self, bucket: Bucket, now_ms: int) -> int:
        return max(now_ms // bucket.sub_window_ms, self._seen[bucket.id])

    def _free(self, ask: Ask, now_ms: int) -> int:
        bucket = ask.bucket
        if bucket.is_permits:
            return bucket.limit - self.permits[bucket.id].total()
        at = self._at(bucket, now_ms)
        self._seen[bucket.id] = at
        return self._room(bucket, at + ask.is_ahead, at)

    def _room(self, bucket: Bucket, at: int, now: int) -> int:
        """Return what fits in a sub-window; leases of the one behind `now` may be out."""
        return bucket.limit - max(
            self.sum_at(bucket, end) for end in range(at, max(at, now + 1) + 1)
        )

    def _retry_ms(self, ask: Ask, now_ms: int) -> int | None:
        bucket = ask.bucket
        if bucket.is_permits or ask.least > bucket.limit:
            return None
        then = self._at(bucket, now_ms)
        now = then
        while self._room(bucket, then, now) < ask.least:
            then += 1
        return then * bucket.sub_window_ms
