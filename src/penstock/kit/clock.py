"""Time as an argument: rules and tests never read the machine's clock themselves."""

import time
from typing import Protocol


class Clock(Protocol):
    """A source of wall-clock and monotonic time."""

    def wall_ns(self) -> int:
        """Return nanoseconds since the Unix epoch; may jump either way."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds from an arbitrary start; never goes backwards."""
        ...


class SystemClock:
    """The machine's clock."""

    wall_ns = staticmethod(time.time_ns)
    monotonic_s = staticmethod(time.monotonic)


class ManualClock:
    """A clock that moves only when told to, for tests.

    Attributes:
        now_ns: Wall time in nanoseconds since the Unix epoch.
        now_s: Monotonic time in seconds.
    """

    def __init__(self, now_ns: int = 1_750_000_000_000_000_000, now_s: float = 0.0) -> None:
        """Start at `now_ns` wall time and `now_s` monotonic time."""
        self.now_ns = now_ns
        self.now_s = now_s

    def wall_ns(self) -> int:
        """Return the current manual wall time in nanoseconds."""
        return self.now_ns

    def monotonic_s(self) -> float:
        """Return the current manual monotonic time in seconds."""
        return self.now_s

    def advance(self, seconds: float) -> None:
        """Move both clocks forward by `seconds` (>= 0)."""
        if seconds < 0:
            message = "a monotonic clock cannot go back"
            raise ValueError(message)
        self.now_s += seconds
        self.now_ns += round(seconds * 1e9)
