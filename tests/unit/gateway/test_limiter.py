"""Admission by limits and budgets: what is let in, what waits, what is refused and how."""

import asyncio
import heapq
from collections.abc import Callable
from typing import Any, cast

import pytest
from tests.fakes.limits_agent import LimitsAgent
from tests.fakes.worker_process import MemoryRecords, make_snapshot

from penstock.contract.limits import Enforcement, Limit, Metric, OwnerLimits
from penstock.contract.money import NANO, PRICE_SCALE, Budget, HoldUse, Price
from penstock.contract.node import AgentMessage, PermitsHeld, Want, WantHolds, WorkerMessage
from penstock.contract.snapshot import Key
from penstock.contract.snapshot_store import owner_name
from penstock.gateway.claim import Claim, Denial
from penstock.gateway.demand import Demand
from penstock.gateway.dialects.openai import Usage
from penstock.gateway.errors import (
    CONCURRENCY_EXCEEDED,
    LIMITS_UNAVAILABLE,
    PRICE_MISSING,
    QUOTA_EXHAUSTED,
    RATE_EXCEEDED,
    REQUEST_TOO_LARGE,
)
from penstock.gateway.limiter import Limiter
from penstock.gateway.limits import PARK_S
from penstock.gateway.offer import Catalog, Offer, Owner
from penstock.gateway.quota import read_quota
from penstock.gateway.stats import Stats
from penstock.gateway.tokens import Tokens

