"""Nodes with real limiters and real brokers in virtual time: callers, crashes, slow messages."""

import asyncio
import random
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import cast

from tests.fakes.links import FakeWriter
from tests.fakes.worker_process import MemoryRecords, make_snapshot

from penstock.contract.limits import Limit, Metric, OwnerLimits
from penstock.contract.node import (
    AgentMessage,
    Granted,
    Hello,
    HoldsGranted,
    LimitsClock,
    PermitsHeld,
    Returned,
    Want,
    WorkerMessage,
)
from penstock.contract.snapshot import Key
from penstock.contract.snapshot_store import owner_name
from penstock.gateway.claim import Claim, Denial
from penstock.gateway.demand import Demand, kind_of
from penstock.gateway.dialects.openai_usage import Usage
from penstock.gateway.limiter import Limiter
from penstock.gateway.limits import SWEEP_S
from penstock.gateway.offer import Catalog, Offer, Owner
from penstock.gateway.priced import Pricing
from penstock.gateway.quota import Quota, read_quota
from penstock.gateway.stats import Stats
from penstock.gateway.till import Till
from penstock.gateway.tokens import Tokens
from penstock.limits.authority import Authority
from penstock.limits.rules import STEP_MS
from penstock.node.limit_counts import LimitCounts
from penstock.node.limit_uses import LimitUses
from penstock.node.limits import Broker
from penstock.node.links import Link

NODES = 3
WORKERS = 4
"""Of each node."""
MESSAGE_S = 0.0003
"""How long a message is under way between a worker and its agent."""
BASE_MS = 1_000_000_000
USAGE = Usage(20, 50)
"""What every request costs."""
WINDOWED = (Metric.REQUESTS, Metric.INPUT_TOKENS, Metric.OUTPUT_TOKENS)
_DEMAND = Demand(100, 50, 1, 356, has_other_caps=False, kind=kind_of(356, 50, 1))
_KEY = Key("key-a", b"", "org-a", "project-a")


class Request:
    """One that wants to be let in."""

    def __init__(self, worker: "Worker", seconds: float) -> None:
        """Have it take so long."""
        self._worker = worker
        self._seconds = seconds
        self.claim: Claim | Till | None = None

    def let_in(self) -> None:
        """Fly."""
        self._worker.world.note_admission()
        self._worker.flying.add(self)
        loop = asyncio.get_running_loop()
        loop.call_later(self._seconds, self._worker.end, self, self._worker.life)

    def turn_away(self, denial: Denial) -> None:
        """Be counted."""
        world = self._worker.world
        world.refused += denial.status != 503 and denial.refusal.error.status != 503
        world.unavailable += denial.refusal.error.status == 503


class Wire(FakeWriter):
    """What an agent writes to a worker."""

    def __init__(self, worker: "Worker") -> None:
        """Belong to a worker."""
        super().__init__()
        self._worker = worker

    def write(self, content: bytes) -> None:
        """Have what was written be under way."""
        super().write(content)
        messages, self.messages = self.messages, []
        for message in messages:
            self._worker.receive(message, self)


