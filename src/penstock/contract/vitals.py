"""How our processes fare: how late loops are, what garbage costs, what of the machine is used.

Each process watches itself, with its name as label.
"""

import asyncio
import gc
import platform
from collections.abc import Iterator, Mapping
from time import perf_counter
from typing import Final

import penstock
from penstock.contract.exposition import Family
from penstock.contract.metrics import (
    BUILD_INFO,
    GC_PAUSE,
    LOOP_LAG,
    PROCESS_CPU,
    PROCESS_FILES,
    PROCESS_MEMORY,
)
from penstock.contract.series import Histogram
from penstock.kit.processes import find_use

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

    def families(self) -> Iterator[Family]:
        """Yield what it has seen, by metric."""
        yield Family(LOOP_LAG, histograms={self._lag.labels: self._lag.sample()})
        yield Family(GC_PAUSE, histograms={each.labels: each.sample() for each in self._pauses})

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


def show_processes(pids: Mapping[str, int]) -> Iterator[Family]:
    """Yield what processes use, but for those that are gone, and which version this one is.

    Args:
        pids: Their ids, by what they are called.
    """
    found = {(name,): find_use(pid) for name, pid in pids.items()}
    uses = {name: use for name, use in found.items() if use is not None}
    yield Family(PROCESS_MEMORY, {name: float(use.memory_bytes) for name, use in uses.items()})
    yield Family(PROCESS_CPU, {name: use.cpu_s for name, use in uses.items()})
    yield Family(PROCESS_FILES, {name: float(use.open_files) for name, use in uses.items()})
    yield Family(BUILD_INFO, {(penstock.__version__, platform.python_version()): 1.0})
