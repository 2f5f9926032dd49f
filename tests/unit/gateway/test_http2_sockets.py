"""HTTP/2 on its sockets: deadlines of callers, and how senders share connections to engines."""

import asyncio
import ssl
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import trustme
from tests.fakes.http2_ends import HEAD, Accepting, Asking, Recorder

from penstock.contract.snapshot import Endpoint
from penstock.gateway.errors import CONNECT_FAILED, UPSTREAM_SATURATED
from penstock.gateway.http2 import frames
from penstock.gateway.http2.client import Http2Pool
from penstock.gateway.http2.frames import ErrorCode
from penstock.gateway.http2.server import Http2Downstream
from penstock.gateway.http2.stream import Stream
from penstock.gateway.limits import (
    ARRIVAL_S,
    H2_IDLE_S,
    H2_POOL_IDLE_S,
    H2_STREAMS,
    HEADER_DEADLINE_S,
    WAITING_PER_ENDPOINT,
    WRITE_STALL_S,
)
from penstock.gateway.retries import RetryBudget
from penstock.kit.errors import Refusal


class FakeTransport(asyncio.Transport):
    """A connection that goes nowhere."""

    def __init__(self) -> None:
        """Start open."""
        super().__init__()
        self.written, self.unsent, self.is_open = b"", 0, True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Take them."""

    def get_write_buffer_size(self) -> int:
        """Say what the test says."""
        return self.unsent

    def write(self, data: Any) -> None:
        """Keep what is written."""
        self.written += data

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return not self.is_open

    def close(self) -> None:
        """Close."""
        self.is_open = False

    abort = close


class Caller:
    """A caller's connection to a worker whose time the test says."""

    def __init__(self, *, is_welcome: bool = True) -> None:
        """Connect."""
        self.now_s = 100.0
        self.recorders: list[Recorder] = []
        worker: Any = SimpleNamespace(
            now_s=lambda: self.now_s, join=lambda _: is_welcome, leave=lambda _: None
        )
        self.downstream = Http2Downstream(worker, self._accept)
        self.transport = FakeTransport()
        self.downstream.connection_made(self.transport)

    def _accept(self, stream: Stream, *_: object) -> None:
        self.recorders.append(Recorder(stream))

    async def send(self, data: bytes) -> None:
        """Have something arrive."""
        self.downstream.data_received(data)
        await asyncio.sleep(0)

    async def sweep(self, after_s: float = 0.0) -> bool:
        """Let time pass; return whether the connection is open still."""
        self.now_s += after_s
        self.downstream.sweep(self.now_s)
        await asyncio.sleep(0)
        return self.transport.is_open


def request(count: int = 1) -> bytes:
    """Return a greeting and a request that goes on, or several."""
    asking = Asking()
    for _ in range(count):
        asking.ask(is_end=False)
    return asking.connection.take()


async def test_who_does_not_greet_is_closed() -> None:
    """A connection on which no frame ends has its time from the start."""
    caller = Caller()
    assert await caller.sweep(HEADER_DEADLINE_S - 1)
    await caller.send(frames.PREFACE)
    assert not await caller.sweep(1.0)


async def test_a_frame_that_does_not_end() -> None:
    """A frame of which nothing comes any more closes the connection; ones that end buy time."""
    caller = Caller()
    await caller.send(request())
    assert await caller.sweep(HEADER_DEADLINE_S)
    piece = frames.frame(frames.DATA, 0, 1, b"abc")
    await caller.send(piece[:5])
    assert await caller.sweep(HEADER_DEADLINE_S - 1)
    await caller.send(piece[5:] + piece[:5])
    assert await caller.sweep(2.0)
    assert await caller.sweep(HEADER_DEADLINE_S - 1)
    assert not await caller.sweep(1.0)
    assert caller.recorders[0].data == b"abc"
    assert caller.recorders[0].resets == [None]


async def test_idle_callers_are_closed() -> None:
    """Silence counts while there is no request; a ping is a sign of life."""
    caller = Caller()
    await caller.send(request())
    assert await caller.sweep(H2_IDLE_S * 2)
    caller.recorders[0].stream.send_headers(HEAD, is_end=True)
    assert await caller.sweep(H2_IDLE_S - 1)
    await caller.send(frames.frame(frames.PING, 0, 0, b"12345678"))
    assert await caller.sweep(1.0)
    assert not await caller.sweep(H2_IDLE_S)
    assert caller.recorders[0].sweeps == 1


async def test_callers_who_only_watch_are_closed() -> None:
    """Who watches keeps a connection no longer than who says nothing, but beside a request."""
    caller = Caller()
    await caller.send(request(2))
    caller.recorders[0].is_watching = True
    assert await caller.sweep(H2_IDLE_S * 2)
    caller.recorders[1].stream.send_headers(HEAD, is_end=True)
    assert await caller.sweep(H2_IDLE_S - 1)
    assert not await caller.sweep(1.0)


