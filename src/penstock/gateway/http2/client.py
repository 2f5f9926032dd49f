"""The engine's side of gRPC: HTTP/2 connections to one endpoint, each for many requests."""

import asyncio
import ssl
from typing import Protocol

from penstock.contract.snapshot import Endpoint
from penstock.gateway.endpoint import EndpointState, watch_peer
from penstock.gateway.errors import CONNECT_FAILED, UPSTREAM_SATURATED
from penstock.gateway.http2.ends import EnginesConnection
from penstock.gateway.http2.fields import encode_fields
from penstock.gateway.http2.frames import ErrorCode
from penstock.gateway.http2.link import Link
from penstock.gateway.http2.stream import Stream
from penstock.gateway.limits import H2_POOL_IDLE_S, WAITING_PER_ENDPOINT
from penstock.gateway.offer import ServedUpstream
from penstock.gateway.retries import RetryBudget
from penstock.kit.errors import Refusal

_NO_FAILURE = frozenset({ErrorCode.NO_ERROR, ErrorCode.REFUSED_STREAM, ErrorCode.CANCEL})
"""Ends of a stream that say nothing of its endpoint."""
_PROTOCOL = "h2"


class StreamSender(Protocol):
    """What wants a stream. It takes none after it gave up."""

    def connected(self, stream: Stream) -> None:
        """Set the stream's `receiver`, and send on it."""

    def connect_failed(self, pool: "Http2Pool", refusal: Refusal) -> None:
        """Look for another endpoint, or give up."""


