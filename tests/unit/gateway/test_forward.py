"""Connections to an endpoint: lending, waiting, giving up, and reading answers at every cut."""

import asyncio
import errno
import socket
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.fakes.both_loops import MakeLoop, on_both_loops, run_on
from tests.fakes.scripted_engine import STREAM_HEAD, answer, chunk, cut

from penstock.contract.snapshot import Endpoint
from penstock.engines.registry import engine_of
from penstock.gateway.errors import (
    BAD_ANSWER,
    CLOSED_EARLY,
    CONNECT_FAILED,
    UPSTREAM_SATURATED,
)
from penstock.gateway.forward import Pool, UpstreamConnection
from penstock.gateway.limits import (
    ENDPOINT_COOL_DOWN_S,
    POOL_IDLE_S,
    STREAM_REST_S,
    UPSTREAM_HEADER_BYTES,
    WAITING_PER_ENDPOINT,
)
from penstock.gateway.offer import ServedUpstream
from penstock.gateway.retries import RetryBudget
from penstock.kit.errors import Refusal

ENDPOINT = Endpoint("http", "engine", 8000)


class FakeSocket:
    """A socket that takes any option."""

    def setsockopt(self, *options: int) -> None:
        """Take it."""


class FakeTransport(asyncio.Transport):
    """A connection that goes nowhere."""

    def __init__(self) -> None:
        """Start open."""
        super().__init__()
        self.written = b""
        self.is_open = True
        self.on_close: Callable[[], None] = lambda: None

    def get_extra_info(self, name: str, default: object = None) -> object:
        """Return a socket."""
        return FakeSocket() if name == "socket" else default

    def write(self, data: Any) -> None:
        """Keep what is written."""
        self.written += data

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return not self.is_open

    def close(self) -> None:
        """Close, and tell."""
        if self.is_open:
            self.is_open = False
            self.on_close()

    abort = close


class FakeLoop:
    """A loop whose time stands still and whose connections the test makes."""

    def __init__(self) -> None:
        """Start with no connection asked for."""
        self.now_s = 1000.0
        self.asked: list[asyncio.Future[None]] = []
        self.made: list[UpstreamConnection] = []

    def time(self) -> float:
        """Return the time that the test set."""
        return self.now_s

    def create_task(self, work: Any) -> asyncio.Task[None]:
        """Run it on the real loop."""
        return asyncio.get_running_loop().create_task(work)

    def call_later(self, delay_s: float, call: Callable[..., None], *arguments: object) -> None:
        """Call it at once: nothing happens in between."""
        self.now_s += delay_s
        call(*arguments)

    def call_soon(self, call: Callable[[], None]) -> None:
        """Call it at once, too."""
        call()

    async def create_connection(
        self, factory: Callable[[], UpstreamConnection], *_: object, **__: object
    ) -> tuple[FakeTransport, UpstreamConnection]:
        """Connect once the test says so."""
        asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.asked.append(asked)
        await asked
        transport, connection = FakeTransport(), factory()
        connection.connection_made(transport)
        transport.on_close = lambda: connection.connection_lost(None)
        self.made.append(connection)
        return transport, connection


