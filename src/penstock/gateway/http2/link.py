"""A connection on its socket: bytes are written once a turn of the loop, whoever had them sent."""

import asyncio
from typing import Generic, TypeVar, cast

from penstock.gateway.http2.connection import Connection
from penstock.gateway.limits import WRITE_BUFFER_BYTES

_End = TypeVar("_End", bound=Connection)


class Link(asyncio.Protocol, Generic[_End]):
    """The socket of one connection.

    Args:
        loop: The running loop.
    """

    connection: _End
    transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """See the class."""
        self._loop = loop

    def make_connection(self) -> _End:
        """Make the connection, which has `wake` called."""
        raise NotImplementedError

    def wake(self) -> None:
        """Have what is to be sent written, with all that comes until the loop turns."""
        self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what is to be sent; close what is finished."""
        transport, connection = self.transport, self.connection
        if transport.is_closing():
            return
        if not connection.is_paused:
            data = connection.take()
            if data:
                transport.write(data)
        if connection.is_finished:
            transport.close()

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the peer."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self.connection = self.make_connection()
        self.connection.transport = transport

    def data_received(self, data: bytes) -> None:
        """Understand what came."""
        self.connection.receive(data)

    def pause_writing(self) -> None:
        """Make nothing for a peer that takes it more slowly."""
        self.connection.is_paused = True

    def resume_writing(self) -> None:
        """Go on."""
        self.connection.resume()
        self.flush()

    def eof_received(self) -> bool:
        """Take a half-closed connection for a closed one: the peer has left."""
        self.connection.lost()
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Tell all streams."""
        self.connection.lost()
