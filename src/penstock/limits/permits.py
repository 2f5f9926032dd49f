"""Permits of a node's limits: who has how many, in slots that outlive the process.

A bucket has a slot, or several, with its name and places for pairs: a holder, and how many it has.
A holder is named by the number of a slot of its own. A pair with no permits is free.
"""

from collections.abc import Iterable

from penstock.limits.slots import CELLS, Slots, SlotsDamagedError, digest_of, text_cells, text_of

_NAME_CELLS = 32
BUCKET_KIND, _HOLDER_KIND = 1, 2
"""Kinds of slots."""


class Permits:
    """How many permits each holder has of each bucket.

    Args:
        slots: Where the numbers are.

    Raises:
        SlotsDamagedError: What they hold cannot be right.
    """

    def __init__(self, slots: Slots) -> None:
        """See the class."""
        self._slots = slots
        self._holders: dict[str, int] = {}
        """Their slots."""
        self._pages: dict[str, list[int]] = {}
        """Slots of each bucket."""
        self._places: dict[str, dict[str, tuple[memoryview[int], int]]] = {}
        """Where it is written what a holder has, by bucket of which it has any: which cell."""
        self._totals: dict[str, int] = {}
        names: dict[int, str] = {}
        pages: list[int] = []
        for number in slots.claimed():
            if slots.kind(number) == _HOLDER_KIND:
                name = names[number] = text_of(slots.cells(number)[:_NAME_CELLS])
                self._holders[name] = number
                self._places[name] = {}
            elif slots.kind(number) == BUCKET_KIND:
                pages.append(number)
        for number in sorted(pages, key=slots.spare):
            self._read(number, names)

    @property
    def holders(self) -> Iterable[str]:
        """Those that may have some."""
        return self._holders

    def total(self, bucket: str) -> int:
        """Return how many of a bucket are out."""
        return self._totals.get(bucket, 0)

    def of_holder(self, holder: str) -> dict[str, int]:
        """Return what a holder has, by bucket."""
        places = self._places.get(holder, {})
        return {name: cells[at] for name, (cells, at) in places.items()}

    def add(self, bucket: str, holder: str, amount: int) -> None:
        """Give a holder some more, or take some back when it is negative; never below 0.

        Raises:
            OSError: The disk is full.
        """
        place = self._places.get(holder, {}).get(bucket)
        if place is None:
            if amount <= 0:
                return
            place = self._make_place(bucket, holder)
        cells, at = place
        amount = max(amount, -cells[at])
        cells[at] += amount
        self._totals[bucket] += amount
        if not cells[at]:
            del self._places[holder][bucket]

    def forget(self, holder: str) -> None:
        """Take back all that a holder has."""
        for bucket, (cells, at) in self._places.pop(holder, {}).items():
            self._totals[bucket] -= cells[at]
            cells[at] = 0
        number = self._holders.pop(holder, None)
        if number is not None:
            self._slots.release(number)

    def free_idle(self, number: int) -> None:
        """Let go of the bucket that has a slot, if nobody has any of it."""
        bucket = text_of(self._slots.cells(number)[:_NAME_CELLS])
        if not self._totals[bucket]:
            del self._totals[bucket]
            # Pages are numbered without gaps, for who opens the file after a kill.
            for page in reversed(self._pages.pop(bucket)):
                self._slots.release(page)

    def _read(self, number: int, names: dict[int, str]) -> None:
        """Take in a slot of a bucket as it was left."""
        cells = self._slots.cells(number)
        bucket = text_of(cells[:_NAME_CELLS])
        self._pages.setdefault(bucket, []).append(number)
        total = self._totals.get(bucket, 0)
        for at in range(_NAME_CELLS, CELLS - 1, 2):
            holder = names.get(cells[at])
            if holder is None:
                cells[at + 1] = 0
            elif cells[at + 1] < 0:
                message = f"slot {number} counts what cannot be"
                raise SlotsDamagedError(message)
            elif cells[at + 1]:
                self._places[holder][bucket] = (cells, at + 1)
                total += cells[at + 1]
        self._totals[bucket] = total

    def _make_place(self, bucket: str, holder: str) -> "tuple[memoryview[int], int]":
        """Return a free pair, which belongs to a holder now."""
        cells, at = self._find_free(bucket)
        cells[at] = self._holder(holder)
        place = self._places[holder][bucket] = (cells, at + 1)
        return place

    def _find_free(self, bucket: str) -> "tuple[memoryview[int], int]":
        pages = self._pages.get(bucket, [])
        for number in pages:
            cells = self._slots.cells(number)
            for at in range(_NAME_CELLS, CELLS - 1, 2):
                if not cells[at + 1]:
                    return cells, at
        digest = digest_of(f"{bucket}\npermits {len(pages)}")
        content = text_cells(bucket, _NAME_CELLS)
        number = self._slots.claim(digest, BUCKET_KIND, spare=len(pages), content=content)
        self._pages[bucket] = [*pages, number]
        self._totals.setdefault(bucket, 0)
        return self._slots.cells(number), _NAME_CELLS

    def _holder(self, holder: str) -> int:
        number = self._holders.get(holder)
        if number is None:
            content = text_cells(holder, _NAME_CELLS)
            number = self._slots.claim(
                digest_of(f"\nholder {holder}"), _HOLDER_KIND, content=content
            )
            self._holders[holder] = number
            self._places[holder] = {}
        return number