async def test_who_takes_nothing_is_closed() -> None:
    """What waits in the socket may wait so long; what shrinks waits anew."""
    caller = Caller()
    await caller.send(request())
    caller.transport.unsent = 100
    assert await caller.sweep()
    caller.transport.unsent = 50
    assert await caller.sweep(WRITE_STALL_S)
    assert await caller.sweep(WRITE_STALL_S - 1)
    assert not await caller.sweep(1.0)


async def test_too_many_connections() -> None:
    """One too many is told so and closed."""
    caller = Caller(is_welcome=False)
    await asyncio.sleep(0)
    assert not caller.transport.is_open
    assert b"too many connections" in caller.transport.written


async def test_the_worker_ends() -> None:
    """Who serves is told; the connection ends behind what it says, however late that is."""
    caller = Caller()
    await caller.send(request())
    caller.downstream.interrupt()
    await asyncio.sleep(0)
    recorder = caller.recorders[0]
    assert (recorder.interrupts, recorder.resets, caller.transport.is_open) == (1, [], True)
    assert caller.transport.written.endswith(frames.goaway_frame(1, ErrorCode.NO_ERROR))
    recorder.stream.send_headers(HEAD, is_end=True)
    await asyncio.sleep(0)
    assert frames.headers_frames(1, HEAD, is_end=True) in caller.transport.written
    assert not caller.transport.is_open


async def test_the_worker_ends_without_requests() -> None:
    """A connection on which nothing is under way is closed at once."""
    caller = Caller()
    await caller.send(Asking().connection.take())
    caller.downstream.interrupt()
    await asyncio.sleep(0)
    assert not caller.transport.is_open


async def test_a_drain_waits_for_the_greeting_of_who_has_just_come() -> None:
    """A new connection may greet for a second, and what it asks with that is served; then not."""
    quick, slow = Caller(), Caller()
    for caller in (quick, slow):
        caller.downstream.drain()
        await asyncio.sleep(0)
        assert caller.transport.is_open
    await quick.send(request())
    quick.downstream.drain()
    await asyncio.sleep(0)
    assert len(quick.recorders) == 1
    assert frames.goaway_frame(frames.MOST, ErrorCode.NO_ERROR) in quick.transport.written
    slow.now_s += ARRIVAL_S
    slow.downstream.drain()
    await asyncio.sleep(0)
    assert not slow.transport.is_open


async def test_a_slow_socket() -> None:
    """While it takes nothing more, nothing is written; then all of it is."""
    caller = Caller()
    await caller.send(request())
    await asyncio.sleep(0)
    before = len(caller.transport.written)
    caller.downstream.pause_writing()
    caller.recorders[0].stream.send_headers(HEAD)
    caller.recorders[0].stream.send_data(b"x" * 1_000)
    await asyncio.sleep(0)
    assert len(caller.transport.written) == before
    caller.downstream.resume_writing()
    assert caller.transport.written.endswith(b"x" * 1_000)


class Sender:
    """Wants a stream."""

    def __init__(self) -> None:
        """Want nothing yet."""
        self.recorder: Recorder | None = None
        self.refusal: Refusal | None = None

    def connected(self, stream: Stream) -> None:
        """Listen."""
        self.recorder = Recorder(stream)

    def connect_failed(self, pool: Http2Pool, refusal: Refusal) -> None:  # noqa: ARG002 - as called
        """Keep why."""
        self.refusal = refusal


async def until(is_true: Callable[[], object]) -> None:
    """Wait for something."""
    async with asyncio.timeout(60):
        while not is_true():  # noqa: ASYNC110 - others tell of it in their own ways
            await asyncio.sleep(0.002)


