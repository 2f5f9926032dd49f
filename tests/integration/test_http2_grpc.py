"""Our HTTP/2 against grpcio, in both roles: every kind of call, errors, cancellation, size."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from tests.fakes.http2_ends import HEAD, Recorder

from penstock.contract.snapshot import Endpoint
from penstock.gateway.errors import CONNECT_FAILED
from penstock.gateway.http2.client import Http2Pool
from penstock.gateway.http2.fields import Fields, encode_fields
from penstock.gateway.http2.frames import ErrorCode
from penstock.gateway.http2.server import Http2Downstream
from penstock.gateway.http2.stream import Stream
from penstock.gateway.offer import ServedUpstream
from penstock.gateway.retries import RetryBudget
from penstock.kit.errors import Refusal

LARGE = bytes(range(256)) * (4 * 1024 * 1024 // 256)
UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
PATIENCE_S = 60


def message(data: bytes) -> bytes:
    """Frame a message as gRPC does."""
    return b"\0" + len(data).to_bytes(4, "big") + data


def messages(data: bytes) -> Iterator[bytes]:
    """Yield the messages that are whole."""
    while len(data) >= 5 and len(data) - 5 >= (size := int.from_bytes(data[1:5], "big")):
        yield data[5 : 5 + size]
        data = data[5 + size :]


def status(code: grpc.StatusCode, text: str = "") -> bytes:
    """Write trailers."""
    value = cast("tuple[int, str]", code.value)[0]
    return encode_fields(((b"grpc-status", b"%d" % value), (b"grpc-message", text.encode())))


OK = status(grpc.StatusCode.OK)


async def eventually(is_true: Any) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(PATIENCE_S):
        while not is_true():  # noqa: ASYNC110 - others tell of it in their own ways
            await asyncio.sleep(0.005)


class Served(Recorder):
    """One call: what it is asked for is in the path."""

    def __init__(self, stream: Stream, method: bytes) -> None:
        super().__init__(stream)
        self.method = method
        self.told = 0

    def on_data(self, data: bytes, *, is_end: bool) -> None:
        """Answer as the method says."""
        super().on_data(data, is_end=is_end)
        stream = self.stream
        if self.method == b"/t/Bidi":
            whole = list(messages(self.data))
            for each in whole[self.told :]:
                if not self.told:
                    stream.send_headers(HEAD)
                stream.send_data(message(each.upper()))
                self.told += 1
        elif self.method == b"/t/Unary" and is_end:
            stream.send_headers(HEAD)
            stream.send_data(self.data)
        elif self.method == b"/t/Stream" and is_end:
            stream.send_headers(HEAD)
            for number in range(20):
                stream.send_data(message(b"%d" % number * 10_000))
        else:
            return
        if is_end:
            stream.send_headers(OK, is_end=True)


class Site:
    """Our server, and all that it was asked."""

    def __init__(self) -> None:
        self.calls: list[Served] = []
        self.downstreams: list[Http2Downstream] = []

    def accept(self, stream: Stream, fields: Fields, is_end: bool) -> None:  # noqa: ARG002, FBT001
        """Serve a call."""
        head = dict(fields)
        if head[b":path"] == b"/t/Refused":
            trailers = status(grpc.StatusCode.RESOURCE_EXHAUSTED, "slow down")
            stream.send_headers(HEAD + trailers, is_end=True)
            return
        self.calls.append(Served(stream, head[b":path"]))

    def protocol(self) -> Http2Downstream:
        """Make the protocol of a connection."""
        loop = asyncio.get_running_loop()
        worker: Any = SimpleNamespace(
            now_s=loop.time, join=lambda _: True, leave=self.downstreams.remove
        )
        self.downstreams.append(Http2Downstream(worker, self.accept))
        return self.downstreams[-1]


@pytest.fixture
async def site() -> AsyncIterator[tuple[Site, grpc.aio.Channel]]:
    """Our server and a channel of grpcio to it."""
    site = Site()
    server = await asyncio.get_running_loop().create_server(site.protocol, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{address[1]}", UNLIMITED) as channel:
        yield site, channel
    server.close()
    for downstream in site.downstreams:  # grpcio closes its end when its calls are collected
        downstream.interrupt()
    await eventually(lambda: not site.downstreams)


class TestServer:
    """grpcio calls us."""

    async def test_unary_calls_of_every_size(self, site: tuple[Site, grpc.aio.Channel]) -> None:
        """Calls of nothing, a little and 4 MB, many at a time, are answered with what came."""
        call: Any = site[1].unary_unary("/t/Unary")
        sent = [b"", b"x", LARGE, *(b"%d" % number * 100 for number in range(200))]
        answers = await asyncio.gather(*(call(each, timeout=PATIENCE_S) for each in sent))
        assert answers == sent
        assert not any(each.connection.streams for each in site[0].downstreams)

    async def test_a_stream_of_answers(self, site: tuple[Site, grpc.aio.Channel]) -> None:
        """A call that is answered by several messages gets all of them in order."""
        call: Any = site[1].unary_stream("/t/Stream")
        assert [each async for each in call(b"", timeout=PATIENCE_S)] == [
            b"%d" % number * 10_000 for number in range(20)
        ]

    async def test_both_ways_at_once(self, site: tuple[Site, grpc.aio.Channel]) -> None:
        """In a call with messages both ways each is answered before the next is sent."""
        call: Any = site[1].stream_stream("/t/Bidi")(timeout=PATIENCE_S)
        for number in range(10):
            await call.write(b"a%d" % number)
            assert await call.read() == b"A%d" % number
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK

    async def test_an_error_without_a_body(self, site: tuple[Site, grpc.aio.Channel]) -> None:
        """A call that is refused at its head, its body unread, gets status and text."""
        call: Any = site[1].unary_unary("/t/Refused")
        for body in (b"", LARGE):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await call(body, timeout=PATIENCE_S)
            assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert error.value.details() == "slow down"

    async def test_callers_who_leave(self, site: tuple[Site, grpc.aio.Channel]) -> None:
        """A call that is cancelled, and one whose deadline passes, ends at our side at once."""
        mine, channel = site
        silent: Any = channel.unary_unary("/t/Silent")
        call = silent(b"", timeout=PATIENCE_S)
        await eventually(lambda: mine.calls and mine.calls[0].is_end)
        call.cancel()
        await eventually(lambda: mine.calls[0].resets)
        while len(mine.calls) < 2:  # its time may be over before it was sent
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await silent(b"", timeout=0.2)
            assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(lambda: mine.calls[-1].resets)
        assert {tuple(each.resets) for each in mine.calls} == {(ErrorCode.CANCEL,)}

    async def test_what_is_under_way_ends_well(self, site: tuple[Site, grpc.aio.Channel]) -> None:
        """While we drain, a call under way is answered; the connection closes behind it."""
        mine, channel = site
        call: Any = channel.stream_stream("/t/Bidi")(timeout=PATIENCE_S)
        await call.write(b"a")
        assert await call.read() == b"A"
        drained = mine.downstreams[0]
        drained.drain()
        await eventually(lambda: drained.connection.is_going_away)
        await call.write(b"b")
        assert await call.read() == b"B"
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        await eventually(lambda: drained not in mine.downstreams)


class Asked(Recorder):
    """One call of ours to an engine."""

    def __init__(self, path: str, body: bytes = b"", *, holds: bool = False) -> None:
        self.path, self.body, self.holds = path, body, holds
        self.refusal: Refusal | None = None

    def connected(self, stream: Stream) -> None:
        """Send the request."""
        super().__init__(stream, holds=self.holds)
        stream.send_headers(cast("Any", self.pool).head(self.path))
        stream.send_data(message(self.body), is_end=True)

    def connect_failed(self, pool: Http2Pool, refusal: Refusal) -> None:  # noqa: ARG002
        """Keep why."""
        self.refusal = refusal

    def start(self, pool: Http2Pool) -> "Asked":
        """Ask."""
        self.pool = pool
        pool.acquire(self)
        return self

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes."""
        return self.refusal is not None or (
            hasattr(self, "stream") and (self.is_end or bool(self.resets))
        )


