"""Processor time: of a process, and of the whole machine."""

import time

import psutil


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has used, without its children."""
    # Source: clock_getcpuclockid(3) and CPUCLOCK_SCHED in the kernel's posix-timers_types.h.
    return time.clock_gettime_ns((~pid << 3) | 2) / 1e9


class Meter:
    """Tells how busy the machine's cores were since it was made."""

    def __init__(self) -> None:
        """Begin."""
        self._began = psutil.cpu_times()

    def busy_percent(self) -> float:
        """Return the part of all cores that was used, steal included."""
        now = psutil.cpu_times()
        spent = [after - before for after, before in zip(now[:8], self._began[:8], strict=True)]
        idle = now.idle - self._began.idle + now.iowait - self._began.iowait
        return 100 * (1 - idle / max(sum(spent), 1e-9))