ORGANIZATION = owner_name("organization", "org-a")
PROJECT = owner_name("project", "org-a", "project-a")
KEY = owner_name("key", "org-a", "key-a")
_KEY = Key("key-a", b"", "org-a", "project-a", member="member-a")
EURO = NANO
"""A euro a million tokens is `PRICE_SCALE`; then a token costs `NANO / 1,000,000`."""
PRICE = Price("EUR", 0, input=PRICE_SCALE, cached_input=PRICE_SCALE // 10, output=PRICE_SCALE)
TOKEN = NANO // 1_000_000


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

    def __init__(self) -> None:
        """Nothing has happened."""
        self.claim: Claim | None = None
        self.is_in = False
        self.denial: Denial | None = None

    def let_in(self) -> None:
        """Be let in, once."""
        assert not self.is_in
        assert self.denial is None
        self.is_in = True

    def turn_away(self, denial: Denial) -> None:
        """Be refused, once."""
        assert not self.is_in
        assert self.denial is None
        self.denial = denial

    @property
    def error(self) -> object:
        """Why it was refused."""
        assert self.denial is not None
        return self.denial.refusal.error


class Rig:
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
        self.is_hung = False
        self.is_linked = is_linked
        self.limiter = Limiter(
            cast("asyncio.AbstractEventLoop", self.loop),
            monotonic_ms=self.monotonic_ms,
            name="node/0-1",
            send=self._send,
            stats=(stats := Stats()),
        )
        self.stats = stats
        found = Catalog(self.records, Tokens(), 1).make_offer(
            "model-a", Owner("org-a", "project-a")
        )
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
        self.records.limits[owner] = OwnerLimits(limits=limits)

    def budget(self, budget: Budget, *prices: Price, owner: bytes = ORGANIZATION) -> None:
        """Set the budget of an owner, and the model's prices."""
        self.records.budgets[owner] = (budget,)
        self.records.prices["model-a"] = prices or (PRICE,)

    def ask(
        self, count: int = 1, *, key: Key = _KEY, cap: int | None = 100, body_bytes: int = 400
    ) -> list[Asker]:
        """Have requests ask, all in one turn of the loop."""
        quota = read_quota(self.records, key)
        assert quota is not None
        demand = Demand(body_bytes, cap, 1, body_bytes, has_other_caps=False)
        askers = [Asker() for _ in range(count)]
        for asker in askers:
            now_s = 1_000 + self.loop.now_s
            asker.claim = self.limiter.claim(asker, quota, self.target, demand, now_s)
            self.limiter.admit(asker.claim)
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
        assert asker.claim is not None
        usage = Usage(input_tokens, output_tokens)
        uses = self.limiter.settle(asker.claim, usage, was_sent=True, is_typical=True)
        self.run()
        return uses

    def count(self, name: str) -> float:
        """Return the sum of a metric's samples."""
        return sum(each.value for each in self.stats.samples() if each.name == name)

    def asked(self, kind: type) -> list[Any]:
        """Return what the agent was told of a kind."""
        return [each for each in self.agent.received if isinstance(each, kind)]


def test_no_more_than_the_limit_is_let_in() -> None:
    """Of many at once as many as the limit gives; the rest hear when to come back, exactly."""
    rig = Rig()
    rig.limit(Limit("r1", Metric.REQUESTS, 10))
    askers = rig.ask(30)
    rig.run()
    assert sum(asker.is_in for asker in askers) == 10
    refused = [asker for asker in askers if not asker.is_in]
    assert {asker.error for asker in refused} == {RATE_EXCEEDED}
    denial = refused[0].denial
    assert denial is not None
    wait_s = denial.refusal.retry_after_s
    assert wait_s is not None
    assert b"x-penstock-limit-exceeded: r1\r\n" in denial.lines
    rig.wait(wait_s)
    assert rig.one().is_in


def test_what_is_there_is_taken_at_once() -> None:
    """The first request asks, a later one that finds enough does not wait."""
    rig = Rig()
    rig.limit(Limit("r1", Metric.REQUESTS, 10_000))
    for asker in rig.ask(50):
        assert not asker.is_in
    rig.run()
    asked = len(rig.asked(Want))
    rig.wait(0.5)
    assert rig.one().is_in
    (at_once,) = rig.ask()
    assert at_once.is_in
    assert asked <= 2


def test_the_tightest_of_several_rules_decides() -> None:
    """A request takes from all rules or from none, and is told the rule that it lacks."""
    rig = Rig()
    rig.limit(Limit("wide", Metric.REQUESTS, 100), owner=ORGANIZATION)
    rig.limit(Limit("narrow", Metric.REQUESTS, 1))
    assert rig.one().is_in
    refused = rig.one()
    assert refused.denial is not None
    assert b"narrow" in refused.denial.lines
    other = Key("key-b", b"", "org-a", "project-b")
    assert rig.one(key=other).is_in


def test_what_can_never_fit_is_not_worth_a_retry() -> None:
    """More than the whole limit is 400."""
    rig = Rig()
    rig.limit(Limit("small", Metric.INPUT_TOKENS, 50))
    assert rig.one(body_bytes=4_000).error is REQUEST_TOO_LARGE


def test_a_request_that_names_no_output_fits_any_limit_of_output() -> None:
    """What it may write is then a guess, and no guess is held against it."""
    rig = Rig()
    rig.limit(Limit("small", Metric.OUTPUT_TOKENS, 50))
    assert rig.one(cap=None).is_in
    assert rig.one(cap=None).error is RATE_EXCEEDED


def test_places_are_free_when_requests_end() -> None:
    """As many as the limit are in flight, and not one more."""
    rig = Rig()
    rig.limit(Limit("c", Metric.CONCURRENCY, 2, window_s=0))
    first, second, third = rig.ask(3)
    rig.run()
    assert first.is_in
    assert second.is_in
    assert third.error is CONCURRENCY_EXCEEDED
    rig.end(first)
    assert rig.one().is_in


def test_a_place_goes_back_when_others_may_want_it() -> None:
    """Of a small limit nothing stays with a worker that does not use it."""
    rig = Rig()
    rig.limit(Limit("c", Metric.CONCURRENCY, 2, window_s=0))
    rig.end(rig.one())
    assert rig.agent.authority.permits_of("worker") == {}


def test_idle_places_of_a_large_limit_go_back_in_time() -> None:
    """They are kept for a moment, since requests come in bursts."""
    rig = Rig()
    rig.limit(Limit("c", Metric.CONCURRENCY, 1_000, window_s=0))
    for asker in rig.ask(50):
        rig.run()
        rig.end(asker)
    rig.wait(3)
    assert rig.agent.authority.permits_of("worker") == {}


def test_unused_estimates_come_back() -> None:
    """A request that wrote less than estimated takes only what it wrote."""
    rig = Rig()
    rig.limit(Limit("t", Metric.OUTPUT_TOKENS, 100))
    rig.end(rig.one(cap=100), output_tokens=10)
    assert rig.one(cap=90).is_in


def test_use_beyond_the_estimate_counts() -> None:
    """A request that used more than was taken makes others wait."""
    rig = Rig()
    rig.limit(Limit("t", Metric.INPUT_TOKENS, 500))
    rig.end(rig.one(), input_tokens=490)
    assert rig.one().error is RATE_EXCEEDED


def test_a_request_that_was_never_sent_counts_nothing() -> None:
    """All that it took is there for others."""
    rig = Rig()
    rig.limit(Limit("r1", Metric.REQUESTS, 1))
    asker = rig.one()
    assert asker.claim is not None
    rig.limiter.settle(asker.claim, Usage(0, 0), was_sent=False, is_typical=False)
    assert rig.one().is_in


@pytest.mark.parametrize("enforcement", [Enforcement.SOFT, Enforcement.SHADOW])
def test_rules_that_are_not_hard_stop_nobody(enforcement: Enforcement) -> None:
    """They are counted; a soft one is also named in the answer."""
    rig = Rig()
    rig.limit(Limit("lenient", Metric.REQUESTS, 2, enforcement=enforcement))
    askers = rig.ask(5)
    rig.run()
    assert all(asker.is_in for asker in askers)
    assert rig.count("penstock_limit_exceeded_total") == 3
    lines = [asker.claim.limit_lines() for asker in askers if asker.claim is not None]
    named = sum(b"x-penstock-limit-exceeded: lenient\r\n" in each for each in lines)
    assert named == (3 if enforcement is Enforcement.SOFT else 0)


def test_without_an_agent_hard_rules_refuse_at_once() -> None:
    """Nobody knows what is left: 503; rules that are not hard let through, which is counted."""
    rig = Rig(is_linked=False)
    rig.limit(Limit("hard", Metric.REQUESTS, 10))
    assert rig.one().error is LIMITS_UNAVAILABLE
    rig.limit(Limit("soft", Metric.REQUESTS, 10, enforcement=Enforcement.SOFT))
    assert rig.one().is_in
    assert rig.count("penstock_limit_unanswered_total") == 1


def test_an_agent_that_hangs_costs_no_more_than_the_wait() -> None:
    """After it the request is refused, or let through by rules that are not hard."""
    rig = Rig()
    rig.limit(Limit("hard", Metric.REQUESTS, 10))
    rig.limit(Limit("soft", Metric.REQUESTS, 10, enforcement=Enforcement.SOFT), owner=PROJECT)
    soft_only = Key("key-b", b"", "org-a", "project-a")
    rig.is_hung = True
    (strict,), (lenient,) = rig.ask(), rig.ask(key=soft_only)
    rig.run()
    assert strict.denial is None
    assert not lenient.is_in
    rig.loop.now_s += PARK_S
    rig.run()
    assert strict.error is LIMITS_UNAVAILABLE
    assert lenient.is_in
    rig.is_hung = False
    rig.run()
    assert rig.one().is_in


def test_an_authority_that_is_away_refuses_without_a_wait() -> None:
    """The agent says so, and nobody waits."""
    rig = Rig()
    rig.limit(Limit("hard", Metric.REQUESTS, 10))
    rig.agent.is_away = True
    assert rig.one().error is LIMITS_UNAVAILABLE


def test_who_leaves_while_waiting_takes_nothing() -> None:
    """What was asked for it is there for others, and it is neither let in nor refused."""
    rig = Rig()
    rig.limit(Limit("r1", Metric.REQUESTS, 1))
    (gone,) = rig.ask()
    assert gone.claim is not None
    rig.limiter.settle(gone.claim, Usage(0, 0), was_sent=False, is_typical=False)
    rig.run()
    assert not gone.is_in
    assert gone.denial is None
    assert rig.one().is_in


def test_a_new_agent_is_told_what_is_held() -> None:
    """Places that were given or returned while nobody listened are not lost."""
    rig = Rig()
    rig.limit(Limit("c", Metric.CONCURRENCY, 2, window_s=0))
    staying, leaving = rig.one(), rig.one()
    rig.is_linked = False
    rig.limiter.lost()
    rig.end(leaving)
    rig.is_linked = True
    rig.limiter.connected()
    rig.run()
    (told,) = rig.asked(PermitsHeld)
    assert [amount for _, amount in told.held] == [1]
    assert rig.one().is_in
    assert rig.one().error is CONCURRENCY_EXCEEDED
    rig.end(staying)
    assert rig.one().is_in


def test_busy_shares_are_filled_ahead() -> None:
    """Under steady traffic hardly any request waits."""
    rig = Rig()
    rig.limit(Limit("r1", Metric.REQUESTS, 1_000_000))
    waited = 0
    for _ in range(200):
        rig.loop.now_s += 0.02
        if rig.monotonic_ms() % 250 < 20:
            rig.limiter.sweep()
        askers = rig.ask(10)
        waited += sum(not asker.is_in for asker in askers)
        rig.run()
        assert all(asker.is_in for asker in askers)
    assert waited < 60


def test_a_raise_ends_by_itself() -> None:
    """The raised limit holds until its second."""
    rig = Rig()
    rig.limit(Limit("r1", Metric.REQUESTS, 1, raised_limit=3, raised_until=1_055))
    assert [rig.one().is_in for _ in range(4)] == [True, True, True, False]
    rig.wait(130)
    assert [rig.one().is_in for _ in range(2)] == [True, False]


def test_money_is_held_at_the_worst_and_settled_at_the_cost() -> None:
    """The event names the exact cost; what a request did not cost is there for the next one."""
    rig = Rig(budget=1_000 * TOKEN)
    rig.budget(Budget("budget", "EUR"))
    asker = rig.one(cap=100, body_bytes=400)
    assert asker.claim is not None
    assert sum(use.amount for use in asker.claim.hold_uses) == 500 * TOKEN
    uses = rig.end(asker, input_tokens=100, output_tokens=10)
    assert sum(use.amount for use in uses) == 110 * TOKEN
    rig.wait(6)
    assert rig.agent.budgets["budget"] == 890 * TOKEN


def test_no_more_is_spent_than_a_budget_has() -> None:
    """Of 200 at once as many as it pays for in the worst case; the rest are told not to retry."""
    rig = Rig(budget=5_000 * TOKEN)
    rig.budget(Budget("budget", "EUR", exhausted_status=402, lowers_cap=False))
    askers = rig.ask(200)
    rig.run()
    assert sum(asker.is_in for asker in askers) == 10
    refused = [asker for asker in askers if not asker.is_in]
    assert {asker.error for asker in refused} == {QUOTA_EXHAUSTED}
    denial = refused[0].denial
    assert denial is not None
    assert denial.status == 402
    assert b"x-should-retry: false\r\n" in denial.lines
    assert denial.refusal.retry_after_s == 3_600


def test_a_cap_is_lowered_to_what_is_left() -> None:
    """Rather fewer output tokens than none, when the budget says so."""
    rig = Rig(budget=450 * TOKEN)
    rig.budget(Budget("budget", "EUR"))
    asker = rig.one(cap=100, body_bytes=400)
    assert asker.is_in
    assert asker.claim is not None
    assert asker.claim.written_cap == 50
    assert rig.one().error is QUOTA_EXHAUSTED


def test_a_cap_is_not_lowered_to_nothing() -> None:
    """Fewer tokens than are of any use are refused."""
    rig = Rig(budget=405 * TOKEN)
    rig.budget(Budget("budget", "EUR"))
    assert rig.one(cap=100, body_bytes=400).error is QUOTA_EXHAUSTED
    assert rig.one(cap=5, body_bytes=400).is_in


def test_a_model_without_a_price_is_refused() -> None:
    """Nobody knows what it costs in the budget's currency."""
    rig = Rig(budget=10**12)
    rig.budget(Budget("budget", "USD"))
    assert rig.one().error is PRICE_MISSING


def test_without_a_database_what_is_held_is_spent() -> None:
    """Requests run on it; then they are refused, and nothing is overspent."""
    rig = Rig(budget=10**9)
    rig.budget(Budget("budget", "EUR"))
    rig.end(rig.one())
    rig.agent.is_away = True
    ran = 0
    while (asker := rig.one()).is_in:
        ran += 1
    assert asker.error is LIMITS_UNAVAILABLE
    assert sum(rig.agent.holds.values()) >= ran * 500 * TOKEN


def test_holds_go_back_after_their_time() -> None:
    """A hold of a window that ended is not used; what is left of it is freed."""
    rig = Rig(budget=10_000 * TOKEN)
    rig.agent.use_ms = 1_000
    rig.budget(Budget("budget", "EUR"))
    asker = rig.one()
    rig.wait(2)
    assert rig.agent.budgets["budget"] == 9_500 * TOKEN
    rig.end(asker, input_tokens=100)
    assert rig.agent.budgets["budget"] == 9_900 * TOKEN


def test_a_question_about_money_is_repeated_to_a_new_agent() -> None:
    """Under its name, so that nothing is held twice; what was freed is told again."""
    rig = Rig(budget=10_000 * TOKEN)
    rig.budget(Budget("budget", "EUR"))
    rig.is_hung = True
    (asker,) = rig.ask()
    rig.run()
    lost, rig.sent = rig.sent, []
    rig.is_linked = False
    rig.limiter.lost()
    rig.is_linked, rig.is_hung = True, False
    rig.limiter.connected()
    rig.run()
    assert rig.asked(WantHolds)[0] in lost
    assert asker.is_in