class FakeSender:
    """An exchange that notes what happens to it."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.connection: UpstreamConnection | None = None
        self.refusal: Refusal | None = None
        self.begun = 0
        self.body = b""
        self.is_complete = False
        self.status = 0

    def connected(self, connection: UpstreamConnection) -> None:
        """Send a request."""
        self.connection = connection
        connection.lend(self)
        connection.transport.write(b"request")

    def connect_failed(self, pool: Pool, refusal: Refusal) -> None:  # noqa: ARG002 - the protocol
        """Note the refusal."""
        self.refusal = refusal

    def answer_begun(self) -> None:
        """Note the head."""
        self.begun += 1
        if self.connection is not None:
            self.status = self.connection.status

    def answer_body(self, data: bytes) -> None:
        """Keep the body."""
        self.body += data

    def answer_complete(self) -> None:
        """Note the end."""
        self.is_complete = True

    def answer_failed(self, refusal: Refusal) -> None:
        """Note the failure."""
        self.refusal = refusal


def _upstream(max_connections: int = 2) -> ServedUpstream:
    known = SimpleNamespace(max_connections=max_connections, tls=None, engine=engine_of("vllm"))
    return cast("ServedUpstream", known)


def _pool(loop: FakeLoop, max_connections: int = 2) -> Pool:
    fake = cast("asyncio.AbstractEventLoop", loop)
    return Pool(ENDPOINT, _upstream(max_connections), fake, RetryBudget(fake.time))


async def _turn() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


async def _connect(loop: FakeLoop) -> None:
    """Let what is asked for be connected."""
    await _turn()
    for asked in loop.asked:
        if not asked.done():
            asked.set_result(None)
    await _turn()


def _deliver(connection: UpstreamConnection, content: bytes) -> None:
    view = connection.get_buffer(-1)
    view[: len(content)] = content
    connection.buffer_updated(len(content))


async def _served(loop: FakeLoop, pool: Pool) -> FakeSender:
    """Return a sender whose answer is complete, so that its connection is idle."""
    sender = FakeSender()
    pool.acquire(sender)
    await _connect(loop)
    assert sender.connection is not None
    _deliver(sender.connection, answer(b"{}"))
    assert sender.is_complete
    return sender


async def test_an_idle_connection_is_lent_again() -> None:
    """What is idle is used before anything new is made."""
    loop = FakeLoop()
    pool = _pool(loop)
    first = await _served(loop, pool)
    second = FakeSender()
    pool.acquire(second)
    assert second.connection is first.connection
    assert len(loop.made) == pool.connection_count == 1


async def test_a_connection_idle_for_long_is_not_trusted() -> None:
    """What was idle for longer than its bound is closed instead of lent."""
    loop = FakeLoop()
    pool = _pool(loop)
    first = await _served(loop, pool)
    loop.now_s += POOL_IDLE_S + 0.1
    second = FakeSender()
    pool.acquire(second)
    assert second.connection is None
    await _connect(loop)
    assert second.connection is not None
    assert second.connection is not first.connection
    assert pool.connection_count == 1


async def test_the_sweep_closes_what_is_idle_for_long() -> None:
    """Idle connections past their bound are closed even if nobody asks."""
    loop = FakeLoop()
    pool = _pool(loop)
    await _served(loop, pool)
    pool.sweep(loop.now_s + POOL_IDLE_S - 0.1)
    assert pool.connection_count == 1
    pool.sweep(loop.now_s + POOL_IDLE_S + 0.1)
    assert pool.connection_count == 0


async def test_who_waits_is_served_in_order() -> None:
    """Past the bound senders wait, and get connections in the order they came."""
    loop = FakeLoop()
    pool = _pool(loop, 1)
    first = await _served(loop, pool)
    pool.acquire(first)
    waiting = [FakeSender() for _ in range(3)]
    for sender in waiting:
        pool.acquire(sender)
    for sender in waiting:
        assert sender.connection is None
        assert first.connection is not None
        _deliver(first.connection, answer(b"{}"))
        assert sender.connection is first.connection
    assert len(loop.made) == 1


async def test_a_full_waiting_line_refuses() -> None:
    """A sender that finds the waiting line full is refused at once."""
    loop = FakeLoop()
    pool = _pool(loop, 1)
    senders = [FakeSender() for _ in range(WAITING_PER_ENDPOINT + 2)]
    for sender in senders:
        pool.acquire(sender)
    assert [sender.refusal for sender in senders[:-1]] == [None] * (WAITING_PER_ENDPOINT + 1)
    assert senders[-1].refusal == Refusal(UPSTREAM_SATURATED)
    pool.give_up(senders[5])
    pool.acquire(senders[-1])
    senders[-1].refusal = None
    pool.give_up(senders[0])
    await _connect(loop)
    assert senders[1].connection is not None
    for sender in senders:
        pool.give_up(sender)


async def test_a_lost_connection_makes_room_for_one() -> None:
    """When a connection is lost, as many of those who wait connect as there is room for."""
    loop = FakeLoop()
    pool = _pool(loop, 1)
    first = await _served(loop, pool)
    pool.acquire(first)
    waiting = [FakeSender() for _ in range(3)]
    for sender in waiting:
        pool.acquire(sender)
    assert first.connection is not None
    first.connection.transport.close()
    assert first.refusal == Refusal(CLOSED_EARLY)
    await _connect(loop)
    assert [sender.connection is not None for sender in waiting] == [True, False, False]
    assert pool.connection_count == 1


async def test_giving_up_a_connection_under_way_lets_the_next_try() -> None:
    """When who connects gives up, who waits takes the room."""
    loop = FakeLoop()
    pool = _pool(loop, 1)
    first, second = FakeSender(), FakeSender()
    pool.acquire(first)
    await _turn()
    pool.acquire(second)
    pool.give_up(first)
    await _connect(loop)
    assert first.connection is None
    assert second.connection is not None
    assert pool.connection_count == 1


async def test_a_failed_connection_lets_the_next_try() -> None:
    """When connecting fails, who waits tries too, and the endpoint is passed over for a while."""
    loop = FakeLoop()
    pool = _pool(loop, 1)
    first, second = FakeSender(), FakeSender()
    pool.acquire(first)
    pool.acquire(second)
    for sender in (first, second):
        await _turn()
        loop.asked[-1].set_exception(ConnectionRefusedError())
        await _turn()
        assert sender.refusal == Refusal(CONNECT_FAILED)
    assert pool.cool_until_s == loop.now_s + ENDPOINT_COOL_DOWN_S
    assert pool.connection_count == 0


@pytest.mark.parametrize(
    ("code", "is_cool"), [(errno.ECONNREFUSED, True), (errno.EMFILE, False), (errno.ENFILE, False)]
)
async def test_an_endpoint_is_not_blamed_for_our_lack_of_files(code: int, *, is_cool: bool) -> None:
    """The request fails, but only what refused a connection is passed over."""
    loop = FakeLoop()
    pool, sender = _pool(loop), FakeSender()
    pool.acquire(sender)
    await _turn()
    loop.asked[0].set_exception(OSError(code, "no"))
    await _turn()
    assert sender.refusal is not None
    assert (pool.cool_until_s > loop.now_s) is is_cool


async def test_a_connection_lost_before_it_is_lent_failed_to_connect() -> None:
    """An engine that hangs up before anything was sent counts as one that refused."""

    class HangsUp(FakeLoop):
        async def create_connection(
            self, factory: Callable[[], UpstreamConnection], *names: object, **options: object
        ) -> tuple[FakeTransport, UpstreamConnection]:
            made: Awaitable[tuple[FakeTransport, UpstreamConnection]]
            made = super().create_connection(factory, *names, **options)
            transport, connection = await made
            transport.close()
            return transport, connection

    loop = HangsUp()
    pool = _pool(loop)
    sender = FakeSender()
    pool.acquire(sender)
    await _connect(loop)
    assert sender.refusal == Refusal(CONNECT_FAILED)
    assert sender.connection is None
    assert pool.connection_count == 0


async def test_a_closed_pool_keeps_nothing() -> None:
    """After a new snapshot, connections of the old pool end with their answers."""
    loop = FakeLoop()
    pool = _pool(loop)
    idle = await _served(loop, pool)
    busy, waiting = FakeSender(), FakeSender()
    pool.acquire(busy)
    assert busy.connection is idle.connection
    pool.close()
    pool.acquire(waiting)
    await _connect(loop)
    for sender in (busy, waiting):
        assert sender.connection is not None
        _deliver(sender.connection, answer(b"{}"))
        assert sender.is_complete
        assert sender.connection.transport.is_closing()
    assert pool.connection_count == 0


@pytest.mark.parametrize(
    ("endpoint", "start"),
    [
        (ENDPOINT, "POST /v1/x HTTP/1.1\r\nhost: engine:8000\r\n"),
        (Endpoint("http", "engine", 80), "POST /v1/x HTTP/1.1\r\nhost: engine\r\n"),
        (Endpoint("https", "engine", 443), "POST /v1/x HTTP/1.1\r\nhost: engine\r\n"),
        (Endpoint("https", "engine", 80), "POST /v1/x HTTP/1.1\r\nhost: engine:80\r\n"),
        (Endpoint("http", "::1", 8000), "POST /v1/x HTTP/1.1\r\nhost: [::1]:8000\r\n"),
        (Endpoint("http", "engine", 80, "/a"), "POST /a/v1/x HTTP/1.1\r\nhost: engine\r\n"),
    ],
)
def test_the_head_names_the_endpoint(endpoint: Endpoint, start: str) -> None:
    """The request goes to the endpoint's path and names its host as URLs do."""
    fake = cast("asyncio.AbstractEventLoop", FakeLoop())
    pool = Pool(endpoint, _upstream(), fake, RetryBudget(fake.time))
    assert pool.head("/v1/x").decode().startswith(start)


