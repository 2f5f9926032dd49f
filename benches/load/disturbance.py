"""What others did on our two cores meanwhile: how far a figure can be believed."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil
from benches.load.figures import Values
from benches.load.processes import Cores, Running

TOLERATED_PERCENT = 5.0
"""Of one core. Timers and interrupts, which belong to nobody, need one or two."""
REPEATS = 2
"""How often a disturbed measure is taken again."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a measure gave, and how disturbed it was."""

    values: Values
    others_percent: float
    """Processor time of others on our cores, in percent of one core."""


class Disturbance:
    """Weighs what neighbors do.

    Args:
        cores: Our cores.
        ours: Every program that we have started and that still runs.
    """

    def __init__(self, cores: Cores, ours: list[Running]) -> None:
        """See the class."""
        self._cores = {cores.gateway, cores.load}
        self._ours = ours

    def watch(self, measure: Callable[[], Values]) -> Reading:
        """Take a measure once."""
        began_s, busy_s, own_s = time.monotonic(), self._busy_s(), self._own_s()
        values = measure()
        taken_s = time.monotonic() - began_s
        others_s = self._busy_s() - busy_s - (self._own_s() - own_s)
        return Reading(values, max(0.0, others_s / taken_s * 100))

    def least_disturbed(self, measure: Callable[[], Values], *, repeats: int = REPEATS) -> Reading:
        """Take a measure, again when others disturbed it; return the least disturbed one."""
        best = self.watch(measure)
        for _ in range(repeats):
            if best.others_percent <= TOLERATED_PERCENT:
                break
            again = self.watch(measure)
            if again.others_percent < best.others_percent:
                best = again
        return best

    def _busy_s(self) -> float:
        """Return the seconds that our cores have spent on anything, in steps of 10 ms."""
        times = [
            each for core, each in enumerate(psutil.cpu_times(percpu=True)) if core in self._cores
        ]
        # The first eight are disjoint; guest time is part of user time.
        return sum(sum(each[:8]) - each.idle - each.iowait for each in times)

    def _own_s(self) -> float:
        """Return the processor time of this process, its ended children and all of `ours`."""
        return sum(os.times()[:4]) + sum(running.cpu_ns() for running in self._ours) / 1e9
