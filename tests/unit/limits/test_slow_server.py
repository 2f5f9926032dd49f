"""A server of limits that is slow is not one that is away, in virtual time."""

import asyncio
import random
from pathlib import Path

import pytest
from tests.fakes.effort import tries
from tests.fakes.limits_server import ServerOverWay, Way
from tests.fakes.limits_world import NODES, WINDOWED, Node, World, draw_limits
from tests.fakes.virtual_loop import run_virtual

from penstock.contract.limits import Ask, Bucket
from penstock.limits.authority import AuthorityUnavailableError, MemoryAuthority
from penstock.limits.circuit import ABSENT_S, CALM_LOOKS, LiveNodes
from penstock.limits.redis_authority import AuthoritySlowError
from penstock.limits.shared_authority import SharedAuthority
from penstock.node.limit_counts import LimitCounts

LIMIT = 10
REQUESTS = Bucket("org/requests:o", LIMIT, 500, 121)


class Pair:
    """Two nodes, of which one's way to the server is at will. To be made within a loop."""

    def __init__(self, authority_type: type[SharedAuthority] = SharedAuthority) -> None:
        """See the class."""
        self.way = Way()
        self.drifts: list[int] = []
        self.ahead_ms = 0
        """The server's time, before that of nodes."""
        self._server = MemoryAuthority(self._server_ms)
        self._type = authority_type
        self._count = 0
        self.one = self.start(self.way)
        self.other = self.start(Way())

    def start(self, way: Way) -> SharedAuthority:
        """Start an agent, of a node that knows that there are two."""
        nodes = LiveNodes(memoryview(bytearray(16)).cast("q"))
        nodes.see(2, 0)
        return self._type(
            MemoryAuthority(_now_ms),
            ServerOverWay(self._server, way, self._server_ms, 2),
            node=f"node{self._count}",
            nodes=nodes,
            clock_ms=_now_ms,
            on_drift=self.drifts.append,
        )

    async def take_all(self, node: SharedAuthority) -> int | None:
        """Take one at a time as long as something is given; None when nobody can decide."""
        for given in range(100):
            self._count += 1
            try:
                answer = await node.take(
                    [Ask(REQUESTS, 1, 1)], take_id=str(self._count), holder="0-1"
                )
            except AuthorityUnavailableError:
                return given or None
            if not isinstance(answer, tuple):
                return given
        pytest.fail("there is no end to it")

    def _server_ms(self) -> int:
        return _now_ms() + self.ahead_ms


def _now_ms() -> int:
    return int(asyncio.get_running_loop().time() * 1_000) + 1_000_000_000


def test_a_slow_answer_is_waited_for() -> None:
    """Answers that take longer than a request waits are taken: nothing is given twice."""

    async def run() -> None:
        pair = Pair()
        await pair.one.look()
        await pair.other.look()
        pair.way.delay_s = lambda: 0.1
        assert await pair.take_all(pair.other) == LIMIT
        assert await pair.take_all(pair.one) == 0
        assert pair.one.is_up

    run_virtual(run())


def test_nobody_decides_while_the_server_may_be_slow() -> None:
    """Without an answer nothing is given for a second of waiting, then the share."""

    async def run() -> None:
        pair = Pair()
        await pair.one.look()
        await pair.other.look()
        pair.way.delay_s = lambda: 60.0
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        given = None
        while given is None:
            given = await pair.take_all(pair.one)
        assert loop.time() - began_s == pytest.approx(ABSENT_S)
        assert given == LIMIT // 2
        assert not pair.one.is_up

    run_virtual(run())


def test_many_who_wait_at_once_prove_no_more_than_one() -> None:
    """However many questions time out together, only the time counts that they waited."""

    async def run() -> None:
        pair = Pair()
        await pair.one.look()
        pair.way.delay_s = lambda: 60.0
        given = await asyncio.gather(*(pair.take_all(pair.one) for _ in range(50)))
        assert given == [None] * 50
        pair.way.delay_s = lambda: 0.0
        assert await pair.take_all(pair.one) == LIMIT
        assert pair.one.is_up

    run_virtual(run())


