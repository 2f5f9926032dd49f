"""Processor time: of a process, and of everything else on the machine."""

import contextlib
import os
import time

import psutil
from benches.load.processes import cpu_clock


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has used, without its children."""
    return time.clock_gettime_ns(cpu_clock(pid)) / 1e9


class Meter:
    """Tells how busy the machine was since it was made, and how much of that was not ours."""

    def __init__(self) -> None:
        """Begin."""
        self._began_s = time.monotonic()
        self._busy_s, self._own_s = _busy_s(), _own_s()

    def others_percent(self) -> float:
        """Return the processor time of others, in percent of one core."""
        taken_s = time.monotonic() - self._began_s
        others_s = _busy_s() - self._busy_s - (_own_s() - self._own_s)
        return max(0.0, others_s / taken_s * 100)


def _busy_s() -> float:
    """Return the seconds that all cores have spent on anything, steal included."""
    now = psutil.cpu_times()
    # The first eight are disjoint; guest time is part of user time.
    return sum(now[:8]) - now.idle - now.iowait


def _own_s() -> float:
    """Return the processor time of this process and of all that it started."""
    total = sum(os.times()[:4])
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:4])
    return total
