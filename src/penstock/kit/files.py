"""Files that are whole or absent, and secrets that only their owner can read."""

import os
import secrets
from pathlib import Path


def write_atomic(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replace `path` with `content` so that a reader, or a crash, sees the old or the new file.

    Args:
        path: Where to write; its folder must exist.
        content: The whole new content.
        mode: Permission bits of the new file.

    Raises:
        OSError: The folder is missing, read-only or full; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_or_create_secret(path: Path, make: bytes | None = None) -> bytes:
    """Return the secret in `path`, creating it (mode 0600) when it is not there.

    Args:
        path: The secret's file; its folder is created with mode 0700 when missing.
        make: Content for a new file; 32 random bytes in hex when None.

    Returns:
        The file's content without surrounding white space.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        write_atomic(path, make if make is not None else secrets.token_hex(32).encode(), mode=0o600)
    return path.read_bytes().strip()


def why_unread(error: OSError | ValueError) -> str:
    """Return in words why a file could not be read as what it should be.

    >>> why_unread(FileNotFoundError(2, "No such file or directory", "prices.yaml"))
    'No such file or directory'
    >>> why_unread(UnicodeDecodeError("utf-8", b"?", 0, 1, "invalid start byte"))
    'it is no UTF-8 text'
    """
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return "it is no UTF-8 text" if isinstance(error, UnicodeError) else str(error)
