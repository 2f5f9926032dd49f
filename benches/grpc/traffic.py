"""Who asks a worker by gRPC, and whom it asks: both in one process, on our own HTTP/2.

grpcio takes longer over a call than the worker does: with it at either end, the load would be what
is measured.
"""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tests.fakes.grpc_caller import named, tensor, text

from penstock.gateway.dialects.grpc import frame
from penstock.gateway.form_grpc import SERVICE
from penstock.gateway.http2.ends import CallersConnection, EnginesConnection
from penstock.gateway.http2.fields import Fields, encode_fields
from penstock.gateway.http2.frames import ErrorCode
from penstock.gateway.http2.link import Link
from penstock.gateway.http2.stream import Stream
from penstock.kit.protobuf import length_field

CONNECTIONS = 8
CALLS_EACH = 8
"""In flight on a connection."""
TEXT_BYTES = 200
_ANSWER = b"the water runs"
_HEAD = encode_fields(((b":status", b"200"), (b"content-type", b"application/grpc")))
_WELL = (b"grpc-status", b"0")
_END = encode_fields((_WELL,))


def question(model: str) -> bytes:
    """Return a request to infer that has one text, framed."""
    return frame(named(model) + tensor("text_input", "BYTES", [1]) + text("x" * TEXT_BYTES))


def _answer() -> bytes:
    """Return an answer that has one text, framed; its tensors stand where a request's do."""
    content = struct.pack("<I", len(_ANSWER)) + _ANSWER
    output = tensor("text_output", "BYTES", [1])
    return frame(named("served-model") + output + length_field(6, content))


class _End:
    """One end of a call: what neither end has to do anything about."""

    __slots__ = ("_stream",)

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        stream.receiver = self

    def on_headers(self, fields: Fields, *, is_end: bool) -> None:
        """Go on."""

    def on_data(self, data: bytes, *, is_end: bool) -> None:
        """Take it."""
        del is_end
        self._stream.consume(len(data))

    def on_trailers(self, fields: Fields) -> None:
        """Go on."""

    def on_reset(self, code: ErrorCode | None) -> None:
        """Go on: its connection's end is told as well."""

    def pause(self) -> None:
        """Go on: it is little."""

    def resume(self) -> None:
        """Go on."""


class _Answering(_End):
    """The engine's end."""

    __slots__ = ()

    content = _answer()

    @classmethod
    def accept(cls, stream: Stream, *_: object) -> None:
        cls(stream)

    def on_data(self, data: bytes, *, is_end: bool) -> None:
        super().on_data(data, is_end=is_end)
        if is_end:
            self._stream.send_headers(_HEAD)
            self._stream.send_data(self.content)
            self._stream.send_headers(_END, is_end=True)


class _Asking(_End):
    """The caller's end."""

    __slots__ = ("_answered",)

    def __init__(self, stream: Stream, answered: Callable[[], None]) -> None:
        super().__init__(stream)
        self._answered = answered

    def on_trailers(self, fields: Fields) -> None:
        if _WELL in fields:
            self._answered()


class _EngineLink(Link[CallersConnection]):
    def make_connection(self) -> CallersConnection:
        return CallersConnection(self.wake, _Answering.accept)


class _CallerLink(Link[EnginesConnection]):
    def __init__(self, source: "Source") -> None:
        super().__init__(asyncio.get_running_loop())
        self._source = source

    def make_connection(self) -> EnginesConnection:
        return EnginesConnection(self.wake, lambda *_: self._source.ended(self))


class Source:
    """Asks the same on all its connections, again as soon as it is answered.

    Args:
        head: The block of each call.
        message: What it says, framed.
    """

    def __init__(self, head: bytes, message: bytes) -> None:
        """See the class."""
        self._head = head
        self._message = message
        self._links: list[_CallerLink] = []
        self._is_asking = False
        self.ended_count = 0
        self.good_count = 0

    async def connect(self, port: int) -> None:
        """Make the connections."""
        loop = asyncio.get_running_loop()
        for _ in range(CONNECTIONS):
            _, link = await loop.create_connection(lambda: _CallerLink(self), "127.0.0.1", port)
            self._links.append(link)

    def begin(self) -> None:
        """Ask on all of them."""
        self._is_asking = True
        for link in self._links * CALLS_EACH:
            self._ask(link)

    def close(self) -> None:
        """Hang up."""
        self._is_asking = False
        for link in self._links:
            link.transport.abort()

    def ended(self, link: _CallerLink) -> None:
        """Count a call, and make the next one."""
        if self._is_asking:
            self.ended_count += 1
            self._ask(link)

    def _ask(self, link: _CallerLink) -> None:
        stream = link.connection.begin()
        _Asking(stream, self._count)
        stream.send_headers(self._head)
        stream.send_data(self._message, is_end=True)

    def _count(self) -> None:
        self.good_count += 1


@asynccontextmanager
async def engine(port: int) -> AsyncIterator[None]:
    """Answer what comes to a port."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _EngineLink(loop), "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()


def head(key: str) -> bytes:
    """Return the block of a call to infer with this key."""
    return encode_fields(
        (
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", SERVICE.encode() + b"ModelInfer"),
            (b":authority", b"gateway:8001"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"authorization", b"Bearer " + key.encode()),
        )
    )