def test_a_refused_server_is_away_at_once() -> None:
    """When nobody is there to ask, the share is given without any waiting."""

    async def run() -> None:
        pair = Pair()
        await pair.one.look()
        pair.way.is_refused = True
        began_s = asyncio.get_running_loop().time()
        assert await pair.take_all(pair.one) == LIMIT // 2
        assert asyncio.get_running_loop().time() == began_s

    run_virtual(run())


BRIEF = Bucket("org/brief:o", LIMIT, 50, 20)
"""Of a second."""
HUNG_S = 30.0


class Asker:
    """Asks a node for one after the other, and notes what becomes of it. To be made in a loop."""

    def __init__(self, pair: Pair, node: SharedAuthority, name: str) -> None:
        """See the class."""
        self._pair, self._node, self._name = pair, node, name
        self.given_s: list[float] = []
        self.undecided_s: list[float] = []
        self.longest_s = 0.0

    async def ask_until(self, end_s: float) -> None:
        """Ask fifty times a second at most."""
        loop = asyncio.get_running_loop()
        count = 0
        while (began_s := loop.time()) < end_s:
            count += 1
            ask = Ask(BRIEF, 1, 1)
            try:
                answer = await self._node.take([ask], take_id=f"{self._name}{count}", holder="0-1")
            except AuthorityUnavailableError:
                self.undecided_s.append(loop.time())
            else:
                if isinstance(answer, tuple):
                    self.given_s.append(loop.time())
            self.longest_s = max(self.longest_s, loop.time() - began_s)
            await asyncio.sleep(0.02)


def _most_in_a_second(given_s: list[float]) -> int:
    return max(sum(first <= other < first + 1.0 for other in given_s) for first in given_s)


def test_a_server_that_hangs_for_30_s_costs_a_second() -> None:
    """Then nodes give from shares until it is back, and no later second holds too much."""

    async def run() -> None:
        pair = Pair()
        loop = asyncio.get_running_loop()
        hung_s, back_s = 5.0, 5.0 + HUNG_S
        end_s = back_s + 10.0

        def delay_s() -> float:
            return back_s - loop.time() if hung_s <= loop.time() < back_s else 0.0

        pair.way.delay_s = delay_s
        nodes = [pair.one, pair.start(pair.way)]
        beats = [asyncio.ensure_future(node.run()) for node in nodes]
        await asyncio.sleep(0.01)
        askers = [Asker(pair, node, f"{index}-") for index, node in enumerate(nodes)]
        await asyncio.gather(*(asker.ask_until(end_s) for asker in askers))
        for beat in beats:
            beat.cancel()
        for node, asker in zip(nodes, askers, strict=True):
            assert node.is_up
            assert asker.longest_s <= 0.25 + 0.001
            assert asker.undecided_s
            assert all(hung_s <= at <= hung_s + ABSENT_S + 0.5 for at in asker.undecided_s)
            during = sum(hung_s + 2 <= at < back_s for at in asker.given_s)
            assert during > 0.9 * (HUNG_S - 2) * LIMIT / 2
        given_s = [at for asker in askers for at in asker.given_s]
        assert _most_in_a_second(given_s) <= LIMIT * 3 // 2
        assert _most_in_a_second([at for at in given_s if hung_s + 2 <= at < back_s]) <= LIMIT
        after = [at for at in given_s if at >= end_s - 5.0]
        assert len(after) > 0.9 * 5 * LIMIT
        assert _most_in_a_second(after) <= LIMIT

    run_virtual(run())


@pytest.mark.parametrize("is_refused", [False, True])
def test_a_new_agent_gives_nothing_before_it_knows(*, is_refused: bool) -> None:
    """An agent gives from its share when its server is known to be away, and not before."""

    async def run() -> None:
        pair = Pair()
        assert await pair.take_all(pair.one) is None
        pair.way.delay_s, pair.way.is_refused = lambda: 60.0, is_refused
        looking = asyncio.ensure_future(pair.one.look())
        await asyncio.sleep(0.01 if is_refused else ABSENT_S * 0.9)
        assert looking.done() is is_refused
        if not is_refused:
            assert await pair.take_all(pair.one) is None
        await looking
        assert await pair.take_all(pair.one) == LIMIT // 2

    run_virtual(run())


