"""How much of which bucket is used, as this node last heard of it."""

from heapq import nlargest
from itertools import islice

from penstock.contract.limits import Bucket, BucketUse
from penstock.limits.rules import organization_of

_GENERATION_MS = 60_000
_MAX_GENERATION = 100_000
_SHOWN = 100
MAX_USES = 5_000
"""Buckets of one report."""


class LimitUses:
    """What authorities said was left, for the size of the next lease and for the control plane.

    Buckets that were not asked for in the last minute or two are forgotten.
    """

    def __init__(self) -> None:
        """Begin with nothing known."""
        self._free: dict[str, int] = {}
        self._older_free: dict[str, int] = {}
        self._fullest: dict[str, float] = {}
        """By organization: the share that was used of the bucket where that is the most."""
        self._older_fullest: dict[str, float] = {}
        self._since_ms = 0
        self._changed: dict[str, BucketUse] = {}

    def note(self, bucket: Bucket, free: int, now_ms: int) -> None:
        """Take note of what a bucket has left."""
        if now_ms - self._since_ms > _GENERATION_MS or len(self._free) >= _MAX_GENERATION:
            self._older_free, self._free = self._free, {}
            self._older_fullest, self._fullest = self._fullest, {}
            self._since_ms = now_ms
        self._free[bucket.id] = free
        used = max(bucket.limit - free, 0)
        self._changed[bucket.id] = BucketUse(bucket.id, bucket.limit, used, now_ms)
        organization, share = organization_of(bucket.id), used / max(bucket.limit, 1)
        if share >= self._fullest.get(organization, 0.0):
            self._fullest[organization] = share

    def note_returned(self, bucket: Bucket, amount: int, now_ms: int) -> None:
        """Take note of an amount that went back to a bucket."""
        free = self.find_free(bucket)
        if free is not None:
            self.note(bucket, min(free + amount, bucket.limit), now_ms)

    def find_free(self, bucket: Bucket) -> int | None:
        """Return what a bucket had left; None when that is not known."""
        free = self._free.get(bucket.id)
        return self._older_free.get(bucket.id) if free is None else free

    def fullest(self) -> dict[tuple[str, ...], float]:
        """Return the share used of the fullest bucket, of the organizations where it is the most.

        Within the last minute or two.
        """
        both = self._older_fullest.copy()
        for name, share in self._fullest.items():
            both[name] = max(share, both.get(name, 0.0))
        largest = nlargest(_SHOWN, both.items(), key=lambda item: (item[1], item[0]))
        return {(name,): share for name, share in largest}

    def collect(self) -> tuple[BucketUse, ...]:
        """Return up to `MAX_USES` of those that changed; each change once."""
        names = tuple(islice(self._changed, MAX_USES))
        return tuple(self._changed.pop(name) for name in names)

    def restore(self, uses: tuple[BucketUse, ...]) -> None:
        """Put back what was collected and not told, unless it has changed since."""
        for use in uses:
            if len(self._changed) < _MAX_GENERATION:
                self._changed.setdefault(use.bucket, use)
