"""The agent as a real process, with stand-ins for its workers and for the usage store."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec
import pytest
import uvicorn
from tests.fakes.fake_worker import FakeJournal, make_open
from tests.fakes.redis_server import run_redis

from penstock.access.peppers import read_peppers
from penstock.contract.key_hashes import KeyHashes, decode_key_hashes
from penstock.contract.limits import Ask, Bucket, BucketUse, UseReport
from penstock.contract.money import FreeRequest
from penstock.contract.node import (
    AgentMessage,
    Frames,
    Granted,
    Hello,
    LimitsClock,
    PermitsHeld,
    Stats,
    Want,
    WorkerMessage,
    decode_agent_message,
    encode_message,
)
from penstock.contract.usage import UsageEvent, UsageReceipt, decode_batch
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
WAIT_S = 20.0

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
        assert path == "/node/v1/usage"
        return msgspec.json.encode(self._store(body))

    def _store(self, body: bytes) -> UsageReceipt:
        stored = duplicates = conflicts = 0
        for event in decode_batch(body).events:
            self.deliveries[event.event_id] += 1
            known = self.events.setdefault(event.event_id, event)
            if self.deliveries[event.event_id] == 1:
                stored += 1
            elif known == event:
                duplicates += 1
            else:
                conflicts += 1
        return UsageReceipt(stored, duplicates, conflicts)

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
        await until(lambda: "agent running" in self.log(), f"agent runs: {self.log()}")
        self.metrics_port = int(self.log().rsplit("metrics_port=", 1)[1].split()[0])

    async def spawn(self, *worker_options: str, **settings: object) -> None:
        """Start an agent."""
        values = {
            "data_path": str(self.data),
            "config_path": str(self.config),
            "control_url": self.control_url,
            "metrics_port": 0,
            "worker_command": (sys.executable, FAKE_WORKER, *worker_options),
            "drain_grace_s": 2.0,
            "ship_grace_s": 2.0,
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
        async with httpx.AsyncClient(trust_env=False) as client:
            page = (await client.get(f"http://127.0.0.1:{self.metrics_port}/metrics")).text
        for text in page.splitlines():
            if text.startswith((name + " ", name + "{")):
                return float(text.rsplit(" ", 1)[1])
        return None

    async def until_metric(self, name: str, value: float) -> None:
        """Wait until a metric has a value."""
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
        for pid in self.worker_pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    """Return a usage store that answers."""
    sink = Sink()
    sink.start()
    yield sink
    await sink.stop()


@pytest.fixture
async def node(tmp_path: Path, sink: Sink) -> AsyncIterator[Node]:
    """Return a node that is not started."""
    node = Node(tmp_path, sink.url)
    node.config.write_text(CONFIG)
    yield node
    await node.clean_up()


async def test_a_node_ships_what_its_workers_did(node: Node, sink: Sink) -> None:
    """Every closed request reaches the store once, requests that drain end as ok, and exit is 0."""
    await node.start("--closed=700", "--open=3", workers=2)
    await node.until_metric("penstock_workers", 2)
    await until(lambda: len(sink.events) == 1400, "closed requests are shipped")
    assert await node.stop() == 0, node.log()
    assert sink.outcomes() == {"ok": 1406}
    assert set(sink.deliveries.values()) == {1}
    token = (node.data / "secrets" / "node_token").read_text()
    assert sink.tokens == {f"Bearer {token}"}
    assert node.worker_pids() == []


async def test_keys_under_an_old_pepper_are_reported(node: Node, sink: Sink) -> None:
    """What workers say of old hashes reaches the control plane, also after it was away."""
    sink.is_away = True
    await node.start("--rehashed=7", workers=2)
    await until(lambda: "key hashes not reported" in node.log(), "the control plane is away")
    sink.is_away = False
    await until(lambda: sink.reports, "a report comes")
    pairs = {(bytes([n]) * 32, bytes([n + 1]) * 32) for n in range(7)}
    assert {pair for report in sink.reports for pair in report.pairs} == pairs
    assert {report.check for report in sink.reports} == {
        read_peppers(node.data / "secrets").check,
    }
    assert await node.stop() == 0, node.log()


async def test_what_was_held_for_a_dead_worker_is_free(node: Node, sink: Sink) -> None:
    """When all of a dead worker's events are stored the control plane is told, and not before."""
    sink.is_away = True
    await node.start("--closed=3", "--open=1")
    await node.until_metric("penstock_workers", 1)
    os.kill(node.worker_pids()[0], signal.SIGKILL)
    await until(lambda: "worker ended" in node.log(), "the worker is buried")
    assert sink.frees == []
    sink.is_away = False
    await until(lambda: sink.frees, "its end is told")
    assert sink.outcomes()["interrupted"] == 1
    [free] = sink.frees
    assert (free.epoch, free.freed, free.is_over) == (1, (), True)
    assert free.producer == (node.data / "node" / "id").read_text().strip() + "/0"


