"""Nodes that share limits through a real server: while it is there, hangs, is gone, or is empty."""

import contextlib
import os
import random
import signal
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from tests.fakes.redis_server import run_redis

from penstock.contract.limits import Ask, Bucket, Lease, Shortage
from penstock.limits.authority import AuthorityUnavailableError, Header, MemoryAuthority
from penstock.limits.circuit import ABSENT_S, CALM_LOOKS, LiveNodes
from penstock.limits.redis_authority import RedisAuthority
from penstock.limits.shared_authority import SharedAuthority
from penstock.limits.slots import Slots
from penstock.node.limits_setup import connect
from penstock.node.settings import AgentSettings

REQUESTS = Bucket("org/requests:o", 10, 500, 121)
PERMITS = Bucket("org/flying:o", 10, 0, 1)
TIMEOUT_S = 0.5
"""Longer than an agent's: this machine is busy."""
PATIENCE_S = 20.0
"""Where the server answers, however late."""


class World:
    """A server, nodes, and a clock that all of them know."""

    def __init__(self, socket: Path, folder: Path, timeout_s: float) -> None:
        """Begin at a time at which nothing of before counts."""
        self.socket = socket
        self.folder = folder
        self.timeout_s = timeout_s
        self.now_ms = 1_000_000_000
        self.drifts: list[int] = []
        self.count = 0
        self.clients: list[Redis] = []

    def node(self, name: str, url: str = "") -> SharedAuthority:
        """Start a node's agent, or the next one of that node."""
        settings = AgentSettings(
            data_path="x", control_url="http://x", limits_url=url or f"unix://{self.socket}"
        )
        client = connect(settings)
        assert client is not None
        self.clients.append(client)
        slots = Slots(self.folder / name)
        return SharedAuthority(
            MemoryAuthority(lambda: self.now_ms, slots),
            RedisAuthority(
                client,
                timeout_s=self.timeout_s,
                patience_s=self.timeout_s,
                clock_ms=lambda: self.now_ms,
            ),
            node=name,
            nodes=LiveNodes(slots.header[Header.LIVE_NODES : Header.LIVE_NODES_AT_MS + 1]),
            clock_ms=lambda: self.now_ms,
            on_drift=self.drifts.append,
        )

    async def nodes(self, *names: str) -> list[SharedAuthority]:
        """Start nodes that have been at work for longer than any window."""
        nodes = [self.node(name) for name in names]
        for node in nodes:
            await node.look()
        self.now_ms += 62_000
        for node in nodes * 2:
            await node.look()
        return nodes

    async def take(
        self, node: SharedAuthority, bucket: Bucket, least: int, holder: str = "0-1"
    ) -> int | None:
        """Take so much of a bucket and return it; or None when it has too little."""
        self.count += 1
        answer = await node.take(
            [Ask(bucket, least, least)], take_id=str(self.count), holder=holder
        )
        return None if isinstance(answer, Shortage) else answer[0].amount

    async def take_all(self, node: SharedAuthority, bucket: Bucket, holder: str = "0-1") -> int:
        """Take what a node gives, one at a time, and return how many that were."""
        for given in range(100):
            if await self.take(node, bucket, 1, holder) is None:
                return given
        pytest.fail("there is no end to it")

    async def fail(self, node: SharedAuthority) -> None:
        """Have a node find out that the server does not answer."""
        for _ in range(10):
            await node.look()
            if not node.is_up:
                return
        pytest.fail("it goes on asking")

    async def recover(self, *nodes: SharedAuthority) -> None:
        """Have nodes find out that it answers again."""
        for node in nodes * CALM_LOOKS:
            await node.look()
        assert all(node.is_up for node in nodes)


@pytest.fixture(scope="module")
def socket() -> Iterator[Path]:
    """A server."""
    with run_redis() as path:
        yield path