def test_engines_have_some_operations_elsewhere() -> None:
    """An operation goes to the path under which that kind of engine has it."""
    pool = _pool(FakeLoop())
    assert pool.head("/v1/tokenize").startswith(b"POST /tokenize HTTP")
    assert pool.head("/v1/rerank").startswith(b"POST /v1/rerank HTTP")


async def _asked(max_connections: int = 2) -> tuple[Pool, FakeSender, UpstreamConnection]:
    loop = FakeLoop()
    pool = _pool(loop, max_connections)
    sender = FakeSender()
    pool.acquire(sender)
    await _connect(loop)
    assert sender.connection is not None
    return pool, sender, sender.connection


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
WHOLE = {
    "length": (answer(b'{"a":1}'), b'{"a":1}', 200),
    "chunks": (CHUNKED + chunk(b"one") + chunk(b"two") + b"0\r\nx: y\r\n\r\n", b"onetwo", 200),
    "continue": (b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"{}", 429), b"{}", 429),
    "empty": (answer(b""), b"", 200),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b"", 204),
    "stream": (STREAM_HEAD + chunk(b"data: x\n\n") + b"0\r\n\r\n", b"data: x\n\n", 200),
}


@pytest.mark.parametrize("name", WHOLE)
async def test_answers_are_read_alike_at_every_cut(name: str) -> None:
    """Wherever reads are cut, an answer has one head, its body and one end."""
    content, body, status = WHOLE[name]
    for at in range(len(content)):
        _, sender, connection = await _asked()
        for piece in cut(content, [at]):
            _deliver(connection, piece)
        assert (sender.begun, sender.body, sender.status) == (1, body, status)
        assert sender.is_complete
        assert sender.refusal is None


