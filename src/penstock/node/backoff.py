"""How long to wait after failures: pure, no clock."""


def doubling_s(failures: int, *, first_s: float, most_s: float) -> float:
    """Return the pause after so many failures in a row.

    Args:
        failures: >= 1.
        first_s: The pause after the first.
        most_s: No pause is longer.

    >>> [doubling_s(n, first_s=0.5, most_s=10) for n in (1, 2, 3, 9, 10_000)]
    [0.5, 1.0, 2.0, 10, 10]
    """
    return min(first_s * 2.0 ** min(failures - 1, 64), most_s)


class RestartPauses:
    """Pauses before a dead worker is started again: none at first, then longer ones.

    A worker that dies at once, again and again, must not keep the machine busy; one that died
    after a good life must not make callers wait.
    """

    FIRST_S = 0.5
    MOST_S = 10.0
    HEALTHY_S = 30.0
    """After living this long, a death counts as the first one."""

    def __init__(self) -> None:
        """Start without a death."""
        self._deaths = 0

    def next_s(self, lived_s: float) -> float:
        """Take note of a death and return the pause before the next start.

        Args:
            lived_s: How long the worker lived, >= 0.

        >>> pauses = RestartPauses()
        >>> [pauses.next_s(1) for _ in range(7)], pauses.next_s(31)
        ([0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0], 0.0)
        """
        self._deaths = 1 if lived_s >= self.HEALTHY_S else self._deaths + 1
        if self._deaths == 1:
            return 0.0
        return doubling_s(self._deaths - 1, first_s=self.FIRST_S, most_s=self.MOST_S)


class Pauses:
    """Who rests after failures, each for itself, and until when.

    Args:
        first_s: The pause after the first failure.
        most_s: No pause is longer.
    """

    def __init__(self, *, first_s: float, most_s: float) -> None:
        """See the class."""
        self._first_s = first_s
        self._most_s = most_s
        self._resting: dict[str, tuple[int, float]] = {}

    def fail(self, name: str, now_s: float, chance: float) -> float:
        """Take note of a failure.

        Args:
            name: Whose.
            now_s: Monotonic seconds.
            chance: In [0, 1): shortens the pause by up to a half, so that not all come back at
                the same moment.

        Returns:
            The pause, in seconds.
        """
        failures = self._resting.get(name, (0, 0.0))[0] + 1
        longest_s = doubling_s(failures, first_s=self._first_s, most_s=self._most_s)
        pause_s = longest_s * (1 - chance / 2)
        self._resting[name] = (failures, now_s + pause_s)
        return pause_s

    def succeed(self, name: str) -> None:
        """Forget the failures before."""
        self._resting.pop(name, None)

    def is_resting(self, name: str, now_s: float) -> bool:
        """Tell whether the pause after its last failure is not over."""
        return name in self._resting and now_s < self._resting[name][1]
