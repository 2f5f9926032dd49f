"""A sliding window that nobody can take too much from, whatever the moment.

A window of W is cut into `count` sub-windows. What is taken is charged to the sub-window in which
it may be used, and a sub-window counts until the `count` behind it are over. So any stretch of
time of length W lies within sub-windows that are counted together, and what is used in it cannot
be more than the limit: there is no edge at which twice the limit fits. The price is that W and one
sub-window have to pass before all of a limit is free again.

Source: sliding window counters with the exact sum of the sub-windows, as in docs/adr/0003.
"""

from array import array

_NEWEST, _AMOUNTS = 0, 1
"""Places among the cells: number of the newest sub-window, then the amounts."""


class Ring:
    """Amounts by sub-window: the newest one that was touched, and all that count with it.

    Sub-windows are numbered; the caller says which one is now and never goes back.

    Args:
        count: Sub-windows in a window, >= 1.
        cells: Where the numbers are kept, `cells_of(count)` of them: all 0 at first, or as a ring
            left them. In shared memory they outlive the process, whenever it is killed.
    """

    __slots__ = ("_cells", "_count", "_size", "_total")

    def __init__(self, count: int, cells: "array[int] | memoryview[int] | None" = None) -> None:
        """See the class."""
        self._count = count
        self._size = count + 2
        self._cells = array("q", bytes(8 * cells_of(count))) if cells is None else cells
        newest = self._cells[_NEWEST]
        self._total = sum(self._get(at) for at in range(newest - count, newest + 1))

    @property
    def total(self) -> int:
        """What counts at the newest sub-window."""
        return self._total

    def free(self, limit: int, at: int) -> int:
        """Return how much can still be taken for use in a sub-window; negative after an overrun.

        Args:
            limit: What may be used in a window.
            at: The sub-window that is now, or the next one.
        """
        self._advance(at)
        used = self._total
        newest = self._cells[_NEWEST]
        if at < newest:
            # Leases of the next sub-window are out: both stretches must hold what is taken now.
            used = max(used, used - self._get(newest) + self._get(at - self._count))
        return limit - used

    def add(self, at: int, amount: int) -> None:
        """Charge an amount to a sub-window, or give it back when it is negative.

        What belongs to a sub-window that does not count any more changes nothing. No more is given
        back than is charged there, so that nobody's mistake makes a limit larger, and giving back
        does not make a sub-window the newest.
        """
        if amount <= 0:
            is_kept = 0 <= self._cells[_NEWEST] - at <= self._count + 1
            amount = max(amount, -self._get(at)) if is_kept else 0
        else:
            self._advance(at)
        oldest = self._cells[_NEWEST] - self._count
        # One that is a step older still counts at the sub-window before the newest: maybe now.
        if at >= oldest - 1:
            self._cells[_AMOUNTS + at % self._size] += amount
            self._total += amount if at >= oldest else 0

    def wait(self, limit: int, amount: int, at: int) -> int:
        """Return the first sub-window in which an amount fits, when nobody takes any meanwhile.

        Args:
            limit: What may be used in a window; >= amount.
            amount: What is wanted.
            at: The sub-window that is now.

        Returns:
            At most `at` + count + 2.
        """
        self._advance(at)
        if amount <= self.free(limit, at):
            return at
        newest = self._cells[_NEWEST]
        need = self._total + amount - limit
        if need <= 0:
            return newest  # what counts now and not then is what is too much
        for past in range(newest - self._count, newest):
            need -= self._get(past)
            if need <= 0:
                return past + self._count + 1
        return newest + self._count + 1

    def _get(self, at: int) -> int:
        return self._cells[_AMOUNTS + at % self._size]

    def _advance(self, at: int) -> None:
        cells, size = self._cells, self._size
        newest = cells[_NEWEST]
        if at - newest >= size:
            for cell in range(_AMOUNTS, _AMOUNTS + size):
                cells[cell] = 0
            cells[_NEWEST], self._total = at, 0
            return
        while newest < at:
            newest += 1
            # Its slot held the one that is too old even for leases of now. First the slot, then
            # the number: who is killed in between has lost nothing that counts.
            cells[_AMOUNTS + newest % size] = 0
            cells[_NEWEST] = newest
            self._total -= self._get(newest - self._count - 1)


def cells_of(count: int) -> int:
    """Return how many numbers a ring of so many sub-windows keeps."""
    # One sub-window more for the one that is going by, and one for leases of the next.
    return _AMOUNTS + count + 2
