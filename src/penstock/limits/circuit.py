"""When to stop asking somebody who does not answer, and what to do alone. Pure."""

from enum import Enum

ABSENT_S = 1.0
"""Who lets others wait in vain for so long, without one answer, is taken to be away."""
CALM_LOOKS = 3
"""So many close an open circuit: others have something to tell as well before all ask again."""
REMEMBERED_MS = 60_000


class _State(Enum):
    UNKNOWN = "nobody was seen yet"
    CLOSED = "somebody is there and is asked"
    OPEN = "nobody is there"


class Circuit:
    """Whether somebody is there: when closed, they are asked; when open, one does without them.

    At first neither is known. The first good look closes it, after it was open three do. Slow is
    not away: as long as answers come now and then it stays closed.
    """

    def __init__(self) -> None:
        """See the class."""
        self._state = _State.UNKNOWN
        self._vain_s = 0.0
        """How long somebody waited for answers since the last one; nothing counts twice."""
        self._vain_until_s = 0.0
        self._looks_needed = 1

    @property
    def is_closed(self) -> bool:
        """Whether they are asked."""
        return self._state is _State.CLOSED

    @property
    def is_open(self) -> bool:
        """Whether they are known to be away."""
        return self._state is _State.OPEN

    def succeed(self) -> None:
        """Take note of an answer that came in time."""
        self._vain_s = 0.0

    def fail(self, waited_s: float, now_s: float) -> bool:
        """Take note that somebody waited in vain; return whether that has opened the circuit.

        Args:
            waited_s: How long, without what is one's own fault.
            now_s: When that ended, on a clock that does not go back. Those who waited at the same
                time count as one.
        """
        self._vain_s += min(waited_s, max(0.0, now_s - self._vain_until_s))
        self._vain_until_s = now_s
        if self.is_open:
            self._looks_needed = CALM_LOOKS
        return self._vain_s >= ABSENT_S and self.open()

    def open(self) -> bool:
        """Ask no more; return whether that is new."""
        was_open, self._state = self.is_open, _State.OPEN
        self._looks_needed = CALM_LOOKS
        return not was_open

    def look_well(self) -> bool:
        """Take note that all is well at a look; return whether that has closed the circuit."""
        self.succeed()
        if self.is_closed:
            return False
        self._looks_needed -= 1
        if self._looks_needed > 0:
            return False
        self._state = _State.CLOSED
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
