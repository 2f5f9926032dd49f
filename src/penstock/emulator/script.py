"""A script: the bytes of one answer, when they are due, and how it ends."""

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass

WHOLE_LIMIT_BYTES = 64 * 1024
"""Longer answers are written in parts, so that a slow reader holds them up."""


class Ending(enum.Enum):
    """What happens when the last byte is written."""

    KEEP = "keep"
    """The answer is complete; the connection serves on."""
    FIN = "fin"
    """The connection is closed."""
    RESET = "reset"
    """The connection is reset."""
    STALL = "stall"
    """Nothing: the answer is not complete and never will be."""


def no_steps() -> Iterator[bytes]:
    """Yield nothing."""
    return iter(())


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One answer; it can be played any number of times."""

    head: bytes
    """Written with the first step; empty when the answer ends before any byte."""
    steps: Callable[[], Iterator[bytes]]
    """Makes the parts of the body, each not empty and written in one go."""
    first_ms: float = 0.0
    """From the request to the first step."""
    interval_ms: float = 0.0
    """Between steps; with 0 all that follow the first are written at once."""
    ending: Ending = Ending.KEEP
    is_stream: bool = False

    def find_whole(self) -> bytes | None:
        """Return the whole answer if it is due at once, complete and short; else None."""
        if self.first_ms or self.interval_ms or self.ending is not Ending.KEEP:
            return None
        parts = [self.head]
        size = len(self.head)
        for step in self.steps():
            size += len(step)
            if size > WHOLE_LIMIT_BYTES:
                return None
            parts.append(step)
        return b"".join(parts)


def fixed_script(head: bytes, body: bytes, first_ms: float = 0.0) -> Script:
    """Return the script of an answer whose body is written in one go."""
    return Script(head=head, steps=lambda: iter((body,) if body else ()), first_ms=first_ms)
