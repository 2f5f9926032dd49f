"""The access log: one line for each request that ended, enough to explain what became of it.

Lines wait in a bounded queue and are written in a thread: a slow disk makes lines missing, which
are counted, and nothing else slow. No line holds content of prompts or answers.
"""

import asyncio
import os
import select
import stat
import sys
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final, Literal

from penstock.contract.finished import FinishedRequest
from penstock.kit.logs.setup import Form, is_text
from penstock.node import log_events
from penstock.node.access_line import write_line

Which = Literal["off", "errors", "all"]
"""`errors` are requests that were refused, failed, or whose caller left."""
MAX_WAITING: Final = 50_000
"""Lines that wait to be written."""
_AT_ONCE: Final = 1_000
_ROUND_S: Final = 0.1
_FILE_BYTES: Final = 64 * 1024
"""Written at once to a file."""
_PATIENCE_MS: Final = 1_000
"""How long a pipe may be full before lines are given up."""
_ERROR_STATUS: Final = 400
_APPEND: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class AccessLog:
    """Takes requests that ended, and writes their lines.

    Args:
        which: Which requests have one.
        path: The file; stdout when None. It is opened again after somebody moved it away.
        node: The node's id.
        form: How lines look; `auto` is text on a terminal.
    """

    def __init__(self, which: Which, path: str | None, node: str, form: Form) -> None:
        """See the class."""
        self._is_all = which == "all"
        self._path = None if path is None else Path(path)
        self._node = node
        self._is_text = form == "text" or (path is None and is_text(form, sys.stdout))
        self._waiting: deque[bytes] = deque()
        self._turn = threading.Lock()
        """One thread writes at a time: who ends may have left one behind."""
        self._file: int | None = None
        # Two figures, since two threads count: of one, each could undo what the other counted.
        self._too_many = self._not_written = 0

    @property
    def dropped(self) -> int:
        """Lines that are missing, since writing was too slow or failed."""
        return self._too_many + self._not_written

    def take(self, requests: Sequence[FinishedRequest]) -> None:
        """Make lines of requests, as far as there is room; in any thread, in one at a time."""
        wanted = requests if self._is_all else [each for each in requests if _is_error(each)]
        room = MAX_WAITING - len(self._waiting)
        self._too_many += max(0, len(wanted) - room)
        self._waiting.extend(
            [write_line(each, self._node, is_text=self._is_text) for each in wanted[:room]]
        )

    async def run(self) -> None:
        """Write until cancelled, and then what is left."""
        try:
            while True:
                await asyncio.sleep(_ROUND_S)  # many lines are written at once
                while self._waiting:
                    await asyncio.to_thread(self.write)
        finally:
            await asyncio.to_thread(self._write_rest)

    def write(self) -> bool:
        """Write lines of some that wait; return whether the disk or the reader took them."""
        with self._turn:
            count = min(len(self._waiting), _AT_ONCE)
            lines = deque(self._waiting.popleft() for _ in range(count))
            try:
                _write_all(self._open(), lines)
            except OSError as error:
                self._not_written += len(lines)
                self._close()
                log_events.ACCESS_LOG_NOT_WRITTEN.log(path=self._path, error=error)
                return False
            return True

    def _write_rest(self) -> None:
        while self._waiting and self.write():
            pass

    def _open(self) -> int:
        """Return the file, opened anew where the one that is open has no name any more.

        A line that was torn, by a full disk or a kill, is ended then: it would spoil the next one.
        """
        if self._path is None:
            return sys.stdout.fileno()
        if self._file is not None:
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._file), self._path.stat()):
                    return self._file
            self._close()
        self._file = os.open(self._path, _APPEND, 0o600)
        if _is_torn(self._path):
            os.write(self._file, b"\n")
        return self._file

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _is_torn(path: Path) -> bool:
    """Tell whether a file ends within a line; pipes do not, nor does what we may write alone."""
    if not path.is_file() or path.stat().st_size == 0 or not os.access(path, os.R_OK):
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def _is_error(request: FinishedRequest) -> bool:
    return request.outcome != "ok" or request.status >= _ERROR_STATUS


def _write_all(file: int, lines: deque[bytes]) -> None:
    """Write lines, and take out those that are written.

    A pipe takes as much as `PIPE_BUF` whole or not at all, and at once when it says that it can:
    so a reader that hangs keeps nobody for longer than a moment, and no line is torn.

    Raises:
        OSError: The rest cannot be written, `TimeoutError` for a pipe that nobody reads.
    """
    is_file = stat.S_ISREG(os.fstat(file).st_mode)
    most = _FILE_BYTES if is_file else select.PIPE_BUF
    ready = select.poll()
    ready.register(file, select.POLLOUT)
    while lines:
        size, count = len(lines[0]), 1
        while count < len(lines) and size + len(lines[count]) <= most:
            size += len(lines[count])
            count += 1
        if not ready.poll(_PATIENCE_MS):
            message = "nobody reads it"
            raise TimeoutError(message)
        written = os.write(file, b"".join(islice(lines, count)))
        while lines and len(lines[0]) <= written:
            written -= len(lines.popleft())
        if written:
            lines[0] = lines[0][written:]
