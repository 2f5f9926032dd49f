"""What a node has leased while the shared authority was away, and has to tell it. Pure."""

from penstock.contract.limits import Bucket, Lease

MAX_DEBTS = 50_000


class Debts:
    """Amounts by bucket and sub-window that the shared authority does not know of."""

    def __init__(self) -> None:
        """Begin without any."""
        self._amounts: dict[str, dict[int, int]] = {}
        """By bucket and sub-window."""
        self._buckets: dict[str, Bucket] = {}
        self._count = 0

    def __len__(self) -> int:
        """Return how many there are."""
        return self._count

    def owes(self, bucket: Bucket) -> bool:
        """Tell whether anything of a bucket is owed."""
        return bucket.id in self._amounts

    def add(self, bucket: Bucket, sub_window: int, amount: int) -> int:
        """Take note of an amount, or of one that was given back when it is negative.

        Returns:
            What was given back of which nothing is owed, as a negative number; otherwise 0.
        """
        owed = self._pop(bucket.id, sub_window) + amount
        if owed > 0:
            self._buckets[bucket.id] = bucket
            self._amounts.setdefault(bucket.id, {})[sub_window] = owed
            self._count += 1
            if self._count > MAX_DEBTS:
                self._fold()
        return min(owed, 0)

    def take(self, count: int, now_ms: int) -> list[tuple[Bucket, Lease]]:
        """Return some that still matter, and owe them no more."""
        taken: list[tuple[Bucket, Lease]] = []
        while self._amounts and len(taken) < count:
            name, owed = next(reversed(self._amounts.items()))
            bucket, sub_window = self._buckets[name], next(reversed(owed))
            amount = self._pop(name, sub_window)
            if now_ms // bucket.sub_window_ms - sub_window <= bucket.count:
                taken.append((bucket, Lease(amount, sub_window, 0)))
        return taken

    def _pop(self, name: str, sub_window: int) -> int:
        owed = self._amounts.get(name, {})
        amount = owed.pop(sub_window, None)
        if amount is None:
            return 0
        self._count -= 1
        if not owed:
            del self._amounts[name], self._buckets[name]
        return amount

    def _fold(self) -> None:
        """Owe all of a bucket in the newest of its sub-windows, where it counts the longest."""
        self._amounts = {
            name: {max(owed): sum(owed.values())} for name, owed in self._amounts.items()
        }
        self._count = len(self._amounts)
