"""Where callers come in: HTTP on one port, gRPC on another where one is named."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from penstock.contract.node import WorkerSettings
from penstock.gateway.grpc.call import Call
from penstock.gateway.http2.fields import Fields
from penstock.gateway.http2.server import Http2Downstream
from penstock.gateway.http2.stream import Stream
from penstock.gateway.server import Downstream

if TYPE_CHECKING:
    from penstock.gateway.worker import Worker

_BACKLOG: Final = 4096


async def listen(worker: "Worker", settings: WorkerSettings) -> list[asyncio.Server]:
    """Listen on the worker's ports, which others of the node share.

    Raises:
        OSError: A port or the certificate cannot be had.
    """

    def accept(stream: Stream, fields: Fields, is_end: bool) -> None:  # noqa: FBT001 - as called
        Call(worker, stream).begin(fields, is_end=is_end)

    servers = []
    if settings.grpc_port is not None:
        make = lambda: Http2Downstream(worker, accept)  # noqa: E731 - as the other
        servers.append(await _listen(settings, settings.grpc_port, make, "h2"))
    # Last: who can connect to it finds all there.
    servers.append(await _listen(settings, settings.port, lambda: Downstream(worker), "http/1.1"))
    return servers


async def _listen(
    settings: WorkerSettings, port: int, make: Callable[[], asyncio.Protocol], protocol: str
) -> asyncio.Server:
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
    return await loop.create_server(make, sock=listener, backlog=_BACKLOG, ssl=tls)
