"""Writing to connections that may have ended just now."""

import asyncio


def write_if_open(to: asyncio.StreamWriter | asyncio.WriteTransport, data: bytes) -> bool:
    """Write, unless the connection has ended; return whether it was written.

    A connection ends a moment before its reader is told. Whoever writes to it then meets a
    RuntimeError on uvloop, where asyncio's own loop says nothing.
    """
    if to.is_closing():
        return False
    to.write(data)
    return True
