"""A script being played to one connection."""

from collections.abc import Callable
from typing import Protocol

from penstock.emulator.script import Ending, Script
from penstock.emulator.ticker import Ticker

BATCH_BYTES = 256 * 1024
"""What an answer without intervals writes at once: only far longer ones are cut."""


class Sink(Protocol):
    """Where a playback writes: a connection."""

    is_paused: bool
    """Whether the reader is behind, so that nothing more may be written."""

    def write(self, content: bytes) -> None:
        """Send, or queue to send; may set `is_paused`."""
        ...


class Playback:
    """Plays a script once, no faster than its reader reads.

    Args:
        script: What to play; its `head` may be replaced by `head`.
        head: The head to send.
        sink: Where to write.
        ticker: Tells when steps are due.
        on_end: Called once, when all is written and the reader has caught up; with the ending
            `STALL`, never.
    """

    __slots__ = (
        "_due_ms",
        "_head",
        "_is_over",
        "_is_waiting",
        "_next",
        "_on_end",
        "_script",
        "_sink",
        "_steps",
        "_ticker",
        "is_stream",
        "step_count",
    )

    def __init__(
        self,
        script: Script,
        head: bytes,
        *,
        sink: Sink,
        ticker: Ticker,
        on_end: Callable[[Ending], None],
    ) -> None:
        """See the class."""
        self._script = script
        self._head = head
        self._sink = sink
        self._ticker = ticker
        self._on_end = on_end
        self._steps = script.steps()
        self._next = next(self._steps, None)
        self._is_over = False
        self._is_waiting = False
        self._due_ms = 0.0
        self.step_count = 0
        """Steps written."""
        self.is_stream = script.is_stream

    def start(self) -> None:
        """Play the first step, or have it played when it is due."""
        first_ms = self._script.first_ms
        if first_ms == 0 and self._script.interval_ms == 0:
            self._advance(0)
            return
        self._due_ms = self._ticker.now_ms() + first_ms
        if first_ms == 0:
            self._advance(int(self._due_ms))
        else:
            self._ticker.schedule(self._due_ms, self)

    def tick(self, slot_ms: int) -> None:
        """Write what is due until `slot_ms`."""
        if not self._is_over:
            self._advance(slot_ms)

    def resume(self) -> None:
        """Go on after the reader has caught up."""
        if self._is_waiting and not self._is_over:
            self._is_waiting = False
            if self._script.interval_ms:
                self._due_ms = self._ticker.now_ms()
            self._advance(int(self._due_ms))

    def cancel(self) -> None:
        """Write nothing more and never call `on_end`."""
        self._is_over = True

    def _advance(self, slot_ms: int) -> None:
        if self._sink.is_paused:
            self._is_waiting = True
            return
        interval_ms = self._script.interval_ms
        if interval_ms == 0:
            self._write_rest()
            return
        self._write_step()
        self._due_ms += interval_ms
        if interval_ms < 1:
            # The ticker knows whole milliseconds, so steps closer together come in groups.
            while self._next is not None and self._due_ms <= slot_ms:
                self._write_step()
                self._due_ms += interval_ms
        self._settle()

    def _write_step(self) -> None:
        step = self._next
        if step is not None:
            self._next = next(self._steps, None)
            self.step_count += 1
        if self._head:
            step = self._head + (step or b"")
            self._head = b""
        if step:
            self._sink.write(step)

    def _write_rest(self) -> None:
        while not self._sink.is_paused:
            parts = [self._head]
            self._head = b""
            size = 0
            while self._next is not None and size < BATCH_BYTES:
                parts.append(self._next)
                size += len(self._next)
                self._next = next(self._steps, None)
            self.step_count += len(parts) - 1
            batch = b"".join(parts)
            if batch:
                self._sink.write(batch)
            if self._next is None:
                break
        self._settle()

    def _settle(self) -> None:
        """After a write: end, wait for the reader, or for the next step's time."""
        if self._next is None:
            if self._sink.is_paused:
                self._is_waiting = True
            elif self._script.ending is not Ending.STALL:
                self._is_over = True
                self._on_end(self._script.ending)
        elif self._script.interval_ms:
            self._ticker.schedule(self._due_ms, self)
        else:
            self._is_waiting = True
