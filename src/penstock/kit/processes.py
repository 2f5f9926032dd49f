"""What the system says of a process."""

import contextlib
import os
import resource
from pathlib import Path
from typing import NamedTuple

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_USER, _SYSTEM = 11, 12
"""Places of processor times behind the name in `/proc/<pid>/stat`: fields 14 and 15."""
_CONTAINERS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Where a container is told how much memory it may have, by cgroups of version 2 and 1."""
_FILES_ENOUGH = 1 << 20
"""More are of no use to a process, and there may be no limit."""


class ProcessUse(NamedTuple):
    """What a process uses."""

    memory_bytes: int
    """Resident."""
    cpu_s: float
    """Since its start, on all cores."""
    open_files: int
    """Descriptors, connections included."""


def raise_open_files() -> int:
    """Let this process open as many files as it may be allowed; return how many these are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FILES_ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _FILES_ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def find_memory() -> int:
    """Return how many bytes of memory there are, for all processes of the machine or container."""
    memory = os.sysconf("SC_PHYS_PAGES") * _PAGE_BYTES
    for path in _CONTAINERS:
        with contextlib.suppress(OSError, ValueError):  # there is none, or no bound
            memory = min(memory, int(path.read_text()))
    return memory


def limit_memory(most_bytes: int) -> None:
    """Let this process have no more memory of its own: what asks for more fails, or ends it."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = most_bytes if hard == resource.RLIM_INFINITY else min(hard, most_bytes)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def find_use(pid: int) -> ProcessUse | None:
    """Return what a process of ours uses; None when it is gone, or no system says it."""
    folder = Path("/proc") / str(pid)
    try:
        pages = int((folder / "statm").read_text().split()[1])
        # The name, in parentheses, may hold anything.
        times = (folder / "stat").read_text().rpartition(")")[2].split()
        ticks = int(times[_USER]) + int(times[_SYSTEM])
        files = len(os.listdir(folder / "fd"))  # noqa: PTH208 - there may be many thousands
    except (OSError, IndexError, ValueError):
        return None
    return ProcessUse(pages * _PAGE_BYTES, ticks / _TICKS_A_SECOND, files)
