"""What tells an agent, its node and each start of a worker from all others."""

import asyncio
import fcntl
import os
import re
import secrets
from pathlib import Path

from penstock.kit.clock import Clock
from penstock.kit.files import read_or_create_secret, write_atomic
from penstock.node.errors import DATA_IN_USE, AgentError

LOCK_PATIENCE_S = 5.0
"""A killed agent's successor may be there before the kernel has let go of its lock."""
_LOCK_POLL_S = 0.05
_JOURNAL_NAME = re.compile(r"(?P<slot>[0-9]+)-(?P<epoch>[0-9]{8,})")


class AgentLock:
    """The lock of a data folder, held until `release` or the end of the process.

    Workers do not inherit it: a new agent can start while the workers of a dead one live.
    """

    def __init__(self, path: Path) -> None:
        """Open the lock file `path`, without taking the lock."""
        self._path = path
        self._descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)

    async def acquire(self, clock: Clock, patience_s: float = LOCK_PATIENCE_S) -> None:
        """Take the lock, waiting for its holder to end.

        Raises:
            AgentError: It is still held after `patience_s`.
        """
        deadline = clock.monotonic_s() + patience_s
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if clock.monotonic_s() >= deadline:
                    holder = os.pread(self._descriptor, 32, 0).decode(errors="replace").strip()
                    detail = f"another agent (process {holder or '?'}) holds {self._path}"
                    raise AgentError(DATA_IN_USE, detail) from None
                await asyncio.sleep(_LOCK_POLL_S)
                continue
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
            return

    def release(self) -> None:
        """Let go; nothing happens the second time."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def read_or_create_node_id(path: Path) -> str:
    """Return the node's id, made at its first start."""
    return read_or_create_secret(path, f"node-{secrets.token_hex(6)}".encode()).decode()


def parse_journal_name(name: str) -> tuple[int, int] | None:
    """Return slot and epoch of a journal folder's name, or None when it is no such name.

    >>> parse_journal_name("3-00000041")
    (3, 41)
    """
    match = _JOURNAL_NAME.fullmatch(name)
    return None if match is None else (int(match["slot"]), int(match["epoch"]))


def name_of(slot: int, epoch: int) -> str:
    """Return what a start of a worker is called: its journal's folder.

    >>> name_of(3, 41)
    '3-00000041'
    """
    return f"{slot}-{epoch:08d}"


def next_epoch(path: Path, *traces: Path) -> int:
    """Return a start number that was never used, and make sure that it never is again.

    It is on the disk before it is returned. Where the file is lost or old, the journals and the
    shipper's files still tell which numbers were used.

    Args:
        path: File with the last number.
        traces: Folders whose entries are named after journals.
    """
    try:
        last = int(path.read_bytes())
    except (FileNotFoundError, ValueError):
        last = 0
    entries = (path.stem for folder in traces for path in folder.iterdir())
    names = map(parse_journal_name, entries)
    epoch = 1 + max([last, *(name[1] for name in names if name is not None)])
    write_atomic(path, f"{epoch}\n".encode())
    return epoch
