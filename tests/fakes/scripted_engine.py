"""A model server whose answers are scripted byte for byte, and which notes when what happened.

A script is a coroutine function that gets the `Talk` of one request: it sends bytes cut wherever
it likes, waits, closes or resets. Times are `time.monotonic()`, to be compared with the test's.
"""

import asyncio
import itertools
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
DONE = b"data: [DONE]\n\n"
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
STREAM_HEAD_TO_END = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
)
LAST_CHUNK = b"0\r\n\r\n"
CHAT: dict[str, Any] = {
    "id": "c1",
    "object": "chat.completion",
    "model": "served-model",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}}],
}


def token(text: str) -> bytes:
    """Return the frame of one token."""
    return b"data: %b\n\n" % _json({"choices": [{"index": 0, "delta": {"content": text}}]})


def usage_frame(usage: object) -> bytes:
    """Return the frame that holds usage and nothing else."""
    return b"data: %b\n\n" % _json({"choices": [], "usage": usage})


def counts(input_tokens: int, output_tokens: int) -> dict[str, Any]:
    """Return a plain usage object."""
    return {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
    }


def chunk(content: bytes) -> bytes:
    """Return one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(content), content)


def answer(body: object, status: int = 200, *fields: str, kind: str = "application/json") -> bytes:
    """Return a whole plain answer.

    Args:
        body: Bytes as they are; anything else as JSON.
        status: HTTP status.
        fields: More header lines.
        kind: Content type.
    """
    content = body if isinstance(body, bytes) else _json(body)
    lines = [
        f"HTTP/1.1 {status} Status",
        f"content-type: {kind}",
        f"content-length: {len(content)}",
        *fields,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def chat(usage: object = None) -> bytes:
    """Return a whole plain chat answer."""
    return answer(CHAT if usage is None else CHAT | {"usage": usage})


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Received:
    """One request as it arrived."""

    target: str
    header: dict[str, str]
    body: bytes
    at_s: float

    @property
    def members(self) -> dict[str, Any]:
        """The body's members."""
        found: dict[str, Any] = json.loads(self.body)
        return found


@dataclass
class Talk:
    """One request, and the connection that its answer goes to."""

    engine: "ScriptedEngine"
    connection: "EngineConnection"
    request: Received

    async def send(self, *pieces: bytes, pause_s: float = 0.0) -> None:
        """Send pieces as packets of their own, as fast as they are taken."""
        for number, piece in enumerate(pieces):
            if number:
                await asyncio.sleep(pause_s)
            await self.connection.send(piece)

    async def stream(self, *frames: bytes, pause_s: float = 0.0) -> None:
        """Answer with a chunked stream of these frames, and its regular end."""
        await self.send(STREAM_HEAD, *map(chunk, frames), LAST_CHUNK, pause_s=pause_s)

    async def gone(self, timeout_s: float = 60.0) -> float:
        """Wait until the gateway closed the connection; return when it did."""
        await asyncio.wait_for(self.connection.is_closed.wait(), timeout_s)
        return self.connection.closed_at_s

    def close(self) -> None:
        """Close the connection once everything is sent."""
        self.connection.transport.close()

    def reset(self) -> None:
        """Reset the connection."""
        self.connection.reset()


Script = Callable[[Talk], Awaitable[None]]