class Engine:
    """A server of ours that answers nothing by itself."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        """Listen not yet."""
        self.tls = tls
        self.transports: list[asyncio.Transport] = []

    async def __aenter__(self) -> int:
        """Listen; return the port."""
        self._server = await asyncio.get_running_loop().create_server(
            self._protocol, "127.0.0.1", 0, ssl=self.tls
        )
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def _protocol(self) -> asyncio.Protocol:
        end, kept = Accepting(), self.transports

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                kept.append(transport)
                transport.write(end.connection.take())

            def data_received(self, data: bytes) -> None:
                end.connection.receive(data)

        return Protocol()

    async def __aexit__(self, *_: object) -> None:
        """Close all."""
        self._server.close()
        for transport in self.transports:
            transport.abort()
        await asyncio.sleep(0.01)


def make_pool(
    port: int, *, most: int = 1, tls: ssl.SSLContext | None = None, name: str = ""
) -> Http2Pool:
    """Make a pool of connections to this machine."""
    loop = asyncio.get_running_loop()
    upstream: Any = SimpleNamespace(
        name="e", max_connections=most, timeouts=SimpleNamespace(connect_ms=30_000)
    )
    endpoint = Endpoint("http" if tls is None else "https", "127.0.0.1", port, server_name=name)
    return Http2Pool(endpoint, upstream, loop, RetryBudget(loop.time), tls)


async def test_senders_share_connections() -> None:
    """As many as a connection takes get a stream of one; others wait until one is over."""
    async with Engine() as port:
        pool = make_pool(port)
        senders = [Sender() for _ in range(H2_STREAMS + 2)]
        for sender in senders:
            pool.acquire(sender)
        pool.give_up(senders[H2_STREAMS])
        await until(lambda: senders[H2_STREAMS - 1].recorder)
        assert pool.connection_count == 1
        assert senders[-1].recorder is None
        first = senders[0].recorder
        assert first is not None
        first.stream.reset()
        assert senders[-1].recorder is not None
        assert senders[H2_STREAMS].recorder is None
        pool.close()
        assert pool.connection_count == 1
        for sender in senders:
            if sender.recorder is not None:
                sender.recorder.stream.reset()
        await until(lambda: pool.connection_count == 0)


async def test_nobody_gets_a_stream_of_a_connection_that_closes() -> None:
    """Room that becomes free on it is nobody's: who waits gets another connection."""
    async with Engine() as port:
        pool = make_pool(port)
        first, *others, last = [Sender() for _ in range(H2_STREAMS + 1)]
        for sender in (first, *others, last):
            pool.acquire(sender)
        await until(lambda: others[-1].recorder)
        assert first.recorder is not None
        pool._links[0].transport.abort()
        first.recorder.stream.reset()
        assert last.recorder is None
        await until(lambda: last.recorder)
        assert last.recorder is not None
        assert not last.recorder.resets


async def test_idle_connections_are_closed() -> None:
    """A connection without requests is kept for a time."""
    async with Engine() as port:
        pool, sender = make_pool(port), Sender()
        pool.acquire(sender)
        await until(lambda: sender.recorder)
        assert sender.recorder is not None
        sender.recorder.stream.reset()
        now_s = asyncio.get_running_loop().time()
        pool.sweep(now_s + H2_POOL_IDLE_S - 1)
        assert pool.connection_count == 1
        pool.sweep(now_s + H2_POOL_IDLE_S + 1)
        await until(lambda: pool.connection_count == 0)


async def test_no_more_wait_than_may() -> None:
    """One more than may wait is refused at once; when nobody waits, nothing is connected."""
    async with Engine() as port:
        pool = make_pool(port)
        senders = [Sender() for _ in range(WAITING_PER_ENDPOINT + 1)]
        for sender in senders:
            pool.acquire(sender)
        assert senders[-1].refusal is not None
        assert senders[-1].refusal.error is UPSTREAM_SATURATED
        for sender in senders:
            pool.give_up(sender)
        await asyncio.sleep(0.01)
        assert pool.connection_count == 0


async def test_who_took_too_long_is_passed_over() -> None:
    """An endpoint to which no connection came about in time cools; its sender waits no more."""
    async with Engine() as port:
        pool, sender = make_pool(port), Sender()
        pool.acquire(sender)
        pool.too_slow(sender)
        assert pool.cool_until_s > asyncio.get_running_loop().time()
        await asyncio.sleep(0.01)
        assert sender.recorder is None


async def test_what_breaks_off_is_told() -> None:
    """Streams of a connection that breaks are told that it is gone, and the endpoint is ill."""
    engine = Engine()
    async with engine as port:
        pool, sender = make_pool(port), Sender()
        pool.acquire(sender)
        await until(lambda: sender.recorder and engine.transports)
        engine.transports[0].abort()
        assert sender.recorder is not None
        recorder = sender.recorder
        await until(lambda: recorder.resets)
        assert recorder.resets == [None]
        assert pool.connection_count == 0
        assert pool.health._failures == 1


@pytest.mark.parametrize(("protocol", "is_taken"), [("h2", True), ("http/1.1", False)])
async def test_tls(protocol: str, is_taken: bool) -> None:  # noqa: FBT001 - a parameter
    """Over TLS only who speaks HTTP/2 is taken, by the name that the endpoint is known by."""
    authority = trustme.CA()
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("engine.example").configure_cert(theirs)
    theirs.set_alpn_protocols([protocol])
    ours = ssl.create_default_context()
    authority.configure_trust(ours)
    ours.set_alpn_protocols(["h2"])
    async with Engine(theirs) as port:
        pool, sender = make_pool(port, tls=ours, name="engine.example"), Sender()
        pool.acquire(sender)
        await until(lambda: sender.recorder or sender.refusal)
        assert (sender.recorder is not None) is is_taken
        assert sender.refusal is None or sender.refusal.error is CONNECT_FAILED
        if sender.recorder is not None:
            sender.recorder.stream.reset(ErrorCode.CANCEL)
        pool.close()
        await until(lambda: pool.connection_count == 0)
