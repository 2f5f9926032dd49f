"""Where callers come in: HTTP on one port, gRPC on another where one is named."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from penstock.contract.node import WorkerSettings
from penstock.gateway.grpc.call import Call
from penstock.gateway.http2.fields import Fields
from penstock.gateway.http2.server import Http2Downstream
from penstock.gateway.http2.stream import Stream
from penstock.gateway.limits import ARRIVAL_S
from penstock.gateway.server import Downstream

if TYPE_CHECKING:
    from penstock.gateway.worker import Worker

_BACKLOG: Final = 4096
_Make = Callable[[], asyncio.Protocol]


class Door:
    """One port on which callers come in.

    Args:
        socket: It listens, and does not block; another of the same file than the server's.
        server: Accepts connections until it is closed.
        make: Makes the protocol of a connection.
        tls: What connections are encrypted by.
    """

    def __init__(
        self,
        socket: socket.socket,
        server: asyncio.Server,
        make: _Make,
        tls: ssl.SSLContext | None,
    ) -> None:
        """See the class."""
        self._socket = socket
        self._server = server
        self._make = make
        self._tls = tls

    async def close(self) -> None:
        """Let in who knocked before, then nobody.

        Connections that the kernel has made and nobody accepted would be reset, with requests in
        them of which their callers could not know whether they were served. Over TLS they have to
        greet in the time of one that is new: the end waits no longer for who says nothing.
        """
        self._server.close()
        await asyncio.sleep(0)  # the loop lets go of the port
        loop = asyncio.get_running_loop()
        arrivals = []
        with self._socket as knocking:
            while True:
                try:
                    arrived, _ = knocking.accept()
                except OSError:  # nobody is there, or no file is left
                    break
                arrived.settimeout(0)
                arrivals.append(loop.connect_accepted_socket(self._make, arrived, ssl=self._tls))
        greeted = asyncio.gather(*arrivals, return_exceptions=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(ARRIVAL_S):
                await greeted


async def listen(worker: "Worker", settings: WorkerSettings) -> list[Door]:
    """Listen on the worker's ports, which others of the node share.

    Raises:
        OSError: A port or the certificate cannot be had.
    """

    def accept(stream: Stream, fields: Fields, is_end: bool) -> None:  # noqa: FBT001 - as called
        Call(worker, stream).begin(fields, is_end=is_end)

    doors = []
    if settings.grpc_port is not None:
        make = lambda: Http2Downstream(worker, accept)  # noqa: E731 - as the other
        doors.append(await _listen(settings, settings.grpc_port, make, "h2"))
    # Last: who can connect to it finds all there.
    doors.append(await _listen(settings, settings.port, lambda: Downstream(worker), "http/1.1"))
    return doors


async def _listen(settings: WorkerSettings, port: int, make: _Make, protocol: str) -> Door:
    tls = None
    if settings.tls_cert is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.minimum_version = ssl.TLSVersion.TLSv1_2
        tls.load_cert_chain(settings.tls_cert, settings.tls_key)
        tls.set_alpn_protocols([protocol])
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((settings.host, port))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(make, sock=listener, backlog=_BACKLOG, ssl=tls)
    same = listener.dup()
    same.settimeout(0)
    return Door(same, server, make, tls)