class Worker:
    """A limiter, and its connection to the node's agent."""

    def __init__(self, world: "World", node: "Node", slot: int) -> None:
        """Begin without a connection."""
        self.world = world
        self.node = node
        self.slot = slot
        self.life = 0
        self.flying: set[Request] = set()
        self.start()

    def start(self) -> None:
        """Begin a life, and connect."""
        self.life += 1
        self.flying = set()
        world = self.world
        self.epoch = next(world.epochs)
        self.limiter = Limiter(
            asyncio.get_running_loop(),
            monotonic_ns=lambda: self.node.monotonic_ms() * 1_000_000,
            name=f"node{self.node.number}/{self.slot}-{self.epoch}",
            send=self.send,
            stats=Stats(),
        )
        self._quota = world.read_quota()
        self.is_linked = False
        self.connect()

    def connect(self) -> None:
        """Say Hello."""
        self.wire = Wire(self)
        hello = Hello(self.slot, self.epoch, 1, 0, is_draining=False)
        self.link = Link(hello, cast("asyncio.StreamWriter", self.wire))
        self.is_linked = True
        self.limiter.connected()
        self.node.broker.greet(self.link)

    def disconnect(self) -> None:
        """Be left alone by the agent; what is under way is lost."""
        if self.is_linked:
            self.is_linked = False
            self.wire.close()
            self.limiter.lost()

    def send(self, message: WorkerMessage) -> bool:
        """Have a message be under way to the agent."""
        if self.is_linked:
            loop = asyncio.get_running_loop()
            loop.call_later(MESSAGE_S, self._arrive, message, self.wire)
        return self.is_linked

    def _arrive(self, message: WorkerMessage, wire: "Wire") -> None:
        if wire is self.wire and self.is_linked:
            assert isinstance(message, Want | Returned | PermitsHeld)
            self.node.broker.hear(self.link, message)

    def receive(self, message: AgentMessage, wire: "Wire") -> None:
        """Have a message of the agent be under way."""
        asyncio.get_running_loop().call_later(MESSAGE_S, self._take, message, wire)

    def _take(self, message: AgentMessage, wire: "Wire") -> None:
        if wire is self.wire and self.is_linked:
            assert isinstance(message, Granted | HoldsGranted | LimitsClock)
            self.limiter.take(message)

    def ask(self, seconds: float) -> None:
        """Have a request come."""
        request = Request(self, seconds)
        world = self.world
        arguments = self._quota, world.target, _DEMAND, 1_000_000.0
        request.claim = till = self.limiter.draw(*arguments)
        if till is not None:
            request.let_in()
            return
        request.claim = claim = self.limiter.claim(request, *arguments)
        self.limiter.admit(claim)

    def end(self, request: Request, life: int) -> None:
        """Have a request end, if the worker lives."""
        if life == self.life and request.claim is not None:
            self.flying.discard(request)
            self.limiter.settle(request.claim, _DEMAND, USAGE, was_sent=True, is_typical=True)

    def crash(self) -> None:
        """Be killed, be buried a moment later, and begin anew."""
        self.disconnect()
        loop = asyncio.get_running_loop()
        loop.call_later(0.05, self.node.bury, self.slot, self.epoch)
        self.start()


class Node:
    """An agent and its workers, with a clock of their own."""

    def __init__(self, world: "World", number: int, skew_ms: int) -> None:
        """Begin with workers that are connected."""
        self.number = number
        self._world = world
        self._skew_ms = skew_ms
        self._uses = LimitUses()
        self.start_agent()
        self.workers = [Worker(world, self, slot) for slot in range(WORKERS)]

    def monotonic_ms(self) -> int:
        """Return the time as the node sees it."""
        return int(asyncio.get_running_loop().time() * 1_000) + self._skew_ms

    def start_agent(self) -> None:
        """Begin a life of the agent."""
        path = self._world.folder / f"limits-{self.number}"
        counts = LimitCounts(path, _NodeClock(self), boot=1, living=())
        self.broker = Broker(counts, self._world.join(self, counts), self._uses, lambda: ())

    def bury(self, slot: int, epoch: int) -> None:
        """Know that a worker is dead."""
        self.broker.bury(slot, epoch)

    def crash_agent(self, away_s: float) -> None:
        """Have the agent be killed; another one adopts the workers later."""
        for worker in self.workers:
            worker.disconnect()
        self.start_agent()
        asyncio.get_running_loop().call_later(away_s, self._reconnect)

    def _reconnect(self) -> None:
        for worker in self.workers:
            if not worker.is_linked:
                worker.connect()


