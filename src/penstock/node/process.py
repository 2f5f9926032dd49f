"""A worker's process, started by us or by an agent before us.

It is watched by a file descriptor (`pidfd`), which stands for this process and no other, even
when its number is given away again.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

_UNKNOWN = "unknown"


class Process:
    """A process that is watched; it outlives us unless it is killed.

    Args:
        pid: Its number; it must exist at this moment.
        started: The object it was started by, when it is our own child.

    Raises:
        ProcessLookupError: There is no such process.
    """

    def __init__(self, pid: int, started: "subprocess.Popen[bytes] | None" = None) -> None:
        """See the class."""
        self.pid = pid
        self._started = started
        self._descriptor = os.pidfd_open(pid)
        self._ended = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(self._descriptor, self._take_end)

    @classmethod
    def start(cls, command: Sequence[str], log_path: Path | None) -> "Process":
        """Start a process in a session of its own.

        Neither Ctrl-C on our terminal nor our own end reaches it.

        Args:
            command: What to run.
            log_path: File that its output is added to; our own stderr when None.

        Raises:
            OSError: It cannot be started.
        """
        log = None if log_path is None else os.open(log_path, _APPEND, 0o600)
        try:
            started = subprocess.Popen(  # noqa: S603  # the operator's own command
                command,
                stdin=subprocess.DEVNULL,
                stdout=2 if log is None else log,
                stderr=2 if log is None else log,
                start_new_session=True,
            )
        finally:
            if log is not None:
                os.close(log)
        return cls(started.pid, started)

    @property
    def has_ended(self) -> bool:
        """Whether it is known to have ended."""
        return self._ended.done()

    async def wait(self) -> str:
        """Wait for its end and return how it ended, in words."""
        return await asyncio.shield(self._ended)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens when it has ended."""
        if not self._ended.done():
            # It may have ended just now.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)

    def _take_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)
        how = _UNKNOWN if self._started is None else _describe(self._started.wait())
        self._ended.set_result(how)


_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


def _describe(code: int) -> str:
    if code >= 0:
        return f"exit {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
