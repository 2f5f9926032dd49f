"""Ports of the loopback that belong to this test process: nobody else is given them meanwhile.

A port that the system hands out and that is closed again is anybody's: another test, or an outgoing
connection, may get it before a server has started there. With SO_REUSEPORT both would listen, and
neither would notice. So test processes take blocks of ports from where the system hands out none,
and hold a block by keeping its first port bound for as long as they live.
"""

import atexit
import socket
from collections.abc import Iterator
from pathlib import Path

_BLOCK = 100
_FIRST, _END = 10_000, 65_536
_PREFERRED = 18_000
"""The block in which `penstock dev` likes to put its engines."""
_SYSTEM_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """Return a port on which nobody listens; each is returned once."""
    return next(_PORTS)


def _walk() -> Iterator[int]:
    for block in _list_blocks():
        holder = socket.socket()
        try:
            holder.bind(("127.0.0.1", block))
        except OSError:
            holder.close()
            continue
        _HELD.append(holder)
        yield from filter(_is_free, range(block + 1, block + _BLOCK))
    message = "no port is left"
    raise RuntimeError(message)


def _list_blocks() -> list[int]:
    """Return where blocks begin: anywhere if the system hands out every port."""
    low, high = (int(part) for part in _SYSTEM_RANGE.read_text(encoding="ascii").split())
    blocks = [block for block in range(_FIRST, _END - _BLOCK, _BLOCK) if block != _PREFERRED]
    return [block for block in blocks if block + _BLOCK <= low or block > high] or blocks


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


_HELD: list[socket.socket] = []
"""What holds blocks, those that are used up as well: servers may still run there."""
_PORTS = _walk()


@atexit.register
def _let_go() -> None:
    for holder in _HELD:
        holder.close()
