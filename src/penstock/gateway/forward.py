"""Step 5, forward: pooled connections to one endpoint, and what an engine answers on them."""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol, cast

import httptools

from penstock.contract.snapshot import Endpoint
from penstock.gateway.endpoint import EndpointState, watch_peer
from penstock.gateway.engine_load import EngineLoad
from penstock.gateway.errors import (
    BAD_ANSWER,
    CLOSED_EARLY,
    CONNECT_FAILED,
    UPSTREAM_SATURATED,
)
from penstock.gateway.limits import (
    POOL_IDLE_S,
    READ_BYTES,
    STREAM_REST_S,
    UPSTREAM_HEADER_BYTES,
    WAITING_PER_ENDPOINT,
)
from penstock.gateway.offer import ServedUpstream
from penstock.gateway.retries import RetryBudget
from penstock.kit.errors import Refusal
from penstock.kit.running_time import call_when_read

_buffer = bytearray(READ_BYTES)
_view = memoryview(_buffer)
"""One buffer for all reads of a worker: a read is taken out of it before the next begins."""

_INFORMATIONAL = 200
_EVENT_STREAM = b"text/event-stream"


class Sender(Protocol):
    """What wants a connection: an exchange. It takes none after it gave up."""

    def connected(self, connection: "UpstreamConnection") -> None:
        """Take the connection and send on it."""

    def connect_failed(self, pool: "Pool", refusal: Refusal) -> None:
        """Look for another endpoint, or give up."""

    def answer_begun(self) -> None:
        """Take note that the head of the answer is there."""

    def answer_body(self, data: bytes) -> None:
        """Take a piece of the answer's body."""

    def answer_complete(self) -> None:
        """End the exchange: the answer was complete."""

    def answer_failed(self, refusal: Refusal) -> None:
        """End the exchange: the answer broke off or is not valid."""


class Outlet(Protocol):
    """Who sends a request while it still arrives."""

    def pause_upload(self) -> None:
        """Send no more: the engine is slower."""

    def resume_upload(self) -> None:
        """Send again."""


