"""Between admit and select: takes what a request may use, and asks the agent for what lacks.

Whoever finds enough in the worker's own shares goes on at once. Others wait `PARK_S` at most,
while one question is under way for all that lack the same.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

from penstock.contract.money import HoldUse
from penstock.contract.node import Granted, HoldsChecked, HoldsGranted, LimitsClock, WorkerMessage
from penstock.gateway.claim import (
    UNAVAILABLE,
    Claim,
    Claimant,
    Denial,
    graver,
    never_fits,
    price_missing,
    quota_exhausted,
    rate_exceeded,
)
from penstock.gateway.demand import Demand
from penstock.gateway.dialects.openai_usage import Usage
from penstock.gateway.estimate import Habits
from penstock.gateway.lessor import Lessor
from penstock.gateway.limits import (
    BELIEVED_MS,
    MONEY_BELIEVED_MS,
    MONEY_REMEMBERED_MS,
    PARK_S,
    PARKED,
)
from penstock.gateway.money import Account, Purse
from penstock.gateway.offer import Target
from penstock.gateway.quota import Books, OwnedLimit, Quota
from penstock.gateway.stats import Stats
from penstock.gateway.teller import Teller
from penstock.gateway.till import Till
from penstock.kit.running_time import call_when_read
from penstock.limits.allowances import Allowance, Allowances, costs_of
from penstock.limits.rules import organization_of

_NS_IN_MS = 1_000_000
_TIMER_S = 0.001
"""Timers may be early by this much."""
_UNUSED = costs_of(input_tokens=0, output_tokens=0, requests=0, concurrency=0)


class Limiter:
    """All limits and budgets of a worker.

    Args:
        loop: Calls back.
        monotonic_ns: Nanoseconds of CLOCK_MONOTONIC.
        name: Unique among all workers, ever: begins the names of takings.
        send: Tells the agent something; False when it is away.
        stats: Counts.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        monotonic_ns: Callable[[], int],
        name: str,
        send: Callable[[WorkerMessage], bool],
        stats: Stats,
    ) -> None:
        """See the class."""
        self._loop = loop
        self._monotonic_ns = monotonic_ns
        self._stats = stats
        self._allowances = Allowances()
        self._purse = Purse()
        self._books = Books(self._allowances, self._purse, Habits())
        self._lessor = Lessor(self._allowances, self._purse, name=name, send=send)
        self._teller = Teller(self._allowances, self._purse, self._lessor.time_at)
        self._parked: deque[Claim] = deque()
        self._asking: dict[Claim, None] = {}
        """Claims that something is to be asked for when this turn of the loop ends."""
        self._is_called = False
        self._has_timer = False
        self._has_settled = False

    # What exchanges ask

    def draw(self, quota: Quota, target: Target, demand: Demand, now_s: float) -> Till | None:
        """Let a request in, if it is one of a frequent kind and there is plenty of everything.

        Args:
            quota: Its principal's.
            target: Where it is to be sent.
            demand: What it asks for.
            now_s: When it came, as for `claim`.

        Returns:
            What it took of, to be settled once; None when it has to make a claim.
        """
        now_ms = self._monotonic_ns() // _NS_IN_MS
        till = quota.drawn.get(demand.kind)
        if (
            till is None
            or till.target is not target
            or not till.units
            or now_ms >= till.until_ms
            or now_s >= till.until_s
        ):
            till = self._find_till(quota, target, demand, now_s, now_ms)
            if till is None:
                return None
        till.units -= 1
        return till

    def _find_till(
        self, quota: Quota, target: Target, demand: Demand, now_s: float, now_ms: int
    ) -> Till | None:
        """Return what to draw from where that is not what was drawn from last."""
        deployment = target.deployment
        terms = quota.find_terms(target.alias, deployment.model, now_s, self._books)
        most = deployment.max_output_tokens
        till = terms.tills.get(demand.kind)
        if till is None or not till.units or now_ms >= till.until_ms or till.most != most:
            till = self._teller.fill(terms, demand.kind, most, now_ms)
            if self._allowances.low or self._purse.low:
                self._call_soon()
        if till is not None:
            till.target = target
            quota.drawn[demand.kind] = till
        return till

    def claim(
        self, claimant: Claimant, quota: Quota, target: Target, demand: Demand, now_s: float
    ) -> Claim:
        """Return what a request has to take before it is sent to a target.

        Args:
            claimant: The request.
            quota: Its principal's.
            target: Where it is to be sent.
            demand: What it asks for.
            now_s: When it came, seconds since the Unix epoch: raises end and prices begin.
        """
        deployment = target.deployment
        terms = quota.find_terms(target.alias, deployment.model, now_s, self._books)
        return Claim(claimant, terms, demand, deployment.max_output_tokens)

    def covers(
        self, taken: Claim | Till, quota: Quota, target: Target, demand: Demand, now_s: float
    ) -> bool:
        """Return whether what a request took for one target is what it takes for another one."""
        deployment = target.deployment
        terms = quota.find_terms(target.alias, deployment.model, now_s, self._books)
        is_as_long = demand.cap is not None or taken.most == deployment.max_output_tokens
        return taken.terms is terms and is_as_long

    def admit(self, claim: Claim) -> None:
        """Let a request in, turn it away, or have it wait for one of the two."""
        if claim.terms.unpriced is not None:
            self._turn_away(claim, price_missing(claim.terms.unpriced))
        elif not self._decide(claim):
            if len(self._parked) >= PARKED:
                self._give_up(claim)
                return
            claim.is_waiting = True
            claim.deadline_s = self._loop.time() + PARK_S
            self._parked.append(claim)
            self._wake_at(claim.deadline_s)

    def settle(
        self, taken: Claim | Till, demand: Demand, usage: Usage, *, was_sent: bool, is_typical: bool
    ) -> tuple[HoldUse, ...]:
        """Give back what a request did not use; called once for each, whatever became of it.

        Args:
            taken: What it took, or wanted to, or what it took of.
            demand: What it asked for.
            usage: What it used.
            was_sent: Whether an engine got it: else not even the request counts.
            is_typical: Whether others like it may be expected to use as much.

        Returns:
            What it cost, hold by hold.
        """
        if isinstance(taken, Till):
            uses = taken.end(demand.body_bytes, usage, was_sent=was_sent, is_typical=is_typical)
            if not taken.open or taken.is_prompt or self._parked:
                self._teller.settle(taken)
                self._note_settled()
            return uses
        taken.is_waiting, taken.claimant = False, None
        held, taken.held = taken.held, None
        if held is None:
            return ()
        inputs, outputs = usage.input_tokens, usage.output_tokens
        actual = (1, inputs, outputs, inputs + outputs, 0) if was_sent else _UNUSED
        try:
            self._allowances.settle(held, actual)
        finally:  # money comes back whatever a bug does to rates
            uses = self._purse.settle(taken.spent, usage) if taken.spent else ()
        if is_typical:
            taken.terms.habit.learn(demand.body_bytes, inputs, outputs)
        self._note_settled()
        return uses

    def _note_settled(self) -> None:
        """Have others go on with what came back."""
        if self._parked or self._allowances.is_urgent:
            self._has_settled = True
            self._call_soon()

    def _now_ms(self) -> int:
        return self._monotonic_ns() // _NS_IN_MS

    # What the worker calls

    @property
    def waiting_count(self) -> int:
        """How many requests wait to hear about their limits."""
        return sum(claim.is_waiting for claim in self._parked)

    def sweep(self) -> None:
        """Ask ahead, and give back what nobody needs; called every `limits.SWEEP_S`."""
        now_ms = self._now_ms()
        self._teller.sweep(now_ms)
        self._lessor.sweep(now_ms)

    def connected(self) -> None:
        """Go on with an agent: the link to it is open, and Hello said."""
        self._lessor.connected(self._now_ms())

    def lost(self) -> None:
        """Do without an agent."""
        self._lessor.lost()
        self._distrust(self._now_ms())
        self._retry()

    def take(self, message: Granted | HoldsGranted | HoldsChecked | LimitsClock) -> None:
        """Take in what the agent says."""
        now_ms = self._now_ms()
        match message:
            case Granted():
                scarce = self._lessor.granted(message, now_ms)
                if scarce:
                    self._teller.give_back(organization_of(scarce[0].bucket.id), scarce)
            case HoldsGranted():
                self._lessor.holds_granted(message, now_ms)
            case HoldsChecked(at_ms, is_there=True):
                self._purse.trust_from(at_ms)
            case HoldsChecked():
                self._distrust(now_ms)
            case LimitsClock(base_ms):
                self._teller.close()  # their time was reckoned by the old clock
                self._lessor.base_ms = base_ms
        self._retry()
        self._call_soon()

    def _distrust(self, now_ms: int) -> None:
        """Let go of what must not be spent while its budget cannot be reached."""
        accounts = self._purse.list_strict()
        for account in accounts:
            self._teller.give_back(account.organization, (account,))
        self._purse.distrust(now_ms)

    # Deciding

    def _decide(self, claim: Claim) -> bool:
        """Let a request in or turn it away; False when it has to wait for an answer."""
        now_ms = self._now_ms()
        terms, amounts = claim.terms, claim.amounts
        if amounts and not self._purse.has_all(terms.accounts, amounts, now_ms):
            return self._weigh(claim, now_ms)
        at_ms = self._lessor.time_at(now_ms)
        held = self._allowances.take(terms.meters, claim.costs, at_ms, claim.passed)
        if held is None:
            return self._weigh(claim, now_ms)
        claim.held = held
        if amounts:
            claim.spent = self._purse.take(terms.accounts, amounts, terms.prices, now_ms)
        if self._allowances.low or self._purse.low:
            self._call_soon()
        if claim.is_waiting:
            self._end_wait(claim)
        claimant, claim.claimant = claim.claimant, None
        if claimant is not None:
            claimant.let_in()
        return True

    def _weigh(self, claim: Claim, now_ms: int) -> bool:
        """Decide by what was just heard of what lacks; or ask."""
        terms, cap = claim.terms, claim.cap
        if self._teller.give_back(terms.organization, self._lacking(claim)):
            return self._decide(claim)
        denial = self._weigh_money(claim, now_ms, MONEY_BELIEVED_MS)
        passed = set(claim.passed)
        for meter, rule in zip(terms.meters, terms.rules, strict=True):
            cost = claim.costs[meter.metric]
            if meter.left >= cost or meter in passed:
                continue
            verdict = self._weigh_meter(meter, rule, cost, now_ms)
            if verdict is None:
                continue
            if meter in terms.lenient:
                passed.add(meter)
                self._note_passed(claim, rule, verdict)
            else:
                denial = graver(denial, verdict)
        if denial is not None:
            self._turn_away(claim, denial)
            return True
        if len(passed) > len(claim.passed) or claim.cap != cap:
            claim.passed = frozenset(passed)
            return self._decide(claim)
        self._asking[claim] = None
        self._call_soon()
        return False

    def _lacking(self, claim: Claim) -> list[Allowance | Account]:
        """Return the meters and accounts that have less than a request costs."""
        terms = claim.terms
        amounts = zip(terms.accounts, claim.amounts, strict=False)
        return [
            *(account for account, amount in amounts if account.left < amount),
            *self._allowances.lacking(terms.meters, claim.costs),
        ]

    def _weigh_money(self, claim: Claim, now_ms: int, believed_ms: int) -> Denial | None:
        for index, account in enumerate(claim.terms.accounts):
            amount = claim.amounts[index]
            if self._purse.has(account, amount, now_ms):
                continue
            if now_ms - account.told_at_ms >= believed_ms:
                continue
            if account.is_away:
                return UNAVAILABLE
            have = account.left + account.remaining
            if amount > have and not claim.lower_cap(index, have):
                return quota_exhausted(account)
        return None

    def _weigh_meter(
        self, meter: Allowance, rule: OwnedLimit, cost: int, now_ms: int
    ) -> Denial | None:
        limit = meter.bucket.limit
        if cost > limit:
            return never_fits(rule, limit, cost)
        if now_ms - meter.told_at_ms >= BELIEVED_MS:
            return None
        if meter.is_away:
            return UNAVAILABLE
        if cost <= meter.left + meter.remaining:
            return None
        retry_at_ms = meter.retry_at_ms
        wait_ms = None if retry_at_ms is None else retry_at_ms - self._lessor.time_at(now_ms)
        return rate_exceeded(rule, limit, wait_ms)

    def _note_passed(self, claim: Claim, rule: OwnedLimit, verdict: Denial) -> None:
        if verdict is UNAVAILABLE:
            self._stats.limit_unanswered(claim.terms.organization, rule.limit)
        else:
            claim.exceeded += (rule.limit,)
            self._stats.limit_exceeded(claim.terms.organization, rule.limit)

    def _turn_away(self, claim: Claim, denial: Denial) -> None:
        if claim.is_waiting:
            self._end_wait(claim)
        if denial.metric:
            self._stats.limit_refused(claim.terms.organization, denial.metric)
        claimant, claim.claimant = claim.claimant, None
        if claimant is not None:
            claimant.turn_away(denial)

    # Waiting

    def _retry(self) -> None:
        """Decide anew about all that wait: something may have come for them."""
        parked, self._parked = self._parked, deque()
        try:
            while parked:
                claim = parked.popleft()
                if claim.is_waiting and not self._decide(claim):
                    self._parked.append(claim)
        finally:  # one's bug leaves the others where they were
            self._parked += parked

    def _begin_expire(self) -> None:
        """Look who waited in vain once the answers are read that came in time."""
        call_when_read(self._loop, partial(self._expire, self._loop.time() + _TIMER_S))

    def _expire(self, now_s: float) -> None:
        """Have those wait no longer who waited in vain until then."""
        self._has_timer = False
        parked, self._parked = self._parked, deque()
        try:
            while parked:
                claim = parked.popleft()
                if claim.is_waiting and now_s >= claim.deadline_s:
                    self._give_up(claim)
                elif claim.is_waiting:
                    self._parked.append(claim)
        finally:  # as above
            self._parked += parked
            if self._parked:
                self._wake_at(min(claim.deadline_s for claim in self._parked))

    def _give_up(self, claim: Claim) -> None:
        """Decide without an answer: what is not hard stops nobody."""
        terms, now_ms = claim.terms, self._now_ms()
        lacking = set(self._allowances.lacking(terms.meters, claim.costs)) - claim.passed
        has_money = self._purse.has_all(terms.accounts, claim.amounts, now_ms)
        if has_money and lacking <= terms.lenient:
            for meter, rule in zip(terms.meters, terms.rules, strict=True):
                if meter in lacking:
                    self._note_passed(claim, rule, UNAVAILABLE)
            claim.passed |= lacking
            if self._decide(claim):
                return
        denial = self._weigh_money(claim, now_ms, MONEY_REMEMBERED_MS)
        self._turn_away(claim, denial or UNAVAILABLE)

    def _end_wait(self, claim: Claim) -> None:
        claim.is_waiting = False
        self._stats.limit_waited(self._loop.time() - claim.deadline_s + PARK_S)

    def _wake_at(self, when_s: float) -> None:
        if not self._has_timer:
            self._has_timer = True
            self._loop.call_at(when_s, self._begin_expire)

    def _call_soon(self) -> None:
        if not self._is_called:
            self._is_called = True
            self._loop.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        """Ask for all that lacks, once for all that came up in this turn of the loop."""
        self._is_called = False
        now_ms = self._now_ms()
        asking, self._asking = self._asking, {}
        if asking:
            self._lessor.flush(now_ms)  # they may need just what is to go back
        was_told = not self._lessor.ask([claim for claim in asking if claim.is_waiting], now_ms)
        if self._parked and (was_told or self._has_settled):
            self._retry()
        self._has_settled = False
        self._lessor.flush(now_ms)
