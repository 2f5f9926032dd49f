"""A caller that reads an answer as slowly as it likes, and leaves in whatever way it likes."""

import asyncio
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

from tests.fakes.worker_process import KEY

_WAIT_S = 20.0

PROMPTLY_S = 0.1
OTHERS = 50
"""Requests that a worker answers in that time with ease, on a machine that does nothing else."""


class AbnormalEndError(Exception):
    """The connection ended before the answer did."""


def chat_body(**members: object) -> bytes:
    """Return the body of a chat request."""
    question: dict[str, object] = {
        "model": "model-a",
        "messages": [{"role": "user", "content": "hello there"}],
    }
    return json.dumps(question | members).encode()


@dataclass(frozen=True)
class Answer:
    """An answer as far as it came."""

    status: int
    header: dict[str, str]
    body: bytes
    is_complete: bool
    """Whether it ended as its framing says; a body that ends with the connection always does."""

    @property
    def error(self) -> dict[str, Any]:
        """The error object of its body, or of the last event of its stream."""
        text = self.body.decode()
        if "data:" in text:
            events = [e for e in text.split("\n\n") if e.startswith("data: {")]
            text = events[-1].removeprefix("data: ")
        found: dict[str, Any] = json.loads(text)["error"]
        return found

    @property
    def code(self) -> str:
        """The gateway's code, without what all of them begin with."""
        return str(self.error["penstock_code"]).removeprefix("err:gateway:")


@dataclass
class StreamCaller:
    """One connection to a gateway on the loopback."""

    socket: socket.socket
    _received: bytes = b""
    header: dict[str, str] = field(default_factory=dict)
    status: int = 0
    last_byte_at_s: float = 0.0

    @classmethod
    async def connect(cls, port: int, *, receive_bytes: int | None = None) -> Self:
        """Connect; `receive_bytes` bounds what the kernel takes for a caller that does not read."""
        sock = socket.socket()
        sock.settimeout(0)
        if receive_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        except OSError:
            sock.close()
            raise
        return cls(sock)

    async def ask(
        self,
        script: str = "",
        body: bytes | None = None,
        *,
        path: str = "/v1/chat/completions",
        version: str = "1.1",
        **fields: str,
    ) -> None:
        """Send a request; its answer is the engine's script of that name."""
        content = chat_body(stream=True) if body is None else body
        lines = [
            f"POST {path} HTTP/{version}",
            "host: gateway",
            f"authorization: Bearer {KEY}",
            f"content-length: {len(content)}",
            *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items()),
        ]
        if script:
            lines.append(f"x-emulator-script: {script}")
        await self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + content)

    async def send(self, content: bytes) -> None:
        """Send raw bytes."""
        await asyncio.get_running_loop().sock_sendall(self.socket, content)

    async def _more(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            piece = await asyncio.wait_for(loop.sock_recv(self.socket, 65_536), _WAIT_S)
        except ConnectionError:
            piece = b""
        if not piece:
            raise AbnormalEndError
        self.last_byte_at_s = time.monotonic()
        self._received += piece

    async def _until(self, mark: bytes) -> bytes:
        while mark not in self._received:
            await self._more()
        found, _, self._received = self._received.partition(mark)
        return found

    async def _exactly(self, count: int) -> bytes:
        while len(self._received) < count:
            await self._more()
        found, self._received = self._received[:count], self._received[count:]
        return found

    async def read_head(self) -> int:
        """Read the head of the next answer; return its status."""
        head = (await self._until(b"\r\n\r\n")).decode("latin-1")
        start, *lines = head.split("\r\n")
        split = (line.partition(":") for line in lines)
        self.header = {name.lower(): value.strip() for name, _, value in split}
        self.status = int(start.split(" ")[1])
        return self.status

    async def read_piece(self) -> bytes:
        """Return the next piece of a chunked body, or nothing at its regular end.

        Raises:
            AbnormalEndError: The connection ended first.
        """
        size = int(await self._until(b"\r\n"), 16)
        piece = await self._exactly(size)
        assert await self._exactly(2) == b"\r\n"
        return piece

    async def read_body(self) -> tuple[bytes, bool]:
        """Read what there is of the body; return it, and whether it was complete."""
        pieces: list[bytes] = []
        try:
            if self.header.get("transfer-encoding") == "chunked":
                while piece := await self.read_piece():
                    pieces.append(piece)
            elif "content-length" in self.header:
                pieces.append(await self._exactly(int(self.header["content-length"])))
            else:
                while True:
                    await self._more()
        except AbnormalEndError:
            is_to_end = not self.header.keys() & {"transfer-encoding", "content-length"}
            rest, self._received = self._received, b""
            return b"".join(pieces) + (rest if is_to_end else b""), is_to_end
        return b"".join(pieces), True

    async def read_answer(self) -> Answer:
        """Read the next answer as far as it comes."""
        status = await self.read_head()
        body, is_complete = await self.read_body()
        return Answer(status, self.header, body, is_complete)

    async def see_that_it_lives(self) -> None:
        """Have the gateway answer something that costs it nothing.

        What other connections brought it before, it has taken notice of then.
        """
        await self.send(b"GET /health/live HTTP/1.1\r\nhost: gateway\r\n\r\n")
        assert (await self.read_answer()).status == 200

    async def is_closed(self) -> bool:
        """Wait until the gateway closed the connection; False when it sends something."""
        try:
            await self._more()
        except AbnormalEndError:
            return True
        return False

    def close(self) -> None:
        """Close the connection: FIN, or RST when something was not read."""
        self.socket.close()

    def half_close(self) -> None:
        """Close the sending side only."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Reset the connection."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


async def promptly(port: int, condition: Callable[[], object]) -> None:
    """See that something happens within `PROMPTLY_S`, or before a worker has answered many others.

    A busy machine may do nothing for longer than that: but what a worker does as soon as it hears
    of something, it does before it answers `OTHERS` who ask after that, one by one.

    Args:
        port: The worker's.
        condition: Whether it has happened.
    """
    began_s = time.monotonic()
    count = 0
    async with calling(port) as other:
        while not condition():
            took_s = time.monotonic() - began_s
            assert took_s < PROMPTLY_S or count < OTHERS, (
                f"not in {took_s} s, beside {count} others"
            )
            await other.see_that_it_lives()
            count += 1


@asynccontextmanager
async def calling(port: int, *, receive_bytes: int | None = None) -> AsyncIterator[StreamCaller]:
    """Connect, and close afterwards."""
    caller = await StreamCaller.connect(port, receive_bytes=receive_bytes)
    try:
        yield caller
    finally:
        caller.close()


async def ask(port: int, script: str = "", body: bytes | None = None, **fields: str) -> Answer:
    """Send one request on a connection of its own and read its answer."""
    async with calling(port) as caller:
        await caller.ask(script, body, **fields)
        return await caller.read_answer()