class EngineConnection(asyncio.Protocol):
    """One connection from the gateway."""

    def __init__(self, engine: "ScriptedEngine") -> None:
        """Make the protocol of one connection."""
        self._engine = engine
        self._received = b""
        self._may_write = asyncio.Event()
        self._may_write.set()
        self.opened_at_s = 0.0
        self.closed_at_s = 0.0
        self.is_closed = asyncio.Event()
        self.requests: list[Received] = []
        self.sent_bytes = 0
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the connection."""
        self.transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.opened_at_s = time.monotonic()
        self._engine.connections.append(self)
        if self._engine.greet is not None:
            self._engine.greet(self)

    def data_received(self, data: bytes) -> None:
        """Take requests out of what came in, and play the script of each."""
        self._received += data
        while (request := self._take_request()) is not None:
            self.requests.append(request)
            self._engine.play(Talk(self._engine, self, request))

    def eof_received(self) -> bool:
        """Close, as model servers do."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Note the end."""
        self.closed_at_s = time.monotonic()
        self.is_closed.set()
        self._may_write.set()

    def pause_writing(self) -> None:
        """Hold `send` up."""
        self._may_write.clear()

    def resume_writing(self) -> None:
        """Let `send` go on."""
        self._may_write.set()

    async def send(self, content: bytes) -> None:
        """Send at the pace at which it is taken.

        Raises:
            ConnectionResetError: The connection is closed.
        """
        await self._may_write.wait()
        if self.is_closed.is_set() or self.transport.is_closing():
            raise ConnectionResetError
        self.transport.write(content)
        await self._may_write.wait()
        self.sent_bytes += len(content)

    def reset(self) -> None:
        """Reset the connection."""
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _take_request(self) -> Received | None:
        head, blank, rest = self._received.partition(b"\r\n\r\n")
        if not blank:
            return None
        start, *lines = head.decode("latin-1").split("\r\n")
        split = (line.partition(":") for line in lines)
        header = {name.lower(): value.strip() for name, _, value in split}
        length = int(header["content-length"])
        if len(rest) < length:
            return None
        self._received = rest[length:]
        return Received(start.split(" ")[1], header, rest[:length], time.monotonic())


@dataclass
class ScriptedEngine:
    """The server; see the module.

    Attributes:
        script: What answers requests that name no script in `x-emulator-script`.
        scripts: Scripts by name.
        greet: Called with each new connection.
    """

    script: Script | None = None
    scripts: dict[str, Script] = field(default_factory=dict)
    greet: Callable[[EngineConnection], None] | None = None
    port: int = 0
    connections: list[EngineConnection] = field(default_factory=list)
    talks: list[Talk] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)
    """What scripts raised, other than that the gateway left."""
    server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def stop_listening(self) -> None:
        """Refuse connections from now on; those that are open stay."""
        assert self.server is not None
        self.server.close()

    @property
    def requests(self) -> list[Received]:
        """Every request seen, in order."""
        return [talk.request for talk in self.talks]

    def seen(self, name: str) -> list[Talk]:
        """Return the talks of the requests that named this script."""
        return [t for t in self.talks if t.request.header.get("x-emulator-script") == name]

    def play(self, talk: Talk) -> None:
        """Begin to answer a request."""
        self.talks.append(talk)
        script = self.scripts.get(talk.request.header.get("x-emulator-script", ""), self.script)
        assert script is not None, "no script"
        task = asyncio.get_running_loop().create_task(self._run(script, talk))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, script: Script, talk: Talk) -> None:
        try:
            await script(talk)
        except ConnectionError:
            pass
        except Exception as failure:  # noqa: BLE001 - shown to the test at the engine's end
            self.failures.append(failure)

    @property
    def open_count(self) -> int:
        """Connections that are open now."""
        return sum(not connection.is_closed.is_set() for connection in self.connections)

    async def end(self) -> None:
        """Stop every script and close every connection."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in self.connections:
            connection.transport.abort()
        await asyncio.sleep(0)


@asynccontextmanager
async def running_scripted_engine(script: Script | None = None) -> AsyncIterator[ScriptedEngine]:
    """Serve on a free port of the loopback; fail when a script failed."""
    engine = ScriptedEngine(script)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: EngineConnection(engine), "127.0.0.1", 0, backlog=1024
    )
    engine.server = server
    engine.port = server.sockets[0].getsockname()[1]
    try:
        yield engine
    finally:
        server.close()
        await engine.end()
    assert not engine.failures, engine.failures


def cut(content: bytes, boundaries: Iterable[int]) -> list[bytes]:
    """Return `content` in pieces that end at these offsets, none of them empty."""
    edges = [0, *sorted(set(boundaries)), len(content)]
    return [content[a:b] for a, b in itertools.pairwise(edges) if a < b]


@asynccontextmanager
async def hanging_port() -> AsyncIterator[int]:
    """Return a port that never finishes to connect: its accept queue is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        fillers = []
        for _ in range(3):
            filler = socket.socket()
            filler.settimeout(0)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        await asyncio.sleep(0.05)
        try:
            yield port
        finally:
            for filler in fillers:
                filler.close()
