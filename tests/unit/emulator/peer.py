"""A peer of the emulator that sees every byte, in the event loop of the test."""

import asyncio
import functools
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, ParamSpec, cast

import msgspec
import uvloop

from penstock.emulator.server import EmulatorServer, serve
from penstock.emulator.settings import EmulatorSettings

MODEL = "emulated-70b"
CHAT = "/v1/chat/completions"
PATIENCE_S = 30.0

Parameters = ParamSpec("Parameters")


def chat_body(**members: object) -> bytes:
    """Return a chat request of one short message."""
    messages = [{"role": "user", "content": "Hi"}]
    return msgspec.json.encode({"model": MODEL, "messages": messages} | members)


def request_bytes(
    body: bytes, path: str = CHAT, headers: Mapping[str, str] | None = None, method: str = "POST"
) -> bytes:
    """Return a request."""
    lines = [f"{method} {path} HTTP/1.1", "host: emulator", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass(frozen=True)
class Answer:
    """What came of an answer."""

    status: int
    headers: dict[str, str]
    body: bytes
    """Without chunk framing."""
    chunks: tuple[bytes, ...]
    """The whole chunks of a chunked body, the last and empty one left out."""
    is_complete: bool
    """Whether all of it came before the connection ended."""
    is_reset: bool
    """Whether the connection was reset."""

    def json(self) -> Any:
        """Return the body's JSON."""
        return msgspec.json.decode(self.body)

    def events(self) -> list[Any]:
        """Return the payloads of the events, `[DONE]` as text."""
        payloads = [chunk.partition(b"data: ")[2].removesuffix(b"\n\n") for chunk in self.chunks]
        return ["[DONE]" if item == b"[DONE]" else msgspec.json.decode(item) for item in payloads]

    def text(self) -> str:
        """Return what the first choice of a chat stream says."""
        found = ""
        for event in self.events():
            if event != "[DONE]":
                found += "".join(
                    choice["delta"].get("content", "")
                    for choice in event["choices"]
                    if choice["index"] == 0
                )
        return found


class Peer(asyncio.Protocol):
    """One connection to an emulator; every wait gives up after some seconds.

    It keeps what came before a reset: the streams of asyncio would not.
    """

    _transport: asyncio.Transport

    def __init__(self) -> None:
        """See `connect`."""
        self._received = bytearray()
        self._is_ended = False
        self._is_reset = False
        self._news = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Loop: connected."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Loop: bytes came."""
        self._received += data
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Loop: the connection is no more."""
        self._is_ended = True
        self._is_reset = isinstance(exc, ConnectionResetError)
        self._news.set()

    def send(self, content: bytes) -> None:
        """Send bytes as they are."""
        self._transport.write(content)

    async def read_answer(self) -> Answer:
        """Read one answer, or what there is of it; status 0 when nothing came."""
        head, is_whole = await self._until(b"\r\n\r\n")
        if not is_whole:
            return Answer(0, {}, head, (), is_complete=False, is_reset=self._is_reset)
        start, *lines = head.decode().strip().split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        headers = {name.lower(): value for name, value in pairs}
        chunks: list[bytes] = []
        if headers.get("transfer-encoding") == "chunked":
            rest, is_whole = await self._read_chunks(chunks)
            body = b"".join(chunks) + rest
        else:
            length = int(headers.get("content-length", "0"))
            body, is_whole = await self._exactly(length)
        return Answer(
            int(start.split()[1]),
            headers,
            body,
            tuple(chunks),
            is_complete=is_whole,
            is_reset=self._is_reset,
        )

    async def read_some(self) -> bytes:
        """Read what comes next, empty at the end."""
        while not self._received and not self._is_ended:
            await self._wait()
        return self._take(len(self._received))

    async def is_silent(self, wait_s: float = 0.05) -> bool:
        """Return whether the connection stays open, and nothing comes, for that long."""
        await asyncio.sleep(wait_s)
        return not self._received and not self._is_ended

    def stop_reading(self) -> None:
        """Leave what comes in the kernel."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take it from there again."""
        self._transport.resume_reading()

    async def close(self) -> None:
        """Leave with a FIN."""
        self._transport.close()
        while not self._is_ended:
            await self._wait()

    async def reset(self) -> None:
        """Leave with an RST."""
        descriptor = self._transport.get_extra_info("socket").fileno()
        with socket.socket(fileno=os.dup(descriptor)) as duplicate:
            duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()
        await self.close()

    async def _read_chunks(self, chunks: list[bytes]) -> tuple[bytes, bool]:
        while True:
            line, is_whole = await self._until(b"\r\n")
            if not is_whole:
                return line, False
            size = int(line, 16)
            content, is_whole = await self._exactly(size + 2)
            if not is_whole:
                return content, False
            if size == 0:
                return b"", True
            chunks.append(content[:-2])

    async def _until(self, end: bytes) -> tuple[bytes, bool]:
        while (at := self._received.find(end)) < 0:
            if self._is_ended:
                return self._take(len(self._received)), False
            await self._wait()
        return self._take(at + len(end)), True

    async def _exactly(self, count: int) -> tuple[bytes, bool]:
        while len(self._received) < count and not self._is_ended:
            await self._wait()
        content = self._take(count)
        return content, len(content) == count

    def _take(self, count: int) -> bytes:
        content = bytes(self._received[:count])
        del self._received[:count]
        return content

    async def _wait(self) -> None:
        self._news.clear()
        await asyncio.wait_for(self._news.wait(), PATIENCE_S)


def on_uvloop(
    test: Callable[Parameters, Coroutine[Any, Any, None]],
) -> Callable[Parameters, None]:
    """Run a test on the loop that the emulator runs on as a process."""

    @functools.wraps(test)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        uvloop.run(test(*args, **kwargs))

    return run


@asynccontextmanager
async def connect(port: int) -> AsyncIterator[Peer]:
    """Open a connection, and close it in the end."""
    loop = asyncio.get_running_loop()
    _, peer = await loop.create_connection(Peer, "127.0.0.1", port)
    try:
        yield peer
    finally:
        await peer.close()


async def ask(
    settings: EmulatorSettings,
    body: bytes,
    path: str = CHAT,
    headers: Mapping[str, str] | None = None,
    method: str = "POST",
) -> Answer:
    """Return the answer of a new emulator to one request."""
    async with await start(settings) as server, connect(server.port) as peer:
        peer.send(request_bytes(body, path, headers, method))
        return await peer.read_answer()


async def until_active(server: EmulatorServer) -> None:
    """Wait until a request is being answered."""
    async with asyncio.timeout(PATIENCE_S):
        while not server.statistics.report().active_count:  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.001)


async def start(settings: EmulatorSettings) -> EmulatorServer:
    """Return a new emulator on a free port."""
    return await serve(msgspec.structs.replace(settings, port=0))