async def test_a_second_start_ships_nothing_twice(node: Node, sink: Sink) -> None:
    """A restarted node goes on where it was and keeps its id, with larger epochs."""
    await node.start("--closed=10")
    await until(lambda: len(sink.events) == 10, "shipped")
    assert await node.stop() == 0
    first_id = (node.data / "node" / "id").read_text()
    await node.start("--closed=10")
    await until(lambda: len(sink.events) == 20, "shipped")
    assert await node.stop() == 0
    assert set(sink.deliveries.values()) == {1}
    assert (node.data / "node" / "id").read_text() == first_id
    assert (node.data / "node" / "epoch").read_text() == "2\n"


async def test_a_killed_worker_is_replaced_at_once(node: Node, sink: Sink) -> None:
    """After kill -9 another worker serves, and what was open ends as interrupted, once."""
    await node.start("--closed=5", "--open=4")
    await node.until_metric("penstock_workers", 1)
    (pid,) = node.worker_pids()
    os.kill(pid, signal.SIGKILL)
    await until(lambda: sink.outcomes()["interrupted"] == 4, "interrupted requests are shipped")
    await node.until_metric("penstock_worker_restarts_total", 1)
    await node.until_metric("penstock_workers", 1)
    assert await node.metric("penstock_requests_total") == 10
    await node.until_metric("penstock_requests_in_flight", 4)
    assert node.worker_pids() != [pid]
    assert await node.stop() == 0
    assert sink.outcomes() == {"ok": 14, "interrupted": 4}


async def test_a_worker_that_always_dies_is_restarted_less_and_less_often(node: Node) -> None:
    """A worker that cannot live is tried again with pauses, and the agent stays."""
    await node.start("--die-after-s=0.05")
    await until(lambda: "pause_s=1.0" in node.log(), "pauses grow")
    assert node.log().count("worker started") <= 4
    assert await node.stop() == 0


async def test_workers_outlive_their_agent(node: Node, sink: Sink) -> None:
    """After kill -9 of the agent a new one adopts the living workers and ships on."""
    await node.start("--closed=3", "--open=1", workers=2)
    await node.until_metric("penstock_workers", 2)
    pids = node.worker_pids()
    assert len(pids) == 2
    node.signal(signal.SIGKILL)
    await node.wait()
    assert node.worker_pids() == pids
    await node.start("--closed=3", "--open=1", workers=2)
    await node.until_metric("penstock_workers", 2)
    assert node.worker_pids() == pids
    assert node.log().count("worker adopted") == 2
    assert "worker started" not in node.log()
    os.kill(pids[0], signal.SIGKILL)
    await until(lambda: "worker started" in node.log(), "an adopted worker is replaced")
    await node.until_metric("penstock_workers", 2)
    assert await node.stop() == 0
    assert sink.outcomes() == {"ok": 11, "interrupted": 1}
    assert node.worker_pids() == []


async def test_workers_with_other_settings_are_replaced(node: Node) -> None:
    """A new agent with another port lets old workers drain and starts its own."""
    await node.start("--open=1", port=18_001)
    await node.until_metric("penstock_workers", 1)
    pids = node.worker_pids()
    node.signal(signal.SIGKILL)
    await node.wait()
    await node.start("--open=1", port=18_002)
    await until(lambda: node.worker_pids() and node.worker_pids() != pids, "replaced")
    await node.until_metric("penstock_workers", 1)
    assert "worker sent away" in node.log()
    assert await node.stop() == 0