async def _unary(body: bytes, _context: Any) -> bytes:
    return body


async def _many(body: bytes, _context: Any) -> AsyncIterator[bytes]:
    for _ in range(20):
        yield body


async def _refused(_body: bytes, context: Any) -> bytes:
    await context.abort(grpc.StatusCode.UNAVAILABLE, "busy")
    raise AssertionError


class Handlers:
    """Serves the calls of these tests."""

    def __init__(self) -> None:
        self.cancelled = 0

    async def _silent(self, _body: bytes, _context: Any) -> bytes:
        try:
            await asyncio.sleep(PATIENCE_S)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return b""

    def service(self, details: Any) -> Any:
        """Return who serves a path."""
        return {
            "/t/Unary": grpc.unary_unary_rpc_method_handler(_unary),
            "/t/Stream": grpc.unary_stream_rpc_method_handler(_many),
            "/t/Refused": grpc.unary_unary_rpc_method_handler(_refused),
            "/t/Silent": grpc.unary_unary_rpc_method_handler(self._silent),
        }.get(details.method)


def make_pool(port: int, connect_ms: int = 10_000) -> Http2Pool:
    """Make a pool to an endpoint of this machine."""
    loop = asyncio.get_running_loop()
    upstream: Any = SimpleNamespace(
        name="e", max_connections=2, timeouts=SimpleNamespace(connect_ms=connect_ms)
    )
    endpoint = Endpoint("http", "127.0.0.1", port)
    return Http2Pool(endpoint, cast("ServedUpstream", upstream), loop, RetryBudget(loop.time))


