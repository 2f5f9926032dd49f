"""An agent that is ended at any await of what it does for workers, and the next one."""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import httpx
import pytest
from tests.fakes.holds_rig import HOLD, HoldsRig, until
from tests.fakes.limits_server import ServerOverWay, Way
from tests.fakes.links import make_link

from penstock.contract.limits import Ask, Bucket, Lease, Return, Shortage
from penstock.contract.node import FreeHolds, Granted, PermitsHeld, Returned, Want
from penstock.kit.clock import ManualClock
from penstock.limits.authority import Authority, MemoryAuthority
from penstock.limits.circuit import LiveNodes
from penstock.limits.shared_authority import SharedAuthority
from penstock.node.limit_counts import LimitCounts
from penstock.node.limit_uses import LimitUses
from penstock.node.limits import Broker
from penstock.node.links import Link

REQUESTS = Bucket("org/requests:k.key", 100, 500, 121)
PERMITS = Bucket("org/flying:k.key", 4, 0, 1)
WINDOW_S = 61.0
ENOUGH = 100
"""More awaits than anything has."""
SOME = 40
"""As many as the longest of them has, of what does not end by itself."""
Mode = Literal["alone", "shared", "share"]
MODES: tuple[Mode, ...] = ("alone", "shared", "share")


async def _step(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def _cancel_at(step: int, work: Awaitable[None]) -> bool:
    """Run something up to an await, end it there, and return whether it had not ended yet."""
    running = asyncio.ensure_future(work)
    await _step(step)
    is_early = running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await _step(ENOUGH)  # what is under way to others arrives
    return is_early


def _ignore(drift_ms: int) -> None:
    """There is one clock."""
    assert drift_ms == 0


class Awaited:
    """An authority that can be ended before and behind whatever it does."""

    def __init__(self, authority: Authority) -> None:
        """See the class."""
        self._authority = authority

    async def take(
        self, asks: Sequence[Ask], *, take_id: str, holder: str
    ) -> tuple[Lease, ...] | Shortage:
        """See `Authority`."""
        await asyncio.sleep(0)
        answer = await self._authority.take(asks, take_id=take_id, holder=holder)
        await asyncio.sleep(0)
        return answer

    async def give_back(self, bucket: Bucket, lease: Lease, amount: int, *, holder: str) -> None:
        """See `Authority`."""
        await asyncio.sleep(0)
        await self._authority.give_back(bucket, lease, amount, holder=holder)
        await asyncio.sleep(0)

    async def forget(self, holder: str) -> None:
        """See `Authority`."""
        await asyncio.sleep(0)
        await self._authority.forget(holder)
        await asyncio.sleep(0)

    async def restate(self, holder: str, permits: Mapping[Bucket, int]) -> None:
        """See `Authority`."""
        await asyncio.sleep(0)
        await self._authority.restate(holder, permits)
        await asyncio.sleep(0)


class Agents:
    """A node's agents, one after the other, of which each is ended where it may be.

    Args:
        folder: The node's.
        mode: It has limits of its own, a server, or a server that is away.
    """

    def __init__(self, folder: Path, mode: Mode) -> None:
        """See the class."""
        folder.mkdir()
        self._path, self._mode = folder / "limits", mode
        self.clock = ManualClock()
        self._server = MemoryAuthority(self._now_ms)
        self._way = Way()
        self._way.is_refused = mode == "share"
        self._count = 0
        self.authority: Authority
        self.broker: Broker
        self.counts: LimitCounts | None = None

    async def start(self) -> None:
        """Start the next one."""
        if self.counts is not None:
            self.counts.close()
        counts = self.counts = LimitCounts(self._path, self.clock, 1, ())
        self.authority = counts.authority
        if self._mode != "alone":
            nodes = LiveNodes(counts.live_nodes)
            nodes.see(1, self._now_ms())
            server = ServerOverWay(self._server, self._way, self._now_ms, 1)
            server.timeout_s = 60.0  # none of this is about a slow one
            self.authority = shared = SharedAuthority(
                counts.authority,
                server,
                node="node",
                nodes=nodes,
                clock_ms=counts.time.now_ms,
                on_drift=_ignore,
            )
            await shared.look()
            assert shared.is_up is (self._mode == "shared")
        self.broker = Broker(counts, Awaited(self.authority), LimitUses(), frozenset)

    async def count_free(self, bucket: Bucket) -> int:
        """Take all that is left of a bucket for another worker and return how much it was."""
        self._count += 1
        name = f"rest-{self._count}"
        took = await self.authority.take([Ask(bucket, 0, 1_000)], take_id=name, holder="1-1")
        assert isinstance(took, tuple)
        return took[0].amount

    def _now_ms(self) -> int:
        return self.clock.wall_ns() // 1_000_000


class Worker:
    """Leases, and knows what it was told that it has."""

    def __init__(self, agents: Agents) -> None:
        """Begin with nothing."""
        self._agents = agents
        self.permits = self.requests = self.sub_window = 0
        self.link: Link

    def connect(self) -> None:
        """Greet an agent, and say what it has."""
        self._writer, self.link = make_link(0, 1)
        self._agents.broker.greet(self.link)

    def tell(self) -> None:
        """Say which permits it has."""
        held = ((PERMITS, self.permits),) if self.permits else ()
        self._agents.broker.hear(self.link, PermitsHeld(held))

    def want(self) -> None:
        """Ask for three permits and forty requests."""
        asks = Ask(PERMITS, 1, 3), Ask(REQUESTS, 1, 40)
        self._agents.broker.hear(self.link, Want("1", asks))

    def listen(self) -> None:
        """Take in what it was given, if it was told."""
        for message in self._writer.messages:
            if isinstance(message, Granted) and message.leases is not None:
                permits, requests = message.leases
                self.permits, self.requests = permits.amount, requests.amount
                self.sub_window = requests.sub_window

    def give_back(self) -> None:
        """Give two permits and thirty requests back."""
        self.permits, self.requests = self.permits - 2, self.requests - 30
        returns = Return(PERMITS, 0, 2), Return(REQUESTS, self.sub_window, 30)
        self._agents.broker.hear(self.link, Returned(returns))


async def _begin(folder: Path, mode: Mode) -> tuple[Agents, Worker]:
    """Start an agent, and a worker that wants leases."""
    agents = Agents(folder, mode)
    await agents.start()
    worker = Worker(agents)
    worker.connect()
    worker.want()
    return agents, worker


async def _lease(folder: Path, mode: Mode) -> tuple[Agents, Worker]:
    """Start an agent, and a worker that has its leases."""
    agents, worker = await _begin(folder, mode)
    await agents.broker.close()
    worker.listen()
    return agents, worker


async def _end_agent(agents: Agents, step: int) -> bool:
    """End an agent at an await of what it is doing, start the next, and return whether it did."""
    is_early = await _cancel_at(step, agents.broker.close())
    await agents.start()
    return is_early


async def _expect_exact(agents: Agents, worker: Worker, *, lost: int) -> None:
    """Fail unless all is there but what the worker has.

    Args:
        agents: Who count.
        worker: Whom they leased to.
        lost: Requests that may count as used, until a window has passed.
    """
    await agents.broker.close()
    assert await agents.count_free(PERMITS) == PERMITS.limit - worker.permits
    most = REQUESTS.limit - worker.requests
    assert most - lost <= await agents.count_free(REQUESTS) <= most
    agents.clock.advance(WINDOW_S)
    assert await agents.count_free(REQUESTS) == REQUESTS.limit


@pytest.mark.parametrize("is_dead", [False, True])
@pytest.mark.parametrize("mode", MODES)
async def test_an_agent_ended_in_a_taking_gives_nothing_twice(
    tmp_path: Path, mode: Mode, *, is_dead: bool
) -> None:
    """At whichever await: permits are free or the worker's own, windows heal when they pass."""
    told = set()
    for step in range(ENOUGH):
        agents, worker = await _begin(tmp_path / str(step), mode)
        is_early = await _end_agent(agents, step)
        worker.listen()
        told.add(worker.permits)
        if is_dead:
            worker.permits = 0
            agents.broker.bury(0, 1)
        else:
            worker.connect()
            worker.tell()
        await _expect_exact(agents, worker, lost=40 - worker.requests)
        if not is_early:
            break
    assert told == {0, 3}


@pytest.mark.parametrize("mode", MODES)
async def test_an_agent_ended_while_leases_come_back_loses_none(tmp_path: Path, mode: Mode) -> None:
    """At whichever await: what was given back counts once at most, permits exactly."""
    for step in range(ENOUGH):
        agents, worker = await _lease(tmp_path / str(step), mode)
        worker.give_back()
        is_early = await _end_agent(agents, step)
        worker.connect()
        worker.tell()
        await _expect_exact(agents, worker, lost=30)
        if not is_early:
            break
    assert step > 0


@pytest.mark.parametrize("mode", MODES)
async def test_an_agent_ended_while_it_is_told_of_permits_hears_of_them_again(
    tmp_path: Path, mode: Mode
) -> None:
    """At whichever await: the next agent is told the same, and counts exactly that."""
    for step in range(ENOUGH):
        agents, worker = await _lease(tmp_path / str(step), mode)
        worker.permits = 1  # the return of the others was lost
        worker.tell()
        is_early = await _end_agent(agents, step)
        worker.connect()
        worker.tell()
        await _expect_exact(agents, worker, lost=0)
        if not is_early:
            break
    assert step > 0


async def test_an_agent_ended_while_a_worker_is_forgotten_forgets_it_later(tmp_path: Path) -> None:
    """At whichever await of its watch: permits of the dead are free when the next has looked."""
    for step in range(SOME):
        agents, worker = await _lease(tmp_path / str(step), "alone")
        worker.permits = 0
        await agents.start()
        await _cancel_at(step, agents.broker.run())
        await agents.start()
        watching = asyncio.ensure_future(agents.broker.run())
        await until(partial(_has_forgotten, agents))
        await _cancel_at(0, watching)
        await _expect_exact(agents, worker, lost=0)


def _has_forgotten(agents: Agents) -> bool:
    return agents.counts is not None and not agents.counts.authority.holders


async def test_an_agent_ended_while_it_holds_money_holds_it_once(tmp_path: Path) -> None:
    """At whichever await: the worker asks the next agent under the same name and has one hold."""
    heard = False
    for step in range(ENOUGH):
        rig = HoldsRig(tmp_path)
        rig.want("1")
        await _step(step)
        await rig.holds.close()
        heard = bool(rig.writer.messages)
        if not heard:
            rig.restart()
            rig.want("1")
        assert (await rig.answer()).holds == (HOLD,)
        assert list(rig.plane.held) == ["1"]
        await _cancel_at(SOME, rig.holds.run())
        assert rig.plane.freed == []
        await rig.calls.close()
        if heard:
            break
    assert heard
    assert step > 1


async def test_holds_that_go_back_survive_any_end(tmp_path: Path) -> None:
    """At whichever await of giving back: it is told again, in sums that count once."""
    counts = set()
    for step in range(SOME):
        rig = HoldsRig(tmp_path)
        rig.plane.fault = lambda: httpx.Response(503)
        rig.want("1")
        assert (await rig.answer()).holds is None
        rig.plane.fault = None
        rig.holds.hear(rig.link, FreeHolds((("hold_2", 40),)))
        await _cancel_at(step, rig.holds.run())
        counts.add(len(_freed(rig)))
        watching = asyncio.ensure_future(rig.holds.run())
        await until(partial(_has_told_all, rig))
        await _cancel_at(0, watching)
        assert _freed(rig) == {"hold_1": 100, "hold_2": 40}
        await rig.calls.close()
    assert counts == {0, 1, 2}


def _has_told_all(rig: HoldsRig) -> bool:
    return len(_freed(rig)) == 2


def _freed(rig: HoldsRig) -> dict[str, int]:
    """Return how much of each hold the control plane was told to be free: sums, so the most."""
    freed: dict[str, int] = {}
    for request in rig.plane.freed:
        for hold, amount in request.freed:
            freed[hold] = max(amount, freed.get(hold, 0))
    return freed