class _NodeClock:
    """The machine's clock, as the agent reads it."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def monotonic_s(self) -> float:
        return self._node.monotonic_ms() / 1_000

    def wall_ns(self) -> int:
        return (self._node.monotonic_ms() + BASE_MS) * 1_000_000


class World:
    """Everything. To be made within a `VirtualLoop`.

    Args:
        folder: Takes what agents count.
        seed: Decides everything.
        limits: Rules of the one key.
        make_authority: Makes the one that all nodes share, given its clock in milliseconds.
        is_skewed: Whether the nodes' clocks differ, by less than the shortest sub-window.
        join: Makes what an agent that starts asks of that one; that one itself when None.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        limits: Sequence[Limit],
        make_authority: Callable[[Callable[[], int]], Authority],
        *,
        is_skewed: bool = False,
        join: "Callable[[World, Node, LimitCounts], Authority] | None" = None,
    ) -> None:
        """See the class."""
        self._join = join
        self.folder = folder
        self.random = random.Random(seed)
        self.limits = {limit.metric: limit for limit in limits}
        self.authority = make_authority(self.now_ms)
        self.epochs = iter(range(1, 10**9))
        records = MemoryRecords(make_snapshot([1]))
        records.limits[owner_name("key", "org-a", "key-a")] = OwnerLimits(limits=tuple(limits))
        self._records = records
        offer = Catalog(
            records, Tokens(), 1, Pricing(records, lambda: 1.0), lambda _, name: name
        ).make_offer("model-a", Owner("org-a", "project-a"))
        assert isinstance(offer, Offer)
        self.target = offer.first
        self.admitted_ms: list[int] = []
        self.most_flying = 0
        self.refused = 0
        self.unavailable = 0
        self.crashes = 0
        half = STEP_MS // 2 - 1
        self.nodes: list[Node] = []
        for number in range(NODES):
            skew_ms = self.random.randint(-half, half) if is_skewed else 0
            self.nodes.append(Node(self, number, skew_ms))

    @property
    def workers(self) -> list[Worker]:
        """All of them."""
        return [worker for node in self.nodes for worker in node.workers]

    def join(self, node: Node, counts: LimitCounts) -> Authority:
        """Return whom an agent asks that starts."""
        return self.authority if self._join is None else self._join(self, node, counts)

    def read_quota(self) -> Quota:
        """Return the key's rules as a worker reads them."""
        quota = read_quota(self._records, _KEY)
        assert quota is not None
        return quota

    def now_ms(self) -> int:
        """Return the authority's time."""
        return int(asyncio.get_running_loop().time() * 1_000) + BASE_MS

    def note_admission(self) -> None:
        """Count a request that was let in."""
        self.admitted_ms.append(self.now_ms())
        flying = 1 + sum(len(worker.flying) for worker in self.workers)
        self.most_flying = max(self.most_flying, flying)

    async def run(self, seconds: float, *, per_second: float, crashes_per_minute: float) -> None:
        """Have callers come at random, and things be killed now and then."""
        loop = asyncio.get_running_loop()
        draw = self.random
        end_s = loop.time() + seconds
        sweep_s = loop.time()
        crash_s = loop.time()
        while loop.time() < end_s:
            await asyncio.sleep(draw.expovariate(per_second))
            draw.choice(self.workers).ask(draw.choice((0.01, 0.1, 1.0)))
            if loop.time() >= sweep_s:
                sweep_s += SWEEP_S
                for worker in self.workers:
                    worker.limiter.sweep()
            if crashes_per_minute and loop.time() >= crash_s:
                crash_s = loop.time() + draw.expovariate(crashes_per_minute / 60)
                self._crash()

    def _crash(self) -> None:
        self.crashes += 1
        node = self.random.choice(self.nodes)
        match self.random.randrange(3):
            case 0:
                self.random.choice(node.workers).crash()
            case 1:
                node.crash_agent(self.random.uniform(0.1, 2.0))
            case _:  # the machine
                node.crash_agent(self.random.uniform(0.1, 2.0))
                for worker in node.workers:
                    worker.crash()

    def most_in_window(self, metric: Metric) -> int:
        """Return the most that any stretch of a rule's window used."""
        each = {
            Metric.REQUESTS: 1,
            Metric.INPUT_TOKENS: USAGE.input_tokens,
            Metric.OUTPUT_TOKENS: USAGE.output_tokens,
        }[metric]
        length_ms = self.limits[metric].window_s * 1_000
        times = self.admitted_ms
        sums = [0, *accumulate([each] * len(times))]
        return max(
            sums[bisect_left(times, at + length_ms)] - sums[bisect_left(times, at)] for at in times
        )


def draw_limits(seed: int) -> list[Limit]:
    """Return rules of all sorts, small enough that they decide."""
    draw = random.Random(seed)
    most = {Metric.REQUESTS: 400, Metric.INPUT_TOKENS: 8_000, Metric.OUTPUT_TOKENS: 20_000}
    limits = [
        Limit(metric.value, metric, draw.randint(most[metric] // 20, most[metric]), window_s)
        for metric in WINDOWED
        for window_s in [draw.choice([1, 2, 5, 10, 60])]
    ]
    return [*limits, Limit("flying", Metric.CONCURRENCY, draw.randint(4, 60), window_s=0)]