class UpstreamConnection(asyncio.BufferedProtocol):
    """One connection to an endpoint; carries one exchange at a time."""

    __slots__ = (
        "_header_bytes",
        "_is_complete",
        "_is_head_done",
        "_keep_alive",
        "_parser",
        "_parts",
        "_pool",
        "_sender",
        "answer_id",
        "content_encoding",
        "content_type",
        "dropped_reason",
        "has_length",
        "idle_since_s",
        "is_counted",
        "is_failure",
        "json_length",
        "load_report",
        "outlet",
        "retry_after",
        "status",
        "transport",
    )

    def __init__(self, pool: "Pool") -> None:
        """Make the protocol of one connection of `pool`."""
        self._pool = pool
        self._sender: Sender | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self.idle_since_s = 0.0
        self.is_counted = False
        """Whether the pool counts it as made: until then, its making is counted."""
        self.outlet: Outlet | None = None
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self.content_type = b""
        self.content_encoding = b""
        self.retry_after: bytes | None = None
        self.answer_id: bytes | None = None
        """`x-request-id` of the answer."""
        self.json_length: bytes | None = None
        """`inference-header-content-length` of the answer: how much of its body is JSON."""
        self.load_report: bytes | None = None
        """How busy the engine says that it is."""
        self.dropped_reason: bytes | None = None
        """Why an endpoint picker dropped the request, if so."""
        self.has_length = False
        self.is_failure = False
        """The answer, as whole as it is, says that the engine is broken."""
        self._is_head_done = False
        self._is_complete = False
        self._keep_alive = True
        self._header_bytes = 0

    def lend(self, sender: Sender) -> None:
        """Be a sender's from now on: what answers goes to it, and with it the connection ends."""
        self._sender = sender
        self._reset()

    def serves(self, sender: Sender) -> bool:
        """Return whether `sender` still waits for something on this connection."""
        return self._sender is sender

    def abort(self) -> None:
        """Close at once: what the sender still waited for is of no more use."""
        self._sender = None
        self.transport.abort()

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Lend the worker's read buffer."""
        return _view

    def buffer_updated(self, nbytes: int) -> None:
        """Parse what was read, and hand it on in one piece."""
        sender = self._sender
        if sender is None:  # an engine that speaks unasked
            self.transport.abort()
            return
        if not self._is_head_done:
            self._header_bytes += nbytes
        try:
            self._parser.feed_data(_view[:nbytes])
        except httptools.HttpParserCallbackError:
            raise  # a bug of ours, not of the engine
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(Refusal(BAD_ANSWER))
            return
        if not self._is_head_done and self._header_bytes > UPSTREAM_HEADER_BYTES:
            self._fail(Refusal(BAD_ANSWER))
            return
        parts = self._parts
        if parts:
            self._parts = []
            sender.answer_body(parts[0] if len(parts) == 1 else b"".join(parts))
        if self._is_complete and self._sender is sender:
            self._complete(sender)

    def pause_writing(self) -> None:
        """Have the request sent more slowly, if it still arrives."""
        if self.outlet is not None:
            self.outlet.pause_upload()

    def resume_writing(self) -> None:
        """Have it sent again."""
        if self.outlet is not None:
            self.outlet.resume_upload()

    def eof_received(self) -> bool:
        """Let the transport close."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the sender: a body that ends with the connection is complete, others broke off."""
        self._pool.lost(self)
        sender, self._sender = self._sender, None
        if sender is None:
            return
        if self._is_head_done and not self.has_length and exc is None:
            self._answered(sender)
        else:
            self._pool.health.failed()
            sender.answer_failed(Refusal(CLOSED_EARLY))

    # What the parser calls

    def on_message_begin(self) -> None:
        """Never lend a connection again on which more comes than was asked for."""
        if self._is_complete:
            self._keep_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep what the relay needs to know; fields behind the body say nothing."""
        if self._is_head_done:
            return
        match name.lower():
            case b"content-type":
                self.content_type = value
            case b"content-length" | b"transfer-encoding":
                self.has_length = True
            case b"content-encoding":
                self.content_encoding = value.lower()
            case b"retry-after":
                self.retry_after = value
            case b"x-request-id":
                self.answer_id = value
            case b"inference-header-content-length":
                self.json_length = value
            case b"endpoint-load-metrics":
                self.load_report = value
            case b"x-llm-d-request-dropped-reason":
                self.dropped_reason = value

    def on_headers_complete(self) -> None:
        """Note the status; answers like 100 Continue are passed over."""
        status = self._parser.get_status_code()
        if status < _INFORMATIONAL or self._is_complete:
            return
        self.status = status
        self._is_head_done = True
        self._keep_alive = self._parser.should_keep_alive()
        if self._sender is not None:
            self._sender.answer_begun()

    def on_body(self, body: bytes) -> None:
        """Collect the pieces of one read."""
        if not self._is_complete:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        """Note the end; it is acted on when the read is taken in."""
        self._is_complete = self._is_head_done

    def _complete(self, sender: Sender) -> None:
        self._sender = None
        was_stream = self.content_type.startswith(_EVENT_STREAM)
        self._answered(sender)  # it reads this answer's head: before the connection is lent again
        if not self._keep_alive or self.transport.is_closing():
            self.transport.close()
        elif was_stream:
            self._pool.release_later(self)
        else:
            self._pool.release(self)

    def _answered(self, sender: Sender) -> None:
        """Hand on the end of an answer; who reads it says whether its engine is well."""
        sender.answer_complete()
        if self.is_failure:
            self._pool.health.failed()
        else:
            self._pool.health.succeeded()

    def _fail(self, refusal: Refusal) -> None:
        sender, self._sender = self._sender, None
        self.transport.abort()
        self._pool.health.failed()
        if sender is not None:
            sender.answer_failed(refusal)


class Pool(EndpointState[Sender]):
    """The connections of a worker to one endpoint.

    Args:
        endpoint: Where they go.
        upstream: Whose endpoint it is.
        loop: The running loop.
        retries: What all pools of the upstream share.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        upstream: ServedUpstream,
        loop: asyncio.AbstractEventLoop,
        retries: RetryBudget,
    ) -> None:
        """See the class."""
        super().__init__(endpoint, upstream, loop, retries)
        self.load = EngineLoad(reports=upstream.engine.reports_load)
        self._heads: dict[str, bytes] = {}
        self._idle: list[UpstreamConnection] = []
        self._waiting: deque[Sender] = deque()
        self._connecting: dict[Sender, asyncio.Task[None]] = {}
        self._is_closed = False
        self._connection_count = 0

    @property
    def connection_count(self) -> int:
        """How many connections are made."""
        return self._connection_count

    @property
    def waiting_count(self) -> int:
        """How many senders wait for a connection that is being made, or for one to be free."""
        return len(self._connecting) + len(self._waiting)

    def head(self, path: str) -> bytes:
        """Return the start of a request's head, up to where its own lines follow.

        Nothing in it is of one organization: all share it.
        """
        head = self._heads.get(path)
        if head is None:
            engines_path = self.upstream.engine.paths.get(path, path)
            head = self._heads[path] = self.make_head("POST", engines_path, "application/json")
        return head

    def make_head(self, method: str, path: str, content_type: str) -> bytes:
        """Return the same of a path that only few requests have."""
        return (
            f"{method} {self.endpoint.path_prefix}{path} HTTP/1.1\r\n"
            f"host: {self.endpoint.authority}\r\n"
            f"content-type: {content_type}\r\naccept-encoding: identity\r\n"
        ).encode("ascii")

    def acquire(self, sender: Sender) -> None:
        """Give `sender` a connection: now, when one is made, or when one becomes free."""
        self.health.asked()
        now = self._loop.time()
        while self._idle:
            connection = self._idle.pop()
            if connection.transport.is_closing():
                continue
            if now - connection.idle_since_s > POOL_IDLE_S:
                connection.transport.close()
                continue
            sender.connected(connection)
            return
        if self._may_connect():
            task = self._loop.create_task(self._connect(sender))
            self._connecting[sender] = task
        elif len(self._waiting) < WAITING_PER_ENDPOINT:
            self._waiting.append(sender)
        else:
            sender.connect_failed(self, Refusal(UPSTREAM_SATURATED))

    def give_up(self, sender: Sender) -> None:
        """Stop making a connection for a sender that no longer wants one."""
        task = self._connecting.pop(sender, None)
        if task is not None:
            task.cancel()
            self._make_for_waiting()
        elif sender in self._waiting:
            self._waiting.remove(sender)

    def too_slow(self, sender: Sender) -> None:
        """Stop making a connection that took too long; the endpoint is passed over for a while.

        One that only waited for a connection to become free says nothing of the endpoint.
        """
        if sender in self._connecting:
            self.cool()
        self.give_up(sender)

    def release(self, connection: UpstreamConnection) -> None:
        """Take back a connection whose answer is complete."""
        if self._waiting:
            self._waiting.popleft().connected(connection)
            return
        if self._is_closed:
            connection.transport.close()
            return
        connection.idle_since_s = self._loop.time()
        self._idle.append(connection)

    def release_later(self, connection: UpstreamConnection) -> None:
        """Take back a connection after a stream, once it is seen to stay open.

        Some engines (llama.cpp) close it right behind a stream without having said so: a request
        sent into that would be lost, and could not be sent again.
        """
        self._loop.call_later(STREAM_REST_S, self._rested, connection)

    def _rested(self, connection: UpstreamConnection) -> None:
        """Look once what came is read, which takes no task: this worker may have been late."""
        call_when_read(self._loop, partial(self._release_rested, connection), turns=2)

    def _release_rested(self, connection: UpstreamConnection) -> None:
        if not connection.transport.is_closing():
            self.release(connection)

    def lost(self, connection: UpstreamConnection) -> None:
        """Forget a closed connection, and let a waiting sender make another."""
        self._connection_count -= connection.is_counted
        if connection in self._idle:
            self._idle.remove(connection)
        self._make_for_waiting()

    def _may_connect(self) -> bool:
        return self._connection_count + len(self._connecting) < self.upstream.max_connections

    def _make_for_waiting(self) -> None:
        """Use the room that became free."""
        while self._waiting and self._may_connect():
            self.acquire(self._waiting.popleft())

    def sweep(self, now_s: float) -> None:
        """Close connections that were idle for too long to be trusted."""
        self.retries.sweep()
        while self._idle and now_s - self._idle[0].idle_since_s > POOL_IDLE_S:
            self._idle.pop(0).transport.close()

    def close(self) -> None:
        """Close what is idle; what is in use ends with its exchange."""
        self._is_closed = True
        for connection in self._idle:
            connection.transport.close()

    async def _connect(self, sender: Sender) -> None:
        endpoint = self.endpoint
        tls = self.upstream.tls if endpoint.scheme == "https" else None
        factory: Callable[[], UpstreamConnection] = lambda: UpstreamConnection(self)  # noqa: E731 - typed
        try:
            transport, connection = await self._loop.create_connection(
                factory,
                endpoint.host,
                endpoint.port,
                ssl=tls,
                server_hostname=None if tls is None else endpoint.server_name or endpoint.host,
            )
            if transport.is_closing():
                raise ConnectionResetError  # the engine hung up before anything was sent
            watch_peer(transport)
        except (OSError, UnicodeError) as error:  # TLS and name resolution fail as one, too
            self.not_connected(error)
            if self._connecting.pop(sender, None) is not None:
                sender.connect_failed(self, Refusal(CONNECT_FAILED))
            self._make_for_waiting()
            return
        connection.is_counted = True
        self._connection_count += 1
        if self._connecting.pop(sender, None) is None:
            self.release(connection)
        else:
            sender.connected(connection)