def test_a_server_that_stays_too_slow_is_not_asked() -> None:
    """Looks that are answered later than takings may wait bring nobody back to it."""

    async def run() -> None:
        pair = Pair()
        await pair.one.look()
        pair.way.is_refused = True
        await pair.one.look()
        pair.way.is_refused, pair.way.delay_s = False, lambda: 0.2
        for _ in range(2 * CALM_LOOKS):
            await pair.one.look()
        assert not pair.one.is_up
        pair.way.delay_s = lambda: 0.02
        for _ in range(CALM_LOOKS):
            await pair.one.look()
        assert pair.one.is_up

    run_virtual(run())


@pytest.mark.parametrize(("ahead_ms", "is_followed"), [(150, False), (450, True)])
def test_a_slow_answer_does_not_move_the_clock(ahead_ms: int, *, is_followed: bool) -> None:
    """The time is followed when it is off by more than the answer was under way."""

    async def run() -> None:
        pair = Pair()
        pair.ahead_ms = ahead_ms
        pair.way.delay_s = lambda: 0.2
        await pair.one.look()
        assert pair.drifts == ([ahead_ms] if is_followed else [])
        pair.way.delay_s = lambda: 0.01
        await pair.one.look()
        assert pair.drifts[-1] == ahead_ms

    run_virtual(run())


class HastyAuthority(SharedAuthority):
    """Gives from the node's share after every time-out, as if nobody were there."""

    def _fail(self, error: Exception) -> None:
        super()._fail(error)
        if isinstance(error, AuthoritySlowError):
            self._circuit.open()


def _most_used(folder: Path, seed: int, kind: type[SharedAuthority]) -> tuple[World, int]:
    """Run a world whose ways are slow at times; return it and how much was given from shares."""
    draw = random.Random(seed)
    beats: dict[Node, asyncio.Task[None]] = {}
    agents: list[SharedAuthority] = []

    def delay_s() -> float:
        chance = draw.random()
        return draw.uniform(0, 0.001 if chance < 0.9 else 0.06 if chance < 0.97 else 0.4)

    def join(world: World, node: Node, counts: LimitCounts) -> SharedAuthority:
        assert isinstance(world.authority, MemoryAuthority)
        way = Way()
        way.delay_s = delay_s

        def follow(drift_ms: int) -> None:
            if counts.time.follow(drift_ms):
                node.broker.tell_time()

        agent = kind(
            counts.authority,
            ServerOverWay(world.authority, way, world.now_ms, NODES),
            node=f"node{node.number}",
            nodes=LiveNodes(counts.live_nodes),
            clock_ms=counts.time.now_ms,
            on_drift=follow,
        )
        agents.append(agent)
        if node in beats:
            beats[node].cancel()
        beats[node] = asyncio.ensure_future(agent.run())
        return agent

    async def run() -> World:
        world = World(folder, seed, draw_limits(seed), MemoryAuthority, join=join)
        await world.run(25, per_second=100, crashes_per_minute=30)
        for beat in beats.values():
            beat.cancel()
        return world

    folder.mkdir(exist_ok=True)
    world = run_virtual(run())
    return world, sum(agent.share_count for agent in agents)


@pytest.mark.parametrize("seed", range(tries(4)))
def test_a_slow_server_gives_nothing_twice(tmp_path: Path, seed: int) -> None:
    """Whatever is late and whoever is killed, as long as answers come no window holds too much."""
    world, from_shares = _most_used(tmp_path, seed, SharedAuthority)
    for metric in WINDOWED:
        assert world.most_in_window(metric) <= world.limits[metric].limit, metric
    assert from_shares == 0
    assert len(world.admitted_ms) > 20
    assert world.crashes > 5


def test_the_simulation_sees_shares_given_too_soon(tmp_path: Path) -> None:
    """With an agent that takes slow for away, some seed exceeds a limit."""
    for seed in range(4):
        world, from_shares = _most_used(tmp_path / str(seed), seed, HastyAuthority)
        assert from_shares > 0
        if any(world.most_in_window(metric) > world.limits[metric].limit for metric in WINDOWED):
            return
    pytest.fail("none did")