async def test_only_one_agent_runs_on_a_data_folder(node: Node, tmp_path: Path) -> None:
    """A second agent waits for a while, says who holds the folder, and fails."""
    await node.start()
    other = Node(tmp_path, node.control_url)
    other.log_path = tmp_path / "other.log"
    await other.spawn()
    assert await other.wait() == 1
    assert f"another agent (process {node.pid}) holds" in other.log()
    assert "err:node:start:data_in_use" in other.log()
    assert await node.stop() == 0


async def test_a_store_that_is_away_loses_nothing(node: Node, sink: Sink) -> None:
    """Events wait on the disk while the store is away, are counted, and arrive afterwards."""
    sink.is_away = True
    await node.start("--closed=600", "--open=2")
    segments = node.data / "journal" / "0-00000001"
    await until(lambda: len(list(segments.glob("*.journal"))) == 4, "the journal is written")
    # Each segment begins with a record of its own.
    await node.until_metric("penstock_journal_unshipped_records", 1202 + 4)
    assert (await node.metric("penstock_ship_failures_total") or 0) > 0
    assert (await node.metric("penstock_ship_lag_seconds") or 0) > 0
    assert (await node.metric("penstock_journal_unshipped_bytes") or 0) > 100_000
    sink.is_away = False
    await until(lambda: len(sink.events) == 600, "shipped")
    await node.until_metric("penstock_journal_unshipped_records", 0)
    await node.until_metric("penstock_ship_lag_seconds", 0)
    sink.is_away = True
    assert await node.stop() == 0, "the agent gives up waiting"
    assert "left for the next start" in node.log()
    sink.is_away = False
    await node.start()
    await until(lambda: len(sink.events) == 602, "the rest is shipped")
    assert await node.stop() == 0


async def test_what_does_not_drain_is_killed_and_settled(node: Node, sink: Sink) -> None:
    """A worker that ignores its drain is killed after the grace and its requests end."""
    await node.start("--open=2", "--drain=ignore", drain_grace_s=0.2)
    await node.until_metric("penstock_workers", 1)
    assert await node.stop() == 0
    assert "worker killed" in node.log()
    assert sink.outcomes() == {"interrupted": 2}


async def test_a_good_reload_reaches_the_workers_and_a_bad_one_nobody(node: Node) -> None:
    """A changed file becomes a new version, a broken one a metric, the same content nothing."""
    await node.start()
    await until(lambda: "snapshot" in node.log() or node.worker_pids(), "runs")
    await node.until_metric("penstock_snapshot_version", 1)
    await node.until_metric("penstock_workers", 1)
    node.config.write_text(CONFIG + "aliases: [{name: a, route: r}]\n")
    await node.until_metric("penstock_config_rejected", 1)
    assert "routes: no" not in node.log()
    assert "aliases[0].route: no route is named" in node.log()
    assert await node.metric("penstock_snapshot_version") == 1
    node.config.write_text(CONFIG + "# a comment\n")
    node.signal(signal.SIGHUP)
    await node.until_metric("penstock_config_rejected", 0)
    assert await node.metric("penstock_snapshot_version") == 1
    node.config.write_text(CONFIG.replace("{name: dev}", "{name: dev}, {name: b}"))
    assert await node.metric("penstock_snapshot_version") == 1
    node.config.write_text(CONFIG + "upstreams: [{name: u, endpoints: ['http://127.0.0.1:1']}]\n")
    await node.until_metric("penstock_snapshot_version", 2)
    await until(lambda: "snapshot applied slot=0 version=2" in node.log(), "confirmed")
    assert await node.stop() == 0


async def test_a_signal_makes_workers_read_secrets_again(node: Node) -> None:
    """After SIGHUP workers apply the snapshot anew although nothing in the file has changed."""
    await node.start()
    await node.until_metric("penstock_workers", 1)
    assert "snapshot applied" not in node.log()
    node.signal(signal.SIGHUP)
    await until(lambda: "snapshot applied slot=0 version=1" in node.log(), "applied again")
    assert await node.stop() == 0


async def test_a_broken_file_at_start(node: Node) -> None:
    """Without a last good snapshot a broken file ends the agent, with one it serves on."""
    node.config.write_text("version: 2\n")
    await node.spawn()
    assert await node.wait() == 1
    assert "penstock.yaml:1:10: version: is a format" in node.log()
    node.config.write_text(CONFIG)
    await node.start()
    assert await node.stop() == 0
    node.config.write_text("version: 2\n")
    await node.start()
    assert await node.metric("penstock_config_rejected") == 1
    assert await node.metric("penstock_snapshot_version") == 1
    await node.until_metric("penstock_workers", 1)
    assert await node.stop() == 0


