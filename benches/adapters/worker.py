"""A whole worker in this process, whose callers and engines are none: bytes in, bytes out.

Nothing of it is left out but sockets, whose noise would hide what adapters cost: framing, key,
facts of the body, OPEN and CLOSE on disk, head and body for the engine, the answer's usage.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import msgspec
from tests.fakes.worker_process import KEY, PEPPER, make_snapshot, write_snapshot

from penstock.access.rules import key_mac
from penstock.contract.node import WorkerSettings
from penstock.contract.snapshot import Alias, Choice, Deployment, Endpoint, Key, Route, Upstream
from penstock.engines.registry import ENGINES
from penstock.gateway.admit import Admission, admit
from penstock.gateway.authenticate import authenticate
from penstock.gateway.dialects.openai import CHAT
from penstock.gateway.forward import Pool, UpstreamConnection
from penstock.gateway.runtime import Principal
from penstock.gateway.server import Downstream
from penstock.gateway.worker import Worker

MOST_TURNS = 100
"""Of the loop that an answer may take."""
_MESSAGES = [{"role": "user", "content": "x" * 140}]
_ANSWER = {
    "id": "chatcmpl-0",
    "object": "chat.completion",
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Yes. " * 20}}],
    "usage": {"prompt_tokens": 40, "completion_tokens": 20, "total_tokens": 60},
}
_TRANSLATED = {"model_name": "m", "text_output": "Yes. " * 20}
_CHUNK = {"id": "chatcmpl-0", "model": "m", "choices": [{"index": 0, "delta": {"content": "Yes."}}]}


class _Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_over = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep it."""
        self.written += data

    def is_closing(self) -> bool:
        """Return whether it is over, as its owner said."""
        return self.is_over

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Have none."""

    def get_write_buffer_size(self) -> int:
        """All is sent at once."""
        return 0

    def pause_reading(self) -> None:
        """Read on."""

    def resume_reading(self) -> None:
        """Read on."""


class Line:
    """A caller's connection, and one to an engine of a kind.

    Args:
        worker: Whose they are.
        alias: What is asked for.
        kind: The engine's.
        is_stream: Whether the answers are streams.
    """

    def __init__(self, worker: Worker, alias: str, kind: str, *, is_stream: bool) -> None:
        """See the class."""
        body = msgspec.json.encode(
            {"model": alias, "messages": _MESSAGES, "max_tokens": 100}
            | ({"stream": True} if is_stream else {})
        )
        self._request = (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\n"
            b"authorization: Bearer %b\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%b" % (KEY.encode(), len(body), body)
        )
        self._answer = _stream() if is_stream else _plain(kind)
        self._end = b"[DONE]" if is_stream else b"}"
        self._is_stream = is_stream
        self._caller = _Transport()
        self._downstream = Downstream(worker)
        self._downstream.connection_made(self._caller)
        principal = cast(
            "Principal", authenticate(worker.runtime, b"Bearer " + KEY.encode(), None, None, 1.0)
        )
        admission = cast("Admission", admit(worker.runtime, principal, CHAT, body))
        (pool,) = worker.pools_of(admission.target.upstream)
        self._pool = cast("Pool", pool)
        self._lend()

    def _lend(self) -> None:
        self._connection, self._engine = UpstreamConnection(self._pool), _Transport()
        self._connection.connection_made(self._engine)
        self._pool.release(self._connection)

    async def ask(self) -> bytes:
        """Send one request, answer it as the engine, and return what the engine was sent.

        Raises:
            RuntimeError: It was not sent, or not answered well.
        """
        if self._is_stream:  # the last one rests behind its stream, and would be lent later on
            self._engine.is_over = True
            self._lend()
        self._caller.written = self._engine.written = b""
        self._downstream.data_received(self._request)
        await self._until(self._engine, b"")
        sent = self._engine.written
        answer, connection = self._answer, self._connection
        connection.get_buffer(-1)[: len(answer)] = answer
        connection.buffer_updated(len(answer))
        await self._until(self._caller, self._end)
        return sent

    async def _until(self, transport: _Transport, end: bytes) -> None:
        for _ in range(MOST_TURNS):
            if transport.written and end in transport.written:
                return
            await asyncio.sleep(0)
        message = f"it was answered {self._caller.written!r}"
        raise RuntimeError(message)


def _plain(kind: str) -> bytes:
    speaks_openai = ENGINES[kind].speaks_openai
    body = msgspec.json.encode(_ANSWER if speaks_openai else _TRANSLATED)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


def _stream() -> bytes:
    usage = _CHUNK | {"choices": [], "usage": _ANSWER["usage"]}
    events = [msgspec.json.encode(each) for each in (*[_CHUNK] * 3, usage)]
    body = b"".join(b"data: %b\n\n" % each for each in (*events, b"[DONE]"))
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


def make_worker(folder: Path, names: Sequence[tuple[str, str]]) -> Worker:
    """Return a worker that serves one model at one engine under each name.

    Args:
        folder: Empty; for its files.
        names: Aliases, each with the kind of its engine.
    """
    (folder / "pepper").write_bytes(PEPPER)
    snapshot = msgspec.structs.replace(
        make_snapshot([]),
        keys=(Key("key", key_mac(PEPPER, KEY.encode()), "org", "project"),),
        upstreams=tuple(
            Upstream(name, kind, (Endpoint("http", "127.0.0.1", 1),)) for name, kind in names
        ),
        deployments=tuple(Deployment(name, name, "m") for name, _ in names),
        routes=tuple(Route(name, (Choice(name),)) for name, _ in names),
        aliases=tuple(Alias(name, name, is_open=True) for name, _ in names),
    )
    write_snapshot(folder / "snapshot", snapshot)
    settings = WorkerSettings(
        slot=0,
        epoch=1,
        node_id="node-bench",
        snapshot_path=str(folder / "snapshot"),
        journal_path=str(folder / "journal"),
        pepper_path=str(folder / "pepper"),
        agent_socket="",
    )
    return Worker(settings, asyncio.get_running_loop())
