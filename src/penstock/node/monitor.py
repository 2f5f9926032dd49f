"""The node's own HTTP interface: `/metrics` and `/health/*`."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

import msgspec
import uvicorn

from penstock.contract.exposition import (
    OPENMETRICS_TYPE,
    TEXT_TYPE,
    Family,
    wants_openmetrics,
    write_page,
)
from penstock.contract.feed import Position
from penstock.node.errors import PORT_BUSY, AgentError

_JSON_TYPE = b"application/json"
_TEXT_TYPE = b"text/plain; charset=utf-8"
_BACKLOG = 128

Send = Callable[[dict[str, Any]], Awaitable[None]]


class FeedState(msgspec.Struct, frozen=True):
    """How the control plane's configuration feed is followed."""

    is_lost: bool
    """Whether what the node serves from may no longer be true."""
    age_s: float
    """Since it was last followed to its end."""
    lost_since: str | None
    """When that was, ISO 8601 in UTC; None while it is not lost."""
    position: Position
    """How far it was followed."""
    is_served: bool
    """Whether all connected workers serve from everything up to there."""


class LimitsState(msgspec.Struct, frozen=True):
    """Who decides about limits."""

    is_authority_up: bool
    """False while the node gives from its share, as the shared server does not answer."""
    nodes: int
    """How many share them, as last known."""


class DiscoveryState(msgspec.Struct, frozen=True):
    """How endpoints of upstreams are found."""

    failing: tuple[str, ...]
    """Sources that do not answer, or with what cannot be used: what they said last is used on."""


class Readiness(msgspec.Struct, frozen=True):
    """What `/health/ready` answers. Only workers take a node out of service."""

    workers: int
    """Those that are connected and not draining."""
    workers_ready: int
    """Those that take requests: the node does when there is one."""
    snapshot_version: int
    is_config_rejected: bool
    feed: FeedState
    limits: LimitsState
    discovery: DiscoveryState

    @property
    def is_ready(self) -> bool:
        """Whether the node takes requests."""
        return self.workers_ready > 0


class _Server(uvicorn.Server):
    """A server in a process that handles its signals itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Monitor:
    """Serves what operators and probes ask.

    Args:
        families: Returns all metrics, as they are when each is asked for.
        readiness: Returns whether the node takes requests, and what else is to be known.
        host: Address to listen on.
        port: Port to listen on; any free one when 0.

    Raises:
        AgentError: The port cannot be listened on.
    """

    def __init__(
        self,
        families: Callable[[], Iterable[Family]],
        readiness: Callable[[], Readiness],
        host: str,
        port: int,
    ) -> None:
        """See the class."""
        self._families = families
        self._readiness = readiness
        self._socket = _bind(host, port)
        self.port = int(self._socket.getsockname()[1])
        """The port that it listens on."""
        config = uvicorn.Config(
            self._answer,
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="off",
            interface="asgi3",
            proxy_headers=False,
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=1,
            timeout_keep_alive=30,
            limit_concurrency=64,
        )
        self._server = _Server(config)

    async def run(self) -> None:
        """Serve until `stop`."""
        await self._server.serve(sockets=[self._socket])

    def stop(self) -> None:
        """Make `run` return, soon."""
        self._server.should_exit = True

    def close(self) -> None:
        """Let go of the port."""
        self._socket.close()

    async def _answer(self, scope: dict[str, Any], _receive: object, send: Send) -> None:
        accept = next((value for name, value in scope["headers"] if name == b"accept"), b"")
        status, content_type, body = await self._respond(
            scope["method"], scope["path"], accept.decode("latin-1")
        )
        headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
        if status == 405:  # noqa: PLR2004  # its own name
            headers.append((b"allow", b"GET, HEAD"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send(
            {"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body}
        )

    async def _respond(self, method: str, path: str, accept: str) -> tuple[int, bytes, bytes]:
        if path == "/":
            path = "/metrics"  # whoever is given the address alone means this
        if path not in {"/metrics", "/health/live", "/health/ready"}:
            return 404, _TEXT_TYPE, b"there are /metrics, /health/live and /health/ready\n"
        if method not in {"GET", "HEAD"}:
            return 405, _TEXT_TYPE, b"GET or HEAD\n"
        if path == "/metrics":
            return await self._show(is_openmetrics=wants_openmetrics(accept))
        if path == "/health/ready":
            readiness = self._readiness()
            return 200 if readiness.is_ready else 503, _JSON_TYPE, msgspec.json.encode(readiness)
        return 200, _TEXT_TYPE, b"ok\n"

    async def _show(self, *, is_openmetrics: bool) -> tuple[int, bytes, bytes]:
        pieces = []
        for piece in write_page(self._families(), is_openmetrics=is_openmetrics):
            pieces.append(piece)
            await asyncio.sleep(0)  # workers that want a lease must not wait for all of it
        content_type = OPENMETRICS_TYPE if is_openmetrics else TEXT_TYPE
        return 200, content_type.encode(), "".join(pieces).encode()


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)  # noqa: FBT003  # its only parameter
    except OSError as error:
        listener.close()
        detail = f"cannot listen on {host}:{port}: {error.strerror}"
        raise AgentError(PORT_BUSY, detail) from None
    return listener