async def test_a_busy_metrics_port_is_said(node: Node) -> None:
    """An agent that cannot listen for metrics fails with the port, before it starts workers."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        await node.spawn(metrics_port=port)
        assert await node.wait() == 1
    assert f"cannot listen on 127.0.0.1:{port}" in node.log()
    assert "worker started" not in node.log()


async def test_strangers_on_the_socket_do_no_harm(node: Node) -> None:
    """Garbage, giants, silence and impossible workers on the socket leave the node as it was."""
    await node.start()
    await node.until_metric("penstock_workers", 1)
    path = runtime_folder(node.data) / "agent.sock"
    nobody = Hello(slot=0, epoch=99, pid=2**31 - 1, snapshot_version=1, is_draining=False)
    stats = Stats((), (), is_ready=True)
    for content in (
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\x04abcd",
        encode_message(stats),
        encode_message(nobody),
        encode_message(msgspec.structs.replace(nobody, pid=-1)),
        encode_message(msgspec.structs.replace(nobody, pid=2**40)),
    ):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(content)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
    assert await node.metric("penstock_workers") == 1
    assert await node.stop() == 0
    assert not path.parent.exists()


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


async def test_workers_lease_limits(node: Node, sink: Sink) -> None:
    """Workers share a limit; what a worker has in flight is free when it is dead; use is told."""
    await node.start()
    await node.until_metric("penstock_workers", 1)
    permits, requests = Bucket("org/c:o", 3, 0, 1), Bucket("org/r:o", 10, 500, 121)
    one, two = Caller(node), Caller(node)
    try:
        await one.connect(901)
        now_ms = (await one.hear(LimitsClock)).base_ms + time.monotonic() * 1_000
        assert abs(now_ms - time.time() * 1_000) < 5_000
        await two.connect(902)
        leases = (await one.ask(requests, 6, "1")).leases
        assert leases is not None
        assert leases[0].remaining == 4
        assert (await two.ask(requests, 6, "2")).shortage is not None
        assert (await one.ask(permits, 3, "3")).leases is not None
        assert (await two.ask(permits, 1, "4")).shortage is not None
        await one.end()
        await until(lambda: f"pid={one.process.pid} how" in node.log(), "the worker is buried")
        assert (await two.ask(permits, 3, "5")).leases is not None
        assert (await two.ask(requests, 6, "6")).shortage is not None
        uses = {("org/c:o", 3), ("org/r:o", 6)}
        await until(lambda: uses <= {(use.bucket, use.used) for use in sink.uses}, "use is told")
    finally:
        await one.end()
        await two.end()
    assert await node.stop() == 0, node.log()


async def test_nodes_share_limits(node: Node, sink: Sink, tmp_path: Path) -> None:
    """Two nodes share a limit by Redis; when that is killed, each gives the rest of its share."""
    other = Node(tmp_path / "other", sink.url)
    other.data.mkdir()
    other.config.write_text(CONFIG)
    permits = Bucket("org/c:o", 10, 0, 1)
    callers = []
    try:
        with run_redis() as path:
            for each in (node, other):
                await each.start(limits_url=f"unix://{path}")
                callers.append(Caller(each))
                await callers[-1].connect(900 + len(callers))
                await callers[-1].hear(LimitsClock)
            one, two = callers
            await node.until_metric("penstock_limits_nodes", 2)
            assert (await one.ask(permits, 1, "1")).leases is not None
        await node.until_metric("penstock_limits_authority_up", 0)
        await other.until_metric("penstock_limits_authority_up", 0)
        assert (await one.ask(permits, 5, "2")).shortage is not None
        assert (await one.ask(permits, 4, "3")).leases is not None
        assert (await two.ask(permits, 6, "4")).shortage is None
        assert (await two.ask(permits, 5, "5")).leases is not None
        assert await other.metric("penstock_limits_share_leases_total") == 1
        assert await other.metric("penstock_limits_unanswered_total") == 1
    finally:
        for caller in callers:
            await caller.end()
        await other.clean_up()


@pytest.mark.parametrize("is_damaged", [False, True])
async def test_a_killed_agent_forgets_nothing_of_limits(node: Node, *, is_damaged: bool) -> None:
    """The next agent counts on from what was leased; if that is damaged, as if all had been."""
    await node.start()
    await node.until_metric("penstock_workers", 1)
    [worker] = node.worker_pids()
    permits, requests = Bucket("org/c:o", 3, 0, 1), Bucket("org/r:o", 10, 500, 121)
    one = Caller(node)
    try:
        await one.connect(901)
        base_ms = (await one.hear(LimitsClock)).base_ms
        await one.ask(requests, 6, "1")
        await one.ask(permits, 2, "2")
        journal = FakeJournal(node.data / "journal", 0, 901)
        node.signal(signal.SIGKILL)
        await node.wait()
        await one.disconnect()
        if is_damaged:
            (node.data / "node" / "limits").write_bytes(b"nonsense" * 100)
        await node.spawn()
        await one.connect(901)
        assert is_damaged or (await one.hear(LimitsClock)).base_ms == base_ms
        shortage = (await one.ask(requests, 5, "3")).shortage
        assert shortage is not None
        assert shortage.remaining == (0 if is_damaged else 4)
        assert (await one.ask(permits, 2, "4")).shortage is not None
        one.tell(PermitsHeld(((permits, 1),)))
        # Other workers are in doubt still when the counts were lost.
        await until(lambda: "worker adopted" in node.log(), "the other is there")
        os.kill(worker, signal.SIGKILL)
        await until(lambda: "worker ended" in node.log(), "the other is buried")
        assert (await one.ask(permits, 2, "5")).leases is not None
        journal.die()
    finally:
        await one.end()


async def test_health_and_unknown_paths(node: Node) -> None:
    """Liveness, readiness, unknown paths and wrong methods have their own answers."""
    await node.start()
    await node.until_metric("penstock_workers_ready", 1)
    base = f"http://127.0.0.1:{node.metrics_port}"
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"{base}/health/live")).status_code == 200
        answer = await client.get(f"{base}/health/ready")
        assert answer.status_code == 200
        readiness = answer.json()
        assert readiness["feed"].pop("age_s") >= 0
        assert readiness == {
            "workers": 1,
            "workers_ready": 1,
            "snapshot_version": 1,
            "is_config_rejected": False,
            "feed": {"is_lost": False, "lost_since": None},
            "limits": {"is_authority_up": True, "nodes": 1},
        }
        assert (await client.get(f"{base}/")).text.startswith("# HELP")
        assert (await client.get(f"{base}/nothing")).status_code == 404
        assert (await client.post(f"{base}/metrics")).status_code == 405
        assert (await client.head(f"{base}/metrics")).text == ""
    assert await node.stop() == 0


async def test_journals_of_dead_workers_are_found_at_start(node: Node, sink: Sink) -> None:
    """What workers of an earlier life left is shipped by the next agent without their help."""
    journal = FakeJournal(node.data / "journal", 0, 41)
    journal.write(make_open("left-open"))
    journal.die()
    await node.start()
    await until(lambda: "left-open" in sink.events, "shipped")
    assert (node.data / "node" / "epoch").read_text() == "42\n"
    assert await node.stop() == 0
    done = json.loads((node.data / "shipper" / "0-00000041.json").read_text())
    assert done["done_at_ns"] > 0


async def test_every_worker_is_told_of_credentials(node: Node) -> None:
    """Each worker is told behind its Hello which credentials are open, and so is the next one."""
    await node.start(workers=2)
    await node.until_metric("penstock_workers", 2)
    logs = [node.data / "logs" / f"worker-{slot}.log" for slot in (0, 1)]

    def told(times: int) -> bool:
        return all(log.read_text().count("credentials {} last=True") == times for log in logs)

    await until(lambda: told(1), "told")
    assert await node.metric("penstock_credentials_open") == 0
    for pid in node.worker_pids():
        os.kill(pid, signal.SIGKILL)
    await until(lambda: told(2), "told again")
    assert await node.stop() == 0


async def test_a_bad_kek_setting_is_said(node: Node) -> None:
    """An agent whose setting names no keeper fails with what to write."""
    await node.spawn(kek="penstock/transit")
    assert await node.wait() == 1
    assert "write file:PATH, vault:MOUNT/KEY or aws:KEY-ID-OR-ARN" in node.log()
