"""Runs a command that ends with its parent: `python -IS tether.py PARENT_PID COMMAND...`.

The kernel sends the command SIGTERM when the parent dies, even by kill -9, so that nothing lingers.
It is a program of its own, and not a function run after fork, because the parent may have threads
and only a fresh process can safely prepare itself; it becomes the command, so the process id stays.
Imports nothing of ours: it starts in some 20 ms.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""From `linux/prctl.h`."""


def main() -> None:
    """Tie this process to its parent and become the command."""
    parent = int(sys.argv[1])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        # It died before the tie was made, so no signal will come.
        sys.exit(1)
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606  # no shell is wanted


if __name__ == "__main__":
    main()
