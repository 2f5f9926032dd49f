"""How a process itself fares: how late its event loop is, and how long it stands still for garbage.

Each of our processes has one, with its name as label.
"""

import asyncio
import gc
from time import perf_counter
from typing import Final

from penstock.contract.metrics import GC_PAUSE, LOOP_LAG
from penstock.contract.series import Histogram

_BEAT_S: Final = 0.1
_GENERATIONS: Final = 3


class Vitals:
    """Watches the process that it is in, from `start` to `stop`.

    Args:
        process: What the process is called: `agent`, `worker-0`, `control`.
    """

    def __init__(self, process: str) -> None:
        """See the class."""
        self._lag = Histogram(LOOP_LAG, (process,))
        self._pauses = [Histogram(GC_PAUSE, (process, str(each))) for each in range(_GENERATIONS)]
        self.histograms = (self._lag, *self._pauses)
        """What it has seen."""
        self._began_s = 0.0
        self._beat: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to watch."""
        gc.callbacks.append(self._collecting)
        self._wait(loop)

    def stop(self) -> None:
        """Watch no more."""
        gc.callbacks.remove(self._collecting)
        if self._beat is not None:
            self._beat.cancel()

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        # Not by the loop's time, which stands still within a turn.
        self._beat = loop.call_later(_BEAT_S, self._beaten, loop, perf_counter() + _BEAT_S)

    def _beaten(self, loop: asyncio.AbstractEventLoop, due_s: float) -> None:
        self._lag.observe(max(perf_counter() - due_s, 0.0))
        self._wait(loop)

    def _collecting(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began_s = perf_counter()
        else:
            self._pauses[info["generation"]].observe(perf_counter() - self._began_s)
