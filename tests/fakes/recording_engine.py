"""A model server that answers everything alike and remembers what reached it, to the byte."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec

_PATIENCE_S = 30
_ANSWER = (
    b'{"id":"c1","object":"chat.completion","model":"served-model","choices":'
    b'[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8}}'
)
_EVENTS = (
    b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5}}\n\n',
    b"data: [DONE]\n\n",
)


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    line: str
    fields: tuple[tuple[str, str], ...]
    """Header fields in order, names in lower case."""
    body: bytes

    @property
    def header(self) -> dict[str, str]:
        """The header fields by name."""
        return dict(self.fields)


class RecordingEngine:
    """Answers everything with a short chat.

    A request's `x-emulator-ttft-ms` delays its answer, its `x-emulator-hold` until `release` is
    called. Its `x-emulator-status` makes the answer an error of a careless server, which repeats
    the credential that it was shown.
    """

    def __init__(self) -> None:
        """Start with nothing seen."""
        self.seen: list[Seen] = []
        self.connection_count = 0
        """Of connections that were ever made."""
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()
        self._released = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> None:
        """Listen on a free port of the loopback."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(_PATIENCE_S)

    def stop(self) -> None:
        """Close everything and end the thread."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(_PATIENCE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE_S)
        self._loop.close()

    def release(self) -> None:
        """Answer what is held, and hold nothing from now on."""
        self._loop.call_soon_threadsafe(self._released.set)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**20)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        assert self._server is not None
        self._server.close()
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.current_task()
        assert talk is not None
        self.connection_count += 1
        self._talks.add(talk)
        try:
            while True:
                await self._answer(await _read_request(reader), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._talks.discard(talk)
            writer.close()

    async def _answer(self, request: Seen, writer: asyncio.StreamWriter) -> None:
        self.seen.append(request)
        await asyncio.sleep(int(request.header.get("x-emulator-ttft-ms", "0")) / 1000)
        if "x-emulator-hold" in request.header:
            await self._released.wait()
        status = request.header.get("x-emulator-status")
        if status is not None:
            text = f"may not come in with {request.header.get('authorization')}"
            content = msgspec.json.encode({"error": {"message": text}})
            writer.write(
                b"HTTP/1.1 %b Error\r\nserver: engine/1.2.3\r\nset-cookie: a=b\r\n"
                b"content-length: %d\r\n\r\n%b" % (status.encode(), len(content), content)
            )
            return
        if b'"stream":true' in request.body:
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                b"transfer-encoding: chunked\r\n\r\n"
            )
            for event in _EVENTS:
                writer.write(b"%x\r\n%b\r\n" % (len(event), event))
                await writer.drain()
            writer.write(b"0\r\n\r\n")
            return
        writer.write(
            b"HTTP/1.1 200 OK\r\nserver: engine/1.2.3\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(_ANSWER), _ANSWER)
        )


async def _read_request(reader: asyncio.StreamReader) -> Seen:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    split = (each.partition(":") for each in lines)
    fields = tuple((name.lower(), value.strip()) for name, _, value in split)
    body = await reader.readexactly(int(dict(fields)["content-length"]))
    return Seen(line, fields, body)


@contextmanager
def running_engine() -> Iterator[RecordingEngine]:
    """Start an engine in a thread and end it afterwards."""
    engine = RecordingEngine()
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()
