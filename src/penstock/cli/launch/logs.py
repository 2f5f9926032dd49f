"""Logs of child processes: one file each, kept short, and its end shown when one fails."""

import os
from pathlib import Path
from typing import BinaryIO

ROTATE_BYTES = 4 * 1024 * 1024
"""A longer log becomes `<name>.log.1` at the next start; that one replaces the one before."""
TRUNCATE_BYTES = 64 * 1024 * 1024
"""A log that grows over this while its process runs loses its first part."""
KEEP_BYTES = 1024 * 1024
"""What is kept of such a log."""


def open_log(path: Path) -> BinaryIO:
    """Open a log for appending, after moving a long one out of the way."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.exists() and path.stat().st_size > ROTATE_BYTES:
        path.replace(path.with_name(path.name + ".1"))
    # Unbuffered and O_APPEND: parent and child write to it in turns.
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    return os.fdopen(descriptor, "wb", buffering=0)


def shorten_running(path: Path, limit_bytes: int = TRUNCATE_BYTES) -> bool:
    """Cut a log that its process holds open, if it is over the limit; tell whether it was.

    What the process writes between the copy and the cut is lost: a log is not a journal.
    """
    try:
        if path.stat().st_size <= limit_bytes:
            return False
        with path.open("rb+") as file:
            file.seek(-min(KEEP_BYTES, limit_bytes), os.SEEK_END)
            end = file.read()
            path.with_name(path.name + ".1").write_bytes(end)
            file.truncate(0)
    except FileNotFoundError:
        return False
    return True


def tail(path: Path, lines: int = 20, offset: int = 0) -> str:
    """Return the last lines of a log, at most 64 KiB, of what is behind `offset`."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(min(offset, size), size - 64 * 1024))
            content = file.read()
    except OSError:
        return ""
    return "\n".join(content.decode(errors="replace").splitlines()[-lines:])
