"""A worker's limits and budgets: whatever happens in whatever order, nothing is let in beyond."""

from bisect import bisect_right

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.fakes.limiter_rig import ORGANIZATION, TOKEN, Asker, LimiterRig

from penstock.contract.limits import Limit, Metric
from penstock.contract.money import Budget
from penstock.gateway.dialects.openai_usage import Usage
from penstock.gateway.limits import PARK_S

WINDOW_S = 3
REQUESTS, FLYING = 6, 4
MONEY = 20_000 * TOKEN


class LimiterMachine(RuleBasedStateMachine):
    """Requests come, wait, leave and end; the agent hangs, dies and is away; time goes by."""

    @initialize(lowers_cap=st.booleans())
    def begin(self, lowers_cap: bool) -> None:  # noqa: FBT001 - a drawn value
        """Limit requests, input, what is in flight, and money."""
        self.rig = LimiterRig(budget=MONEY)
        self.rig.limit(
            Limit("r", Metric.REQUESTS, REQUESTS, window_s=WINDOW_S),
            Limit("c", Metric.CONCURRENCY, FLYING, window_s=0),
        )
        self.rig.limit(Limit("i", Metric.INPUT_TOKENS, 5_000), owner=ORGANIZATION)
        self.rig.budget(Budget("budget", "EUR", lowers_cap=lowers_cap))
        self.waiting: list[Asker] = []
        self.flying: list[Asker] = []
        self.counted: list[Asker] = []
        self.spent = 0

    @rule(count=st.integers(1, 8), cap=st.one_of(st.none(), st.integers(1, 5_000)))
    def ask(self, count: int, cap: int | None) -> None:
        """Requests come."""
        self.waiting += self.rig.ask(count, cap=cap, body_bytes=40)

    @rule()
    def run(self) -> None:
        """The loop turns, and the agent answers if it can."""
        self.rig.run()
        if not self.rig.is_hung:
            self.sort()
            assert not self.waiting

    @rule(seconds=st.sampled_from([0.01, 0.25, 0.5, 1.0, 7.0]))
    def wait(self, seconds: float) -> None:
        """Time goes by; nobody waits longer than may be."""
        self.rig.wait(seconds)
        self.sort()
        assert seconds < PARK_S or not self.waiting

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), was_sent=st.booleans())
    def end(self, data: st.DataObject, was_sent: bool) -> None:  # noqa: FBT001 - a drawn value
        """A request ends, having used what it may at most, or less."""
        asker = self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))
        assert asker.claim is not None
        assert asker.claim.cap is not None
        outputs = data.draw(st.integers(0, asker.claim.cap)) if was_sent else 0
        usage = Usage(10 if was_sent else 0, outputs)
        uses = self.rig.limiter.settle(asker.claim, usage, was_sent=was_sent, is_typical=was_sent)
        cost = sum(use.amount for use in uses)
        assert cost == (usage.input_tokens + usage.output_tokens) * TOKEN
        self.spent += cost
        if not was_sent:
            self.counted.remove(asker)

    @precondition(lambda self: self.waiting)
    @rule()
    def leave(self) -> None:
        """A caller leaves while its request waits."""
        asker = self.waiting.pop()
        assert asker.claim is not None
        uses = self.rig.limiter.settle(asker.claim, Usage(0, 0), was_sent=False, is_typical=False)
        assert uses == ()

    @rule(is_hung=st.booleans())
    def hang(self, is_hung: bool) -> None:  # noqa: FBT001 - a drawn value
        """The agent stops answering, or goes on."""
        self.rig.is_hung = is_hung

    @rule(is_away=st.booleans())
    def lose_authority(self, is_away: bool) -> None:  # noqa: FBT001 - a drawn value
        """Authority and database cannot be reached, or can again."""
        self.rig.agent.is_away = is_away

    @rule()
    def lose_agent(self) -> None:
        """The agent dies with all that was on its way; a new one comes."""
        self.rig.lose()
        self.sort()
        self.rig.find()

    def sort(self) -> None:
        """Note what became of those that waited."""
        for asker in list(self.waiting):
            if asker.is_in or asker.denial is not None:
                self.waiting.remove(asker)
            if asker.is_in:
                self.flying.append(asker)
                self.counted.append(asker)

    @invariant()
    def nothing_is_let_in_beyond(self) -> None:
        """No window and no moment holds more than its limit."""
        if not hasattr(self, "rig"):
            return
        self.sort()
        times = sorted(asker.let_in_at_s for asker in self.counted)
        assert len(self.flying) <= FLYING
        for index, at_s in enumerate(times):
            assert bisect_right(times, at_s + WINDOW_S - 0.001) - index <= REQUESTS

    @invariant()
    def no_money_is_made_or_lost(self) -> None:
        """What requests hold and cost was held before; what is freed is not spent."""
        if not hasattr(self, "rig"):
            return
        agent = self.rig.agent
        held = sum(agent.holds.values())
        assert agent.budgets["budget"] + held == MONEY
        flying = sum(
            use.amount for asker in self.flying if asker.claim for use in asker.claim.hold_uses
        )
        assert self.spent + flying <= held

    def teardown(self) -> None:
        """When all is over nothing is held, and only what was spent is gone."""
        if not hasattr(self, "rig"):
            return
        self.rig.is_hung = self.rig.agent.is_away = False
        self.rig.run()
        self.sort()
        while self.flying:
            asker = self.flying.pop()
            assert asker.claim is not None
            self.rig.limiter.settle(asker.claim, Usage(0, 0), was_sent=False, is_typical=False)
        self.rig.wait(10)
        assert self.rig.agent.authority.permits_of("worker") == {}
        assert self.rig.agent.budgets["budget"] == MONEY - self.spent
        assert self.rig.one(cap=20, body_bytes=40).is_in == (MONEY - self.spent >= 320 * TOKEN)


TestLimiter = LimiterMachine.TestCase
TestLimiter.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
