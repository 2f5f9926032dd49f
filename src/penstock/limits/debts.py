"""What a node has leased while the shared authority was away, and has to tell it. Pure."""

from penstock.contract.limits import Bucket, Lease

MAX_DEBTS = 50_000


class Debts:
    """Amounts by bucket and sub-window that the shared authority does not know of."""

    def __init__(self) -> None:
        """Begin without any."""
        self._amounts: dict[tuple[str, int], tuple[Bucket, int]] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._amounts)

    def add(self, bucket: Bucket, sub_window: int, amount: int) -> int:
        """Take note of an amount, or of one that was given back when it is negative.

        Returns:
            What was given back of which nothing is owed, as a negative number; otherwise 0.
        """
        place = bucket.id, sub_window
        owed = self._amounts.pop(place, (bucket, 0))[1] + amount
        if owed > 0:
            self._amounts[place] = bucket, owed
            if len(self._amounts) > MAX_DEBTS:
                self._fold()
        return min(owed, 0)

    def take(self, count: int, now_ms: int) -> list[tuple[Bucket, Lease]]:
        """Return some that still matter, and owe them no more."""
        taken: list[tuple[Bucket, Lease]] = []
        while self._amounts and len(taken) < count:
            (_, sub_window), (bucket, amount) = self._amounts.popitem()
            if now_ms // bucket.sub_window_ms - sub_window <= bucket.count:
                taken.append((bucket, Lease(amount, sub_window, 0)))
        return taken

    def _fold(self) -> None:
        """Owe all of a bucket in the newest of its sub-windows, where it counts the longest."""
        newest: dict[str, int] = {}
        for name, sub_window in self._amounts:
            newest[name] = max(sub_window, newest.get(name, sub_window))
        folded: dict[tuple[str, int], tuple[Bucket, int]] = {}
        for (name, _), (bucket, amount) in self._amounts.items():
            place = name, newest[name]
            folded[place] = bucket, amount + folded.get(place, (bucket, 0))[1]
        self._amounts = folded
