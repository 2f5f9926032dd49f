"""A limiter with a loop, a clock and an agent that do only what a test says."""

import asyncio
import heapq
from collections.abc import Callable
from typing import Any, cast

from tests.fakes.limits_agent import LimitsAgent
from tests.fakes.worker_process import MemoryRecords, make_snapshot

from penstock.contract.limits import Limit, OwnerLimits
from penstock.contract.money import NANO, PRICE_SCALE, Budget, HoldUse, Price
from penstock.contract.node import AgentMessage, WorkerMessage
from penstock.contract.snapshot import Key
from penstock.contract.snapshot_store import owner_name
from penstock.gateway.claim import Claim, Denial
from penstock.gateway.demand import Demand, kind_of
from penstock.gateway.dialects.openai_usage import Usage
from penstock.gateway.limiter import Limiter
from penstock.gateway.offer import Catalog, Offer, Owner
from penstock.gateway.priced import Pricing
from penstock.gateway.quota import Quota, read_quota
from penstock.gateway.stats import Stats
from penstock.gateway.till import Till
from penstock.gateway.tokens import Tokens

ORGANIZATION = owner_name("organization", "org-a")
PROJECT = owner_name("project", "org-a", "project-a")
KEY = owner_name("key", "org-a", "key-a")
A_KEY = Key("key-a", b"", "org-a", "project-a", member="member-a")
EURO = NANO
"""A euro a million tokens is `PRICE_SCALE`; then a token costs `NANO / 1,000,000`."""
PRICE = Price("EUR", 0, input=PRICE_SCALE, cached_input=PRICE_SCALE // 10, output=PRICE_SCALE)
TOKEN = NANO // 1_000_000
NOTHING = Usage(0, 0)


class FakeLoop:
    """Calls back when it is told to."""

    def __init__(self) -> None:
        """Begin at some time."""
        self.now_s = 50.0
        self._soon: list[Callable[[], None]] = []
        self._timers: list[tuple[float, int, Callable[[], None]]] = []

    def time(self) -> float:
        """Return seconds."""
        return self.now_s

    def call_soon(self, call: Callable[[], None]) -> None:
        """Call at the end of the turn."""
        self._soon.append(call)

    def call_at(self, when_s: float, call: Callable[[], None]) -> None:
        """Call at a time."""
        heapq.heappush(self._timers, (when_s, len(self._timers), call))

    def turn(self) -> bool:
        """Call what is due; False when nothing was."""
        soon, self._soon = self._soon, []
        while self._timers and self._timers[0][0] <= self.now_s:
            soon.append(heapq.heappop(self._timers)[2])
        for call in soon:
            call()
        return bool(soon)


class Asker:
    """A request that wants to be let in."""

    def __init__(self, loop: FakeLoop, demand: Demand) -> None:
        """Nothing has happened."""
        self._loop = loop
        self.let_in_at_s = 0.0
        self.claim: Claim | Till | None = None
        """What it takes, or took of."""
        self.demand = demand
        self.is_in = False
        self.denial: Denial | None = None

    def let_in(self) -> None:
        """Be let in, once."""
        assert not self.is_in
        assert self.denial is None
        self.is_in = True
        self.let_in_at_s = self._loop.now_s

    def turn_away(self, denial: Denial) -> None:
        """Be refused, once."""
        assert not self.is_in
        assert self.denial is None
        self.denial = denial

    @property
    def cap(self) -> int:
        """The most output that it may write."""
        cap = self.claim.cap if isinstance(self.claim, Claim) else None
        if isinstance(self.claim, Till):
            cap = self.demand.cap or self.claim.cap
        assert cap is not None
        return cap

    @property
    def error(self) -> object:
        """Why it was refused."""
        assert self.denial is not None
        return self.denial.refusal.error


class LimiterRig:
    """A limiter with an agent at the other end of a link that takes a turn of the loop."""

    def __init__(self, *, is_linked: bool = True, **budgets: int) -> None:
        """Make a key without limits.

        Args:
            is_linked: Whether the agent is there.
            budgets: Nano-units by id.
        """
        self.loop = FakeLoop()
        self.records = MemoryRecords(make_snapshot([1]))
        self.agent = LimitsAgent(self.monotonic_ms, base_ms=7_000_000, budgets=budgets)
        self.sent: list[WorkerMessage] = []
        self.quotas: dict[Key, Quota] = {}
        """As a worker remembers them."""
        self.is_hung = False
        self.is_linked = is_linked
        self.limiter = Limiter(
            cast("asyncio.AbstractEventLoop", self.loop),
            monotonic_ns=lambda: self.monotonic_ms() * 1_000_000,
            name="node/0-1",
            send=self._send,
            stats=(stats := Stats()),
        )
        self.stats = stats
        found = Catalog(
            self.records, Tokens(), 1, Pricing(self.records, lambda: 1.0), lambda _, name: name
        ).make_offer("model-a", Owner("org-a", "project-a"))
        assert isinstance(found, Offer)
        self.target = found.first
        if is_linked:
            self.limiter.connected()
            self.limiter.take(self.agent.clock)

    def monotonic_ms(self) -> int:
        """Return the time."""
        return int(self.loop.now_s * 1_000)

    def _send(self, message: WorkerMessage) -> bool:
        if self.is_linked:
            self.sent.append(message)
        return self.is_linked

    def limit(self, *limits: Limit, owner: bytes = KEY) -> None:
        """Set the limits of an owner."""
        self.quotas.clear()
        self.records.limits[owner] = OwnerLimits(limits=limits)

    def budget(self, budget: Budget, *prices: Price, owner: bytes = ORGANIZATION) -> None:
        """Set the budget of an owner, and the model's prices."""
        self.quotas.clear()
        self.records.budgets[owner] = (budget,)
        self.records.prices["model-a"] = prices or (PRICE,)

    def ask(
        self,
        count: int = 1,
        *,
        key: Key = A_KEY,
        cap: int | None = 100,
        body_bytes: int = 400,
    ) -> list[Asker]:
        """Have requests ask, all in one turn of the loop."""
        quota = self.quotas.get(key) or read_quota(self.records, key)
        assert quota is not None
        self.quotas[key] = quota
        kind = kind_of(body_bytes, cap, 1)
        demand = Demand(body_bytes, cap, 1, body_bytes, has_other_caps=False, kind=kind)
        askers = [Asker(self.loop, demand) for _ in range(count)]
        for asker in askers:
            now_s = 1_000 + self.loop.now_s
            asker.claim = till = self.limiter.draw(quota, self.target, demand, now_s)
            if till is not None:
                asker.let_in()
                continue
            claim = self.limiter.claim(asker, quota, self.target, demand, now_s)
            asker.claim = claim
            self.limiter.admit(claim)
        return askers

    def run(self) -> None:
        """Let loop and agent go on until nothing happens any more."""
        while True:
            happened = self.loop.turn()
            if not self.is_hung:
                sent, self.sent = self.sent, []
                for message in sent:
                    for answer in self.agent.answer(message):
                        self._take(answer)
                happened = happened or bool(sent)
            if not happened:
                return

    def _take(self, answer: AgentMessage) -> None:
        self.limiter.take(cast("Any", answer))

    def lose(self) -> None:
        """Let the agent die, with all that was on its way to it."""
        self.sent.clear()
        self.is_linked = False
        self.limiter.lost()
        self.loop.turn()

    def find(self) -> None:
        """Let a new agent come that knows what the old one did."""
        self.is_linked = True
        self.limiter.connected()
        self.limiter.take(self.agent.clock)

    def wait(self, seconds: float) -> None:
        """Let time go by."""
        end_s = self.loop.now_s + seconds
        while self.loop.now_s < end_s:
            self.loop.now_s = min(end_s, self.loop.now_s + 0.25)
            self.limiter.sweep()
            self.run()

    def one(self, **kind: Any) -> Asker:
        """Have one request ask, and wait for the outcome."""
        (asker,) = self.ask(**kind)
        self.run()
        return asker

    def end(
        self, asker: Asker, input_tokens: int = 100, output_tokens: int = 0
    ) -> tuple[HoldUse, ...]:
        """End a request."""
        uses = self.settle(asker, Usage(input_tokens, output_tokens))
        self.run()
        return uses

    def settle(
        self, asker: Asker, usage: Usage = NOTHING, *, was_sent: bool = True
    ) -> tuple[HoldUse, ...]:
        """Have a request end, or leave while it waits."""
        assert asker.claim is not None
        return self.limiter.settle(
            asker.claim, asker.demand, usage, was_sent=was_sent, is_typical=was_sent
        )

    def count(self, name: str) -> float:
        """Return the sum of a metric's samples."""
        self.stats.forget_told()
        reports = self.stats.reports((), is_ready=True)
        told = (sample for report in reports for sample in report.samples)
        return sum(each.value for each in told if each.name == name)

    def asked(self, kind: type) -> list[Any]:
        """Return what the agent was told of a kind."""
        return [each for each in self.agent.received if isinstance(each, kind)]