@pytest.fixture
async def client(socket: Path) -> AsyncIterator["Redis"]:
    """A connection to an empty server."""
    client = Redis(unix_socket_path=str(socket))
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
async def world(
    client: "Redis", socket: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[World]:
    """A world with an empty server."""
    timeout_s = TIMEOUT_S if "hung" in request.fixturenames else PATIENCE_S
    world = World(socket, tmp_path, timeout_s)
    assert await client.dbsize() == 0
    yield world
    for each in world.clients:
        await each.aclose(close_connection_pool=True)


@pytest.fixture
async def hung(client: "Redis") -> AsyncIterator[int]:
    """The process id of the server, which runs on afterwards."""
    pid = int((await client.info("server"))["process_id"])
    yield pid
    os.kill(pid, signal.SIGCONT)


async def test_nodes_share_a_limit(world: World) -> None:
    """What one node has leased no other can, to the last one; what comes back, everybody can."""
    a, b = await world.nodes("a", "b")
    assert await world.take_all(a, REQUESTS) + await world.take_all(b, REQUESTS) == 10
    now = world.now_ms // 500
    await a.give_back(REQUESTS, Lease(4, now, 0), 4, holder="0-1")
    assert await world.take(b, REQUESTS, 5) is None
    assert await world.take(b, REQUESTS, 4) == 4


async def test_a_server_that_hangs_holds_nobody_up(world: World, hung: int) -> None:
    """For a second nobody can decide, then nobody waits: a node gives what its share has left."""
    a, b = await world.nodes("a", "b")
    assert await world.take(a, REQUESTS, 3) == 3
    assert await world.take(b, REQUESTS, 1) == 1
    os.kill(hung, signal.SIGSTOP)
    began_s = time.monotonic()
    while a.is_up:
        with contextlib.suppress(AuthorityUnavailableError):
            assert await world.take(a, PERMITS, 1) == 1
            assert not a.is_up, "it may be giving all to others"
    assert time.monotonic() - began_s >= ABSENT_S
    took_s = []
    for _ in range(3):
        began_s = time.monotonic()
        await world.take(a, PERMITS, 1)
        took_s.append(time.monotonic() - began_s)
    assert min(took_s) < TIMEOUT_S, "each of them has waited"
    await world.fail(b)
    assert (await world.take_all(a, REQUESTS), await world.take_all(b, REQUESTS)) == (2, 4)
    assert (a.share_count, b.share_count) == (4 + 2, 4)


async def test_what_was_given_without_the_server_is_told_to_it(world: World, hung: int) -> None:
    """When the server is back it counts what each node has given from its share meanwhile."""
    a, b = await world.nodes("a", "b")
    os.kill(hung, signal.SIGSTOP)
    await world.fail(a)
    await world.fail(b)
    assert await world.take(a, REQUESTS, 5) == 5
    assert await world.take(b, REQUESTS, 2) == 2
    assert await world.take(b, PERMITS, 3, "1-1") == 3
    await a.give_back(REQUESTS, Lease(1, world.now_ms // 500, 0), 1, holder="0-1")
    os.kill(hung, signal.SIGCONT)
    await world.recover(a, b)
    assert await world.take_all(b, REQUESTS) == 10 - 4 - 2
    assert await world.take_all(a, PERMITS) == 10 - 3


async def test_an_emptied_server_is_not_believed_for_a_window(
    world: World, client: "Redis"
) -> None:
    """When the server has lost everything, nodes give from their shares until a window is over."""
    a, b = await world.nodes("a", "b")
    assert await world.take(a, REQUESTS, 4) == 4
    assert await world.take(a, PERMITS, 6) == 6
    await client.flushall()
    assert await world.take_all(a, REQUESTS) == 1
    assert not a.is_up
    await world.recover(a)
    assert await world.take_all(b, REQUESTS) == 5
    await world.recover(a, b)
    assert await world.take_all(a, REQUESTS) == await world.take_all(b, REQUESTS) == 0
    assert await world.take_all(a, PERMITS) == 0
    world.now_ms += 31_000
    await a.look()
    await b.look()
    assert await world.take_all(b, PERMITS) == 10 - 6
    world.now_ms += 30_500
    assert await world.take_all(a, REQUESTS) == 10


async def test_what_is_owed_is_told_before_the_server_is_believed(
    world: World, client: "Redis"
) -> None:
    """When a new server's window is over, a node asks it only once it was told what it is owed."""
    a, b = await world.nodes("a", "b")
    await client.flushall()
    await world.take(a, REQUESTS, 1)
    await world.recover(a, b)
    world.now_ms += 60_900
    assert await world.take_all(a, REQUESTS) == 5 - 1
    world.now_ms += 200
    assert await world.take_all(a, REQUESTS) == 1, "what it took first does not count any more"
    await a.look()
    assert await world.take_all(a, REQUESTS) + await world.take_all(b, REQUESTS) == 10 - 5


async def test_buckets_are_taken_together_while_the_server_is_new(world: World) -> None:
    """Some buckets from the server, some from the share: still all or nothing."""
    long = Bucket("org/daily:o", 10, 720_000, 121)
    a, _ = await world.nodes("a", "b")
    asks = [Ask(long, 1, 1), Ask(REQUESTS, 4, 4), Ask(PERMITS, 1, 1)]
    given = await a.take(asks, take_id="x", holder="0-1")
    assert isinstance(given, tuple)
    assert [(lease.amount, lease.remaining) for lease in given] == [(1, 4), (4, 6), (1, 9)]
    assert await world.take(a, long, 4) == 4
    refused = await a.take(asks, take_id="y", holder="0-1")
    assert isinstance(refused, Shortage)
    assert (refused.index, refused.remaining) == (0, 0)
    assert await world.take_all(a, REQUESTS) == 6
    assert await world.take_all(a, PERMITS) == 9


async def test_more_than_a_share_cannot_be_decided(world: World, hung: int) -> None:
    """What a limit could give but a share cannot is not refused for ever."""
    a, _ = await world.nodes("a", "b")
    os.kill(hung, signal.SIGSTOP)
    await world.fail(a)
    with pytest.raises(AuthorityUnavailableError):
        await world.take(a, REQUESTS, 6)
    answer = await a.take([Ask(REQUESTS, 11, 11)], take_id="never", holder="0-1")
    assert answer == Shortage(0, 5, None)


async def test_without_ever_a_server_nobody_knows_a_share(world: World) -> None:
    """A node that never knew how many it shares with gives nothing."""
    alone = world.node("alone", "redis://127.0.0.1:1/0")
    await alone.look()
    assert not alone.is_up
    with pytest.raises(AuthorityUnavailableError):
        await world.take(alone, REQUESTS, 1)


async def test_the_next_agent_goes_on(world: World) -> None:
    """A killed agent's successor keeps permits alive, and knows its share without the server."""
    a, b = await world.nodes("a", "b")
    assert await world.take(a, PERMITS, 4) == 4
    assert await world.take(a, REQUESTS, 4) == 4
    a = world.node("a")
    for _ in range(6):
        world.now_ms += 10_001
        await a.look()
        await b.look()
    assert await world.take_all(b, PERMITS) == 6
    await a.forget("0-1")
    assert await world.take_all(b, PERMITS) == 4
    lost = world.node("a", "redis://127.0.0.1:1/0")
    await world.fail(lost)
    assert await world.take_all(lost, PERMITS) == 5


async def test_an_answer_that_nobody_saw_strands_no_permits(
    world: World, client: "Redis", hung: int
) -> None:
    """Permits taken by a question that was given up are free again when all is well."""
    a, b = await world.nodes("a", "b")
    assert await world.take(a, PERMITS, 1) == 1
    os.kill(hung, signal.SIGSTOP)
    with pytest.raises(AuthorityUnavailableError):
        await world.take(a, PERMITS, 2)  # the server counts them when it goes on
    os.kill(hung, signal.SIGCONT)
    assert await client.ping()
    world.now_ms += 10_001
    await a.look()
    assert await world.take_all(b, PERMITS) == 9


async def test_the_time_is_the_servers(world: World) -> None:
    """A node learns how far its clock is off."""
    a = world.node("a")
    await a.look()
    assert world.drifts == [0]


def test_a_password_is_not_in_the_url() -> None:
    """Settings with a password in them are refused without saying it."""
    settings = AgentSettings(
        data_path="x", control_url="http://x", limits_url="redis://u:hunter2@h/0"
    )
    with pytest.raises(Exception, match="limits_password") as caught:
        connect(settings)
    assert "hunter2" not in str(caught.value)


def test_a_password_comes_from_its_reference(tmp_path: Path) -> None:
    """The password is read from where the settings say, and is in no representation."""
    (tmp_path / "password").write_text("hunter2\n")
    settings = AgentSettings(
        data_path="x",
        control_url="http://x",
        limits_url="rediss://user@h:1/0",
        limits_password=f"file:{tmp_path}/password",
    )
    client = connect(settings)
    assert client is not None
    assert client.connection_pool.connection_kwargs["password"] == "hunter2"
    assert client.connection_pool.connection_kwargs["username"] == "user"
    assert "hunter2" not in repr(client)


class CutAuthority(RedisAuthority):
    """A way to the server that can be cut."""

    world: "Outages"

    async def _run(self, script: Any, keys: list[str], arguments: list[Any]) -> Any:
        if self.world.is_down:
            raise ConnectionError
        return await super()._run(script, keys, arguments)


class Outages:
    """Three nodes that use all they get, and a server that is away or emptied now and then."""

    BUCKET = Bucket("org/requests:o", 30, 250, 8)
    PERMITS = Bucket("org/flying:o", 12, 0, 1)
    NODES = ("a", "b", "c")

    def __init__(self, client: "Redis", folder: Path, seed: int) -> None:
        """Everything happens by one seed."""
        self.draw = random.Random(seed)
        self.client = client
        self.folder = folder
        self.now_ms = 1_000_000_000
        self.is_down = False
        self.count = 0
        self.used: list[int] = []
        self.flying: list[str] = []
        self.most_flying = 0

    def start(self, name: str) -> SharedAuthority:
        """Start a node's agent."""
        slots = Slots(self.folder / name)
        server = CutAuthority(self.client, timeout_s=PATIENCE_S, clock_ms=lambda: self.now_ms)
        server.world = self
        return SharedAuthority(
            MemoryAuthority(lambda: self.now_ms, slots),
            server,
            node=name,
            nodes=LiveNodes(slots.header[Header.LIVE_NODES : Header.LIVE_NODES_AT_MS + 1]),
            clock_ms=lambda: self.now_ms,
            on_drift=lambda _: None,
        )

    async def run(self, steps: int, *, has_outages: bool) -> None:
        """Let time pass and nodes be busy."""
        nodes = {name: self.start(name) for name in self.NODES}
        look_ms = 0
        for step in range(steps):
            self.now_ms += self.draw.choice((0, 0, 5, 20, 60))
            if self.now_ms >= look_ms or step < 2:
                look_ms = self.now_ms + 1_000
                for node in nodes.values():
                    await node.look()
            if step < 10:
                self.now_ms += 5_000  # all nodes are known, and the server is trusted
                continue
            name = self.draw.choice(self.NODES)
            chance = self.draw.random()
            if has_outages and chance < 0.01:
                self.is_down = not self.is_down
            elif has_outages and chance < 0.014:
                await self.client.flushall()
            elif chance < 0.02 and not self.is_down:
                nodes[name] = self.start(name)
                await nodes[name].look()
            elif chance < 0.4 and name in self.flying:
                self.flying.remove(name)
                await nodes[name].give_back(self.PERMITS, Lease(1, 0, 0), 1, holder="0-1")
            else:
                await self.take(nodes[name], name)

    async def take(self, node: SharedAuthority, name: str) -> None:
        """Take something, and use all of it at once."""
        self.count += 1
        bucket = self.draw.choice((self.BUCKET, self.PERMITS))
        asks = [Ask(bucket, 1, 1 if bucket.is_permits else self.draw.randint(1, 6))]
        try:
            answer = await node.take(asks, take_id=f"{name}{self.count}", holder="0-1")
        except AuthorityUnavailableError:
            return
        if isinstance(answer, Shortage):
            return
        if bucket.is_permits:
            self.flying += [name] * answer[0].amount
            self.most_flying = max(self.most_flying, len(self.flying))
        else:
            self.used += [self.now_ms] * answer[0].amount

    def most_used(self) -> int:
        """Return the most that any stretch of a window's length holds."""
        length_ms = self.BUCKET.sub_window_ms * self.BUCKET.count
        return max(
            bisect_left(self.used, at + length_ms) - bisect_left(self.used, at) for at in self.used
        )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("has_outages", [False, True])
async def test_no_more_is_given_than_is_documented(
    client: "Redis", tmp_path: Path, seed: int, *, has_outages: bool
) -> None:
    """The limit while the server is there; with outages limit x (2 - 1 / nodes) at most."""
    world = Outages(client, tmp_path, seed)
    await world.run(1_500, has_outages=has_outages)
    nodes = len(world.NODES)
    for most, limit in (
        (world.most_used(), world.BUCKET.limit),
        (world.most_flying, world.PERMITS.limit),
    ):
        assert 0 < most <= (limit * (2 * nodes - 1) // nodes if has_outages else limit)
