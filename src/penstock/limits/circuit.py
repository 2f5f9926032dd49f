"""When to stop asking somebody who does not answer, and what to do alone. Pure."""

ERRORS = 3
"""So many in a row open a circuit."""
CALM_LOOKS = 3
"""So many in a row close it: others have something to tell as well before all ask again."""
REMEMBERED_MS = 60_000


class Circuit:
    """Whether somebody is asked: open means no. The first good look closes it, later ones three."""

    def __init__(self) -> None:
        """See the class."""
        self.is_open = True
        self._errors = 0
        self._looks_needed = 1

    def succeed(self) -> None:
        """Take note of an answer; in an open circuit that changes nothing."""
        if not self.is_open:
            self._errors = 0

    def fail(self) -> bool:
        """Take note that there was no answer; return whether that has opened the circuit."""
        self._errors += 1
        if self.is_open:
            self._looks_needed = max(self._looks_needed, CALM_LOOKS)
        return self._errors >= ERRORS and self.open()

    def open(self) -> bool:
        """Ask no more; return whether that is new."""
        was_open, self.is_open = self.is_open, True
        self._looks_needed = CALM_LOOKS
        return not was_open

    def look_well(self) -> bool:
        """Take note that all is well at a look; return whether that has closed the circuit."""
        if not self.is_open:
            return False
        self._looks_needed -= 1
        if self._looks_needed > 0:
            return False
        self.is_open = False
        self._errors = 0
        return True


class LiveNodes:
    """How many nodes share the limits: the most that were seen in the last minute.

    Too many give smaller shares, too few would give too much: so when a server has lost everything
    and nodes come back one by one, those seen before count on.

    Args:
        cells: Two that outlive the process: the count, and when it was seen.
    """

    def __init__(self, cells: "memoryview[int]") -> None:
        """See the class."""
        self._cells = cells

    @property
    def count(self) -> int:
        """How many; 0 when that was never known."""
        return self._cells[0]

    def see(self, count: int, now_ms: int) -> None:
        """Take note of how many there are."""
        if count >= self._cells[0] or now_ms - self._cells[1] > REMEMBERED_MS:
            self._cells[0], self._cells[1] = count, now_ms


def share_of(limit: int, nodes: int) -> int:
    """Return what each node may use of a limit when nobody is there to share it out.

    >>> [share_of(10, nodes) for nodes in (1, 3, 20)]
    [10, 3, 0]
    """
    return limit // nodes