@pytest.fixture
async def engine() -> AsyncIterator[tuple[Handlers, grpc.aio.Server, Http2Pool]]:
    """A server of grpcio and our pool of connections to it."""
    handlers, server = Handlers(), grpc.aio.server(options=UNLIMITED)
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    pool = make_pool(port)
    yield handlers, server, pool
    pool.close()
    await server.stop(0)
    await eventually(lambda: not pool.connection_count)


Engine = tuple[Handlers, grpc.aio.Server, Http2Pool]


class TestClient:
    """We call grpcio."""

    async def test_calls_of_every_size(self, engine: Engine) -> None:
        """Calls of nothing, a little and 4 MB, more than one connection takes, are answered."""
        sent = [b"", b"x", LARGE, *(b"%d" % number * 100 for number in range(300))]
        asked = [Asked("/t/Unary", body).start(engine[2]) for body in sent]
        await eventually(lambda: all(each.is_over for each in asked))
        assert [next(messages(each.data)) for each in asked] == sent
        assert all(dict(each.trailers or ())[b"grpc-status"] == b"0" for each in asked)
        assert 1 <= engine[2].connection_count <= 2

    async def test_a_stream_that_is_read_slowly(self, engine: Engine) -> None:
        """An engine is never more than a window ahead of who reads its stream."""
        asked = Asked("/t/Stream", b"x" * 100_000, holds=True).start(engine[2])
        await eventually(lambda: hasattr(asked, "stream") and len(asked.data) > 200_000)
        await asyncio.sleep(0.1)
        assert len(asked.data) <= 256 * 1024
        asked.holds = False
        asked.stream.consume(len(asked.data))
        await eventually(lambda: asked.is_over)
        assert len(list(messages(asked.data))) == 20

    async def test_errors_without_a_body(self, engine: Engine) -> None:
        """The status of a failed call, and of one that nobody serves, comes with its head."""
        asked = [Asked(path).start(engine[2]) for path in ("/t/Refused", "/t/Unknown")]
        await eventually(lambda: all(each.is_over for each in asked))
        found = [dict((*(each.head or ()), *(each.trailers or ()))) for each in asked]
        assert [each[b"grpc-status"] for each in found] == [b"14", b"12"]
        assert found[0][b"grpc-message"] == b"busy"

    async def test_giving_up(self, engine: Engine) -> None:
        """A call that we give up is cancelled at the engine; others of its connection go on."""
        asked = Asked("/t/Silent").start(engine[2])
        await eventually(lambda: hasattr(asked, "stream"))
        other = Asked("/t/Unary", b"x").start(engine[2])
        await eventually(lambda: other.is_over)
        asked.stream.reset()
        await eventually(lambda: engine[0].cancelled)
        again = Asked("/t/Unary", b"y").start(engine[2])
        await eventually(lambda: again.is_over)
        assert next(messages(again.data)) == b"y"
        assert engine[2].connection_count == 1
        assert not asked.resets

    async def test_an_engine_that_ends(self, engine: Engine) -> None:
        """When an engine goes, its calls are told; the next one meets a connection not made."""
        asked = Asked("/t/Silent").start(engine[2])
        await eventually(lambda: hasattr(asked, "stream"))
        await engine[1].stop(0)
        await eventually(lambda: asked.is_over)
        await eventually(lambda: engine[2].connection_count == 0)
        asked_s = asyncio.get_running_loop().time()
        late = Asked("/t/Unary").start(engine[2])
        await eventually(lambda: late.is_over)
        assert late.refusal is not None
        assert late.refusal.error is CONNECT_FAILED
        assert engine[2].cool_until_s > asked_s