class EngineLink(Link[EnginesConnection]):
    """One connection to an endpoint."""

    def __init__(self, pool: "Http2Pool", loop: asyncio.AbstractEventLoop) -> None:
        """Make the protocol of one connection of `pool`."""
        super().__init__(loop)
        self._pool = pool
        self.idle_since_s = loop.time()

    @property
    def has_room(self) -> bool:
        """Whether a stream can begin."""
        return self.connection.has_room and not self.transport.is_closing()

    def make_connection(self) -> EnginesConnection:
        """Make the end from which requests go out."""
        return EnginesConnection(self.wake, self._closed)

    def _closed(self, stream: Stream, code: ErrorCode | None) -> None:
        """Lend the room that became free, or close what has no more to do."""
        health = self._pool.health
        if stream.is_failure or not (stream.is_remote_end or code in _NO_FAILURE):
            health.failed()
        elif stream.is_remote_end:
            health.succeeded()
        if not self.connection.streams:
            self.idle_since_s = self._loop.time()
            if self.connection.is_going_away:
                self.wake()
        self._pool.serve_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell all streams; no other is begun on it."""
        self._pool.lost(self)
        super().connection_lost(exc)


class Http2Pool(EndpointState[StreamSender]):
    """The HTTP/2 connections of a worker to one endpoint.

    A connection is made when those there are have no room; those who wait share what is made.

    Args:
        endpoint: Where they go.
        upstream: Whose endpoint it is.
        loop: The running loop.
        retries: What all pools of the upstream share.
        tls: Of an `https` endpoint; it offers `h2` only.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        upstream: ServedUpstream,
        loop: asyncio.AbstractEventLoop,
        retries: RetryBudget,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """See the class."""
        super().__init__(endpoint, upstream, loop, retries)
        self._tls = tls
        self._heads: dict[str, bytes] = {}
        self._links: list[EngineLink] = []
        self._waiting: dict[StreamSender, None] = {}
        self._connecting: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def connection_count(self) -> int:
        """How many connections are made."""
        return len(self._links)

    @property
    def waiting_count(self) -> int:
        """How many senders wait for a stream."""
        return len(self._waiting)

    def head(self, path: str) -> bytes:
        """Return the block that begins a request's head.

        Nothing in it is of one organization: all share it. It is kept, so `path` is one of few.
        """
        head = self._heads.get(path)
        if head is None:
            head = self._heads[path] = encode_fields(
                (
                    (b":method", b"POST"),
                    (b":scheme", b"http" if self._tls is None else b"https"),
                    (b":path", path.encode("ascii")),
                    (b":authority", self.endpoint.authority.encode("ascii")),
                    (b"te", b"trailers"),
                    (b"content-type", b"application/grpc"),
                )
            )
        return head

    def acquire(self, sender: StreamSender) -> None:
        """Give `sender` a stream: now, when a connection is made, or when one has room."""
        self.health.asked()
        for link in self._links:
            if link.has_room:
                sender.connected(link.connection.begin())
                return
        if len(self._waiting) >= WAITING_PER_ENDPOINT:
            sender.connect_failed(self, Refusal(UPSTREAM_SATURATED))
            return
        self._waiting[sender] = None
        self._make_for_waiting()

    def give_up(self, sender: StreamSender) -> None:
        """Have a sender wait no more; a connection that nobody waits for is not made."""
        self._waiting.pop(sender, None)
        if self._connecting is not None and not self._waiting:
            self._connecting.cancel()
            self._connecting = None

    def too_slow(self, sender: StreamSender) -> None:
        """Have it wait no more since a connection took too long.

        One that only waited for room says nothing of the endpoint.
        """
        if self._connecting is not None and not self._links:
            self.cool()
        self.give_up(sender)

    def serve_waiting(self) -> None:
        """Use the room that became free."""
        for link in self._links:
            while self._waiting and link.has_room:
                sender = next(iter(self._waiting))
                del self._waiting[sender]
                sender.connected(link.connection.begin())
        self._make_for_waiting()

    def _make_for_waiting(self) -> None:
        is_allowed = len(self._links) < self.upstream.max_connections
        if self._waiting and self._connecting is None and is_allowed:
            self._connecting = self._loop.create_task(self._connect())

    def lost(self, link: EngineLink) -> None:
        """Forget a closed connection, and make another for those who wait."""
        if link in self._links:
            self._links.remove(link)
            self._make_for_waiting()

    def sweep(self, now_s: float) -> None:
        """Close connections that were idle for long; look at what is stalled."""
        self.retries.sweep()
        for link in list(self._links):
            connection = link.connection
            connection.sweep(now_s)
            if not connection.streams and now_s - link.idle_since_s > H2_POOL_IDLE_S:
                self._leave(link)

    def close(self) -> None:
        """Close what is idle; what is in use ends with its requests."""
        self._is_closed = True
        for link in list(self._links):
            self._leave(link)

    @staticmethod
    def _leave(link: EngineLink) -> None:
        link.connection.is_going_away = True
        link.wake()

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(self.upstream.timeouts.connect_ms / 1000):
                link = await self._make_link()
        except (OSError, UnicodeError) as error:  # TLS, name resolution, time-outs are among them
            self._connecting = None
            self._connect_failed(error)
            return
        self._connecting = None
        self._links.append(link)
        self.serve_waiting()
        if self._is_closed:
            self._leave(link)

    async def _make_link(self) -> EngineLink:
        endpoint, tls = self.endpoint, self._tls
        transport, link = await self._loop.create_connection(
            lambda: EngineLink(self, self._loop),
            endpoint.host,
            endpoint.port,
            ssl=tls,
            server_hostname=None if tls is None else endpoint.server_name or endpoint.host,
        )
        secured = transport.get_extra_info("ssl_object")
        if secured is not None and secured.selected_alpn_protocol() != _PROTOCOL:
            transport.abort()
        if transport.is_closing():
            raise ConnectionResetError  # the engine hung up, or does not speak HTTP/2
        watch_peer(transport, is_shared=True)
        return link

    def _connect_failed(self, error: Exception) -> None:
        """Tell those who waited, unless they can wait for room on another connection."""
        self.not_connected(error)
        if self._links:
            return
        waiting, self._waiting = self._waiting, {}
        for sender in waiting:
            sender.connect_failed(self, Refusal(CONNECT_FAILED))
