"""How much a connection has brought of a message that has not ended.

ZeroMQ hands over messages that are whole, and bounds how many of them wait and how long each of
their parts is, but not how many parts there are: one that goes on for ever takes all memory. It
says nothing of it either; the system knows what came in.
"""

import socket
import struct
from typing import Final

from penstock.engines.kv_events import MAX_BATCH_BYTES

MOST_BYTES: Final = 3 * MAX_BATCH_BYTES
"""Of a message that has not ended, and what else waits in the system's buffer, of 6 MiB at most."""
_RECEIVED: Final = struct.Struct("128xQ")
"""Where `tcpi_bytes_received` is in `struct tcp_info` of linux/tcp.h, since Linux 4.1."""


class Unfinished:
    """Of one connection.

    Args:
        file: ZeroMQ's own, which may close it at any time.
        port: Where it goes: another one may get the same file.
    """

    def __init__(self, file: int, port: int) -> None:
        """See the class."""
        self._file = file
        self._port = port
        self._began: int | None = None
        """What had come in when there was no unfinished message yet, at the latest."""
        self._is_long = False

    def ended(self) -> None:
        """Take note that a message may have ended since the last look."""
        self._began = None

    def look(self) -> bool:
        """Return whether it is too long, at the second look that finds it so: it may end yet."""
        received = _count_received(self._file, self._port)
        if received is None:
            return False
        if self._began is None:
            self._began, self._is_long = received, False
        was_long, self._is_long = self._is_long, received - self._began > MOST_BYTES
        return was_long and self._is_long


def _count_received(file: int, port: int) -> int | None:
    """Return how many bytes a connection brought; None when it is gone, or no system says it."""
    try:
        with socket.fromfd(file, socket.AF_INET, socket.SOCK_STREAM) as connection:
            if connection.getpeername()[1] != port:
                return None
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED.size)
            (received,) = _RECEIVED.unpack(info)
    except (OSError, struct.error):
        return None
    return int(received)