async def test_a_body_without_length_ends_with_the_connection() -> None:
    """An answer that is not framed is complete when the engine closes, and broken by a reset."""
    for failure, is_complete in ((None, True), (ConnectionResetError(), False)):
        _, sender, connection = await _asked()
        _deliver(connection, b"HTTP/1.1 200 OK\r\n\r\nhello")
        connection.connection_lost(failure)
        assert (sender.body, sender.is_complete) == (b"hello", is_complete)
        assert sender.refusal == (None if is_complete else Refusal(CLOSED_EARLY))


@pytest.mark.parametrize("stray_at", [0, 1, 5, 40, None])
async def test_more_than_was_asked_for_is_dropped(stray_at: int | None) -> None:
    """What follows an answer in one read reaches nobody, and its connection is not lent again."""
    pool, sender, connection = await _asked()
    stray = answer(b'{"whose":"?"}', 500)[:stray_at]
    _deliver(connection, answer(b"{}") + stray)
    assert (sender.begun, sender.body, sender.status) == (1, b"{}", 200)
    assert sender.is_complete
    assert connection.transport.is_closing() is bool(stray)
    assert pool.connection_count == (0 if stray else 1)


@pytest.mark.parametrize(
    "content",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nx: y\r\n z\r\n\x00\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        CHUNKED + b"zz\r\n",
        b"HTTP/1.1 101 Ok\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
    ],
)
async def test_what_is_no_answer_is_given_up(content: bytes) -> None:
    """An answer that breaks HTTP's rules ends its exchange and its connection."""
    pool, sender, connection = await _asked()
    _deliver(connection, content)
    assert sender.refusal == Refusal(BAD_ANSWER)
    assert connection.transport.is_closing()
    assert pool.connection_count == 0


async def test_a_header_is_bounded() -> None:
    """A header that does not end is given up at its bound."""
    _, sender, connection = await _asked()
    _deliver(connection, b"HTTP/1.1 200 OK\r\nx: ")
    for _ in range(UPSTREAM_HEADER_BYTES // 8192):
        assert sender.refusal is None
        _deliver(connection, b"y" * 8192)
    assert sender.refusal == Refusal(BAD_ANSWER)


async def test_who_speaks_unasked_is_cut_off() -> None:
    """Bytes on an idle connection end it."""
    loop = FakeLoop()
    pool = _pool(loop)
    sender = await _served(loop, pool)
    assert sender.connection is not None
    _deliver(sender.connection, b"H")
    assert pool.connection_count == 0


class Staller(asyncio.Protocol):
    """A connection that keeps its worker busy when something comes, while something happens."""

    def __init__(self, happens: Callable[[], None]) -> None:
        """See the class."""
        self._happens = happens

    def data_received(self, data: bytes) -> None:
        """Take longer than a connection rests behind a stream."""
        del data
        self._happens()
        time.sleep(5 * STREAM_REST_S)


@on_both_loops
def test_a_close_behind_a_stream_is_seen_however_busy_the_worker_is(make_loop: MakeLoop) -> None:
    """A connection that its engine closed while the worker did something else is lent to nobody."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        pool = Pool(ENDPOINT, _upstream(max_connections=0), loop, RetryBudget(loop.time))
        waiting = FakeSender()
        pool.acquire(waiting)
        ours, engines = socket.socketpair()
        others, busy = socket.socketpair()
        _, connection = await loop.create_connection(lambda: UpstreamConnection(pool), sock=ours)
        transport, _ = await loop.create_connection(lambda: Staller(engines.close), sock=others)
        pool.release_later(connection)
        busy.send(b"work")
        await asyncio.sleep(10 * STREAM_REST_S)
        is_closed = connection.transport.is_closing()
        transport.close()
        connection.transport.close()
        busy.close()
        await _turn()
        assert is_closed
        assert waiting.connection is None

    run_on(make_loop, run())
