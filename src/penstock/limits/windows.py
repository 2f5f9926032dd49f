"""Windows of a node's limits: a ring for each bucket, in slots that outlive the process."""

from penstock.contract.limits import Bucket
from penstock.limits.ring import Ring, cells_of
from penstock.limits.slots import CELLS, Slots, SlotsDamagedError, digest_of

_RINGS_AT_HAND = 20_000
_MOST = 1 << 60
"""No number that is right is as far from 0 as this."""
_COUNT_BITS = 16
FIRST_KIND = 1 << _COUNT_BITS
"""Kinds of slots from here on are those of windows: length of a sub-window and their count."""


class Windows:
    """Rings by bucket. A bucket whose window is changed begins anew.

    Args:
        slots: Where the numbers are.
        used_until_ms: Of buckets that are not known, all counts as used at this moment: somebody
            may have taken it, and what was counted is lost. 0 when nothing is lost.

    Raises:
        SlotsDamagedError: What the slots hold cannot be right.
    """

    def __init__(self, slots: Slots, used_until_ms: int = 0) -> None:
        """See the class."""
        self._slots = slots
        self._used_until_ms = used_until_ms
        self._rings: dict[int, Ring] = {}
        """By slot: those used lately, and the ones before."""
        self._older_rings: dict[int, Ring] = {}
        for number in slots.claimed():
            if slots.kind(number) >= FIRST_KIND:
                cells = slots.cells(number)
                if not -_MOST < min(cells) <= max(cells) < _MOST:
                    message = f"slot {number} counts what cannot be"
                    raise SlotsDamagedError(message)

    def find(self, bucket: Bucket) -> Ring | None:
        """Return the ring of a bucket, if anything of it was ever taken."""
        number = self._slots.find(_digest(bucket))
        return None if number is None else self._ring(number, bucket.count)

    def get(self, bucket: Bucket) -> Ring:
        """Return the ring of a bucket, a new one if need be.

        Raises:
            OSError: The disk is full.
        """
        digest = _digest(bucket)
        number = self._slots.find(digest)
        if number is None:
            if cells_of(bucket.count) > CELLS:
                message = f"{bucket.count} sub-windows are too many"
                raise ValueError(message)
            kind = bucket.sub_window_ms << _COUNT_BITS | bucket.count
            number = self._slots.claim(digest, kind, content=self._first_cells(bucket))
        return self._ring(number, bucket.count)

    def free_idle(self, number: int, now_ms: int) -> None:
        """Let go of the bucket that has a slot, if nothing in it counts any more."""
        kind = self._slots.kind(number)
        sub_window_ms, count = kind >> _COUNT_BITS, kind % FIRST_KIND
        newest = self._slots.cells(number)[0]
        if now_ms // sub_window_ms > newest + count + 1:
            self._rings.pop(number, None)
            self._older_rings.pop(number, None)
            self._slots.release(number)

    def _first_cells(self, bucket: Bucket) -> "memoryview[int] | tuple[()]":
        if not self._used_until_ms:
            return ()
        cells = memoryview(bytearray(8 * cells_of(bucket.count))).cast("q")
        Ring(bucket.count, cells).add(self._used_until_ms // bucket.sub_window_ms, bucket.limit)
        return cells

    def _ring(self, number: int, count: int) -> Ring:
        ring = self._rings.get(number)
        if ring is None:
            ring = self._older_rings.get(number) or Ring(count, self._slots.cells(number))
            if len(self._rings) >= _RINGS_AT_HAND:
                self._older_rings, self._rings = self._rings, {}
            self._rings[number] = ring
        return ring


def _digest(bucket: Bucket) -> bytes:
    return digest_of(f"{bucket.id}\n{bucket.sub_window_ms}\n{bucket.count}")
