"""The agent as a real process, a usage store for it, and workers that a test plays."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec
import pytest
import uvicorn
from tests.fakes.bugs import expect_no_bugs
from tests.fakes.plain_http import NO_TLS

from penstock.contract.key_hashes import KeyHashes, decode_key_hashes
from penstock.contract.limits import Ask, Bucket, BucketUse, UseReport
from penstock.contract.money import FreeRequest
from penstock.contract.node import (
    AgentMessage,
    Frames,
    Granted,
    Hello,
    Want,
    WorkerMessage,
    decode_agent_message,
    encode_message,
)
from penstock.contract.usage import (
    PLACES_PATH,
    PlacesAnswer,
    PlacesQuestion,
    StoredPlace,
    UsageEvent,
    UsageReceipt,
    decode_batch,
)
from penstock.node.delivery import FREE_PATH
from penstock.node.layout import runtime_folder
from penstock.node.settings import AgentSettings
from penstock.node.use_reports import PATH as USE_PATH

FAKE_WORKER = str(Path(__file__).parents[1] / "fakes" / "fake_worker.py")
CONFIG = """\
version: 1
organizations: [{name: dev}]
projects: [{name: playground, organization: dev}]
"""
WAIT_S = 60.0
Kind = TypeVar("Kind")
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait for something to be true."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited in vain: {what}")
        await asyncio.sleep(0.02)


class Sink:
    """A usage store that remembers what it got, and can be away."""

    def __init__(self) -> None:
        """Start empty, with a free port that is known in advance."""
        self.events: dict[str, UsageEvent] = {}
        self.deliveries: Counter[str] = Counter()
        self.places: defaultdict[tuple[str, int], StoredPlace] = defaultdict(StoredPlace)
        self.tokens: set[str] = set()
        self.reports: list[KeyHashes] = []
        self.uses: list[BucketUse] = []
        self.frees: list[FreeRequest] = []
        self.is_away = False
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            self._answer, log_config=None, lifespan="off", ws="none", interface="asgi3"
        )
        self._server = uvicorn.Server(config)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Answer requests from now on; until then they wait."""
        self._task = asyncio.create_task(self._server._serve([self._socket]))

    async def stop(self) -> None:
        """Answer no more."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._socket.close()

    async def _answer(self, scope: Message, receive: Receive, send: Send) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        status, answer = 503, b"away"
        if not self.is_away:
            headers = dict(scope["headers"])
            self.tokens.add(headers[b"authorization"].decode())
            status, answer = 200, self._take(scope["path"], body)
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": answer})

    def _take(self, path: str, body: bytes) -> bytes:
        if path == "/node/v1/key-hashes":
            self.reports.append(decode_key_hashes(body))
            return b"{}"
        if path == USE_PATH:
            self.uses += msgspec.msgpack.decode(body, type=UseReport).uses
            return b""
        if path == FREE_PATH:
            self.frees.append(msgspec.msgpack.decode(body, type=FreeRequest))
            return b""
        if path == PLACES_PATH:
            lives = msgspec.msgpack.decode(body, type=PlacesQuestion).lives
            places = [self.places[(life.producer, life.epoch)] for life in lives]
            return msgspec.msgpack.encode(PlacesAnswer(tuple(places)))
        assert path == "/node/v1/usage", path
        return msgspec.json.encode(self._store(body))

    def _store(self, body: bytes) -> UsageReceipt:
        stored = duplicates = conflicts = 0
        batch = decode_batch(body)
        life = batch.producer, batch.epoch
        before = self.places[life]
        self.places[life] = max(
            before, StoredPlace(batch.segment, batch.offset), key=lambda p: (p.segment, p.offset)
        )
        for event in batch.events:
            self.deliveries[event.event_id] += 1
            known = self.events.setdefault(event.event_id, event)
            if self.deliveries[event.event_id] == 1:
                stored += 1
            elif known == event:
                duplicates += 1
            else:
                conflicts += 1
        return UsageReceipt(stored, duplicates, conflicts, before.segment, before.offset)

    def outcomes(self) -> Counter[str]:
        """Return how many events of each outcome there are."""
        return Counter(event.outcome for event in self.events.values())


class Node:
    """An agent's process on a data folder."""

    def __init__(self, data: Path, control_url: str) -> None:
        """See the class."""
        self.data = data
        self.config = data / "penstock.yaml"
        self.control_url = control_url
        self.metrics_port = 0
        self.log_path = data / "agent.log"
        self._process: asyncio.subprocess.Process | None = None
        self._seen_pids: set[int] = set()

    async def start(self, *worker_options: str, **settings: object) -> None:
        """Start an agent and wait until it runs."""
        await self.spawn(*worker_options, **settings)
        await until(lambda: "agent running" in self.log() or not self.is_alive(), "agent runs")
        assert self.is_alive(), self.log()
        self.metrics_port = int(self.log().rsplit("metrics_port=", 1)[1].split()[0])

    async def spawn(self, *worker_options: str, **settings: object) -> None:
        """Start an agent."""
        values = {
            "data_path": str(self.data),
            "config_path": str(self.config),
            "control_url": self.control_url,
            "metrics_port": 0,
            "worker_command": (sys.executable, FAKE_WORKER, *worker_options),
            # Nobody takes as long, unless the machine is busy or the test wants it.
            "drain_grace_s": WAIT_S,
            "ship_grace_s": WAIT_S,
            "log_format": "text",
            **settings,
        }
        encoded = msgspec.json.encode(msgspec.convert(values, AgentSettings)).decode()
        self.log_path.write_text("")
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "penstock.node", encoded, stderr=log
            )

    @property
    def pid(self) -> int:
        """Process id of the agent."""
        assert self._process is not None
        return self._process.pid

    def is_alive(self) -> bool:
        """Tell whether the agent has not ended yet."""
        return self._process is not None and self._process.returncode is None

    def log(self) -> str:
        """Return what the agent has logged since its start."""
        return self.log_path.read_text()

    def signal(self, number: signal.Signals) -> None:
        """Send the agent a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def wait(self) -> int:
        """Wait for the agent's end."""
        assert self._process is not None
        return await asyncio.wait_for(self._process.wait(), WAIT_S)

    async def stop(self) -> int:
        """Stop the agent in order and return its exit code."""
        self.signal(signal.SIGTERM)
        return await self.wait()

    def worker_pids(self) -> list[int]:
        """Return the workers that the log tells of and that live."""
        words = [word for word in self.log().split() if word.startswith("pid=")]
        self._seen_pids.update(int(word[4:]) for word in words)
        return sorted(pid for pid in self._seen_pids if is_alive(pid))

    async def metric(self, name: str) -> float | None:
        """Return a metric's value, None when it is not there."""
        async with httpx.AsyncClient(trust_env=False, verify=NO_TLS) as client:
            page = (await client.get(f"http://127.0.0.1:{self.metrics_port}/metrics")).text
        for text in page.splitlines():
            if text.startswith((name + " ", name + "{")):
                return float(text.rsplit(" ", 1)[1])
        return None

    async def until_metric(self, name: str, value: float | None) -> None:
        """Wait until a metric has a value, or is not there."""
        deadline = time.monotonic() + WAIT_S
        while (found := await self.metric(name)) != value:
            if time.monotonic() > deadline:
                pytest.fail(f"{name} is {found}, not {value}\n{self.log()}")
            await asyncio.sleep(0.05)

    async def clean_up(self) -> None:
        """Kill the agent and every worker that was ever seen."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        print(f"{self.log_path}:\n{self.log()}")  # noqa: T201  # shown of tests that fail
        for pid in self.worker_pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        expect_no_bugs(self.log_path.parent)


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


class Caller:
    """A worker of another agent's time: a process of its own, and a connection."""

    def __init__(self, node: Node) -> None:
        """Not connected yet."""
        self._path = runtime_folder(node.data) / "agent.sock"
        self._frames = Frames()
        self._received: list[AgentMessage] = []
        self.process = subprocess.Popen(["sleep", "60"])

    async def connect(self, epoch: int) -> None:
        """Say Hello, as soon as somebody listens."""
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                self._reader, self._writer = await asyncio.open_unix_connection(self._path)
                break
            except OSError:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)
        self._frames, self._received = Frames(), []
        self.tell(Hello(0, epoch, self.process.pid, 1, is_draining=True))

    def tell(self, message: WorkerMessage) -> None:
        """Send a message."""
        self._writer.write(encode_message(message))

    async def hear(self, kind: type[Kind]) -> Kind:
        """Return the next message of a kind."""
        while True:
            while self._received:
                message = self._received.pop(0)
                if isinstance(message, kind):
                    return message
            content = await asyncio.wait_for(self._reader.read(65_536), WAIT_S)
            assert content
            self._received += map(decode_agent_message, self._frames.feed(content))

    async def ask(self, bucket: Bucket, amount: int, take_id: str) -> Granted:
        """Want something of a limit."""
        self.tell(Want(take_id, (Ask(bucket, amount, amount),)))
        return await self.hear(Granted)

    async def disconnect(self) -> None:
        """End the connection."""
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()

    async def end(self) -> None:
        """End the process and the connection."""
        self.process.kill()
        await asyncio.to_thread(self.process.wait)
        await self.disconnect()


@asynccontextmanager
async def running_sink() -> AsyncIterator[Sink]:
    """Run a usage store that answers."""
    sink = Sink()
    sink.start()
    yield sink
    await sink.stop()


@asynccontextmanager
async def kept_node(data: Path, sink: Sink) -> AsyncIterator[Node]:
    """Hand out a node that is not started, and leave nothing of it behind."""
    node = Node(data, sink.url)
    node.config.write_text(CONFIG)
    yield node
    await node.clean_up()
