"""A worker's limits and budgets: whatever happens in whatever order, nothing is let in beyond."""

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.fakes.effort import tries
from tests.fakes.limiter_rig import ORGANIZATION, TOKEN, Asker, LimiterRig

from penstock.contract.limits import Limit, Metric
from penstock.contract.money import Budget, WhenAway
from penstock.gateway.dialects.openai_usage import Usage
from penstock.gateway.limits import PARK_S
from penstock.gateway.till import Till

WINDOW_S = 3


class LimiterMachine(RuleBasedStateMachine):
    """Requests come, wait, leave and end; the agent hangs, dies and is away; time goes by."""

    size = 1
    """Limits and budget are so many times as large."""
    many = 1
    """So many requests come, leave and end together."""

    def __init__(self) -> None:
        """Reckon what there is."""
        super().__init__()
        self.requests, self.places = 6 * self.size, 4 * self.size
        self.money = 20_000 * TOKEN * self.size

    @initialize(lowers_cap=st.booleans(), when_away=st.sampled_from(["spend_held", "refuse"]))
    def begin(self, lowers_cap: bool, when_away: WhenAway) -> None:  # noqa: FBT001 - drawn values
        """Limit requests, input, what is in flight, and money."""
        self.rig = LimiterRig(budget=self.money)
        self.rig.limit(
            Limit("r", Metric.REQUESTS, self.requests, window_s=WINDOW_S),
            Limit("c", Metric.CONCURRENCY, self.places, window_s=0),
        )
        self.rig.limit(Limit("i", Metric.INPUT_TOKENS, 5_000 * self.size), owner=ORGANIZATION)
        self.rig.budget(Budget("budget", "EUR", lowers_cap=lowers_cap, when_away=when_away))
        self.waiting: list[Asker] = []
        self.flying: list[Asker] = []
        self.counted: set[Asker] = set()
        self.drawn = 0
        self.spent = 0
        self.warm_up()

    def warm_up(self) -> None:
        """Begin without anything before."""

    @rule(
        count=st.integers(1, 8),
        cap=st.one_of(st.none(), st.integers(1, 5_000)),
        body_bytes=st.sampled_from([40, 60, 300]),
    )
    def ask(self, count: int, cap: int | None, body_bytes: int) -> None:
        """Requests come."""
        self.waiting += self.rig.ask(count * self.many, cap=cap, body_bytes=body_bytes)
        self.sort()

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
        """Requests end, having used what they may at most, or less."""
        first = data.draw(st.integers(0, len(self.flying) - 1))
        share = data.draw(st.floats(0, 1)) if was_sent else 0
        self.end_some(first, share, was_sent=was_sent)

    def end_some(self, first: int, share: float, *, was_sent: bool = True) -> None:
        """Have those end that have been in for longest, but for the first of them."""
        ending = self.flying[first : first + self.many]
        del self.flying[first : first + self.many]
        for asker in ending:
            usage = Usage(10 if was_sent else 0, int(share * asker.cap))
            uses = self.rig.settle(asker, usage, was_sent=was_sent)
            cost = sum(use.amount for use in uses)
            assert cost == (usage.input_tokens + usage.output_tokens) * TOKEN
            self.spent += cost
            if not was_sent:
                self.counted.discard(asker)

    @precondition(lambda self: self.waiting)
    @rule()
    def leave(self) -> None:
        """Callers leave while their requests wait."""
        for asker in self.waiting[: self.many]:
            assert self.rig.settle(asker, was_sent=False) == ()
        del self.waiting[: self.many]

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
        let_in = [asker for asker in self.waiting if asker.is_in]
        self.flying += let_in
        self.counted.update(let_in)
        self.drawn += sum(isinstance(asker.claim, Till) for asker in let_in)
        self.waiting = [asker for asker in self.waiting if not asker.is_in and asker.denial is None]

    @invariant()
    def nothing_is_let_in_beyond(self) -> None:
        """No window and no moment holds more than its limit."""
        if not hasattr(self, "rig"):
            return
        self.sort()
        assert len(self.flying) <= self.places
        times = sorted(Counter(asker.let_in_at_s for asker in self.counted).items())
        for at_s, _ in times:
            in_window = sum(count for at, count in times if 0 <= at - at_s < WINDOW_S - 0.001)
            assert in_window <= self.requests

    @invariant()
    def no_money_is_made_or_lost(self) -> None:
        """What requests hold and cost was held before; what is freed is not spent."""
        if not hasattr(self, "rig"):
            return
        agent = self.rig.agent
        held = sum(agent.holds.values())
        assert agent.budgets["budget"] + held == self.money
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
        for asker in self.flying:
            self.rig.settle(asker, was_sent=False)
        self.rig.wait(10)
        assert self.rig.agent.authority.permits_of("worker") == {}
        assert self.rig.agent.budgets["budget"] == self.money - self.spent
        left = self.money - self.spent
        assert left < 60 * TOKEN or self.rig.one(cap=20, body_bytes=40).is_in


class BusyLimiterMachine(LimiterMachine):
    """The same where there is plenty at first, so that requests draw from tills."""

    size, many = 1_000, 50

    def warm_up(self) -> None:
        """Have shares that are filled ahead, and tills."""
        self.serve(6, None, 0.01)
        assert self.drawn

    @rule(steps=st.integers(1, 6), cap=st.sampled_from([None, 20]), share=st.floats(0, 0.01))
    def serve(self, steps: int, cap: int | None, share: float) -> None:
        """Requests come and end, a hundred each quarter of a second."""
        for _ in range(steps):
            for body_bytes in (40, 60):
                self.waiting += self.rig.ask(self.many, cap=cap, body_bytes=body_bytes)
                self.rig.run()
                self.sort()
                self.end_some(0, share)
            self.wait(0.25)

    @rule()
    def crowd(self) -> None:
        """So many come that they lack something."""
        self.waiting += self.rig.ask(self.places // 2, cap=20, body_bytes=40)
        self.sort()


TestLimiter = LimiterMachine.TestCase
TestLimiter.settings = settings(max_examples=tries(60), stateful_step_count=40, deadline=None)
TestBusyLimiter = BusyLimiterMachine.TestCase
TestBusyLimiter.settings = settings(max_examples=tries(30), stateful_step_count=20, deadline=None)
