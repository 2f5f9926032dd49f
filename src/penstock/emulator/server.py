"""The emulator as a server: inside a test's event loop, or as a process of its own."""

import asyncio
import gc
import signal
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

import uvloop

from penstock.emulator.connection import Connection, Connections
from penstock.emulator.service import Service
from penstock.emulator.settings import EmulatorSettings
from penstock.emulator.statistics import Statistics
from penstock.emulator.ticker import Ticker

if TYPE_CHECKING:
    from penstock.emulator.grpc_service import GrpcService
    from penstock.emulator.kv_events import KvEvents

BACKLOG = 8192


class EmulatorServer:
    """A listening emulator; also an async context manager that closes it.

    Args:
        server: The listening sockets.
        service: Finds its answers, and knows what was seen so far.
        ticker: Stopped with the server.
        connections: The open ones.
        grpc: What answers by gRPC.
    """

    def __init__(
        self,
        server: asyncio.Server,
        service: Service,
        ticker: Ticker,
        connections: Connections,
        grpc: "GrpcService | None" = None,
    ) -> None:
        """See the class."""
        self._server = server
        self._grpc = grpc
        self.kv_events = service.kv_events
        """What publishes events of its cache, if so."""
        self._ticker = ticker
        self._connections = connections
        self.statistics = service.statistics

    @property
    def port(self) -> int:
        """The port listened on."""
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """`http://host:port`."""
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def close(self) -> None:
        """Stop listening and end every connection at once; these are no aborts by a peer."""
        self._server.close()
        if self._grpc is not None:
            await self._grpc.close()
        if self.kv_events is not None:
            await self.kv_events.close()
        self._ticker.stop()
        await self._connections.abort()
        await self._server.wait_closed()
        self.statistics.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


async def serve(settings: EmulatorSettings) -> EmulatorServer:
    """Return a server that is listening, in the running event loop.

    Raises:
        OSError: The address is taken or not ours, or the log cannot be opened.
    """
    loop = asyncio.get_running_loop()
    statistics = Statistics(settings.keep, settings.log)
    service = Service(settings, statistics)
    ticker = Ticker(loop)
    connections = Connections()
    grpc = None
    try:
        if settings.grpc_port >= 0:
            grpc = await _serve_grpc(settings, statistics)
        if settings.kv_events_port >= 0:
            service.kv_events = _publish_kv_events(settings)
        server = await loop.create_server(
            lambda: Connection(service, ticker, connections),
            settings.host,
            settings.port,
            backlog=BACKLOG,
        )
    except OSError:
        statistics.close()
        raise
    return EmulatorServer(server, service, ticker, connections, grpc)


async def _serve_grpc(settings: EmulatorSettings, statistics: Statistics) -> "GrpcService":
    # Its library is large and wanted by few.
    from penstock.emulator.grpc_service import GrpcService  # noqa: PLC0415

    service = GrpcService(settings, statistics)
    await service.start()
    return service


def _publish_kv_events(settings: EmulatorSettings) -> "KvEvents":
    # As above.
    from penstock.emulator.kv_cache import KvCache  # noqa: PLC0415
    from penstock.emulator.kv_events import KvEvents  # noqa: PLC0415

    cache = KvCache(settings.kv_blocks, tells_salts=settings.kind == "vllm")
    return KvEvents(cache, settings)


def run(settings: EmulatorSettings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        OSError: As `serve`.
    """
    uvloop.run(_run(settings))


async def _run(settings: EmulatorSettings) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with await serve(settings) as server:
        # What is there now stays, so the collector need not look at it.
        gc.freeze()
        if settings.announce:
            sys.stdout.write(f"emulator ready on {server.url}\n")
            sys.stdout.flush()
        await stopped.wait()
