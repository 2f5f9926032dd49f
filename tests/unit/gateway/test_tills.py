"""What frequent requests draw from: when they do, and that nothing of it is lost or given twice."""

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.effort import tries
from tests.fakes.limiter_rig import A_KEY, NOTHING, ORGANIZATION, TOKEN, Asker, LimiterRig
from tests.fakes.limits_agent import at_once

from penstock.contract.limits import Ask, Limit, Metric
from penstock.contract.money import Budget, Hold, HoldUse, Price
from penstock.contract.node import LimitsClock
from penstock.contract.snapshot import Key
from penstock.gateway.dialects.openai_usage import Usage
from penstock.gateway.errors import CONCURRENCY_EXCEEDED, RATE_EXCEEDED
from penstock.gateway.limits import TILL_RESTS_MS, TOLD_MS
from penstock.gateway.money import Account, OpenHold, cost_of
from penstock.gateway.quota import Terms
from penstock.gateway.till import Till
from penstock.limits.prices import reduced_factors
from penstock.limits.rules import STEP_MS

PLENTY = 10**9
SERVED = 1_700
"""Requests of `_rig`."""
MONEY = 10**15
OTHER_KEY = Key("key-b", b"", "org-a", "project-b")


def _rig(*limits: Limit) -> LimiterRig:
    """Return a rig with shares that are filled well: of plenty, but for some limits."""
    rig = LimiterRig(budget=MONEY)
    rig.limit(
        Limit("r", Metric.REQUESTS, PLENTY),
        Limit("i", Metric.INPUT_TOKENS, PLENTY),
        Limit("o", Metric.OUTPUT_TOKENS, PLENTY),
        Limit("c", Metric.CONCURRENCY, PLENTY, window_s=0),
    )
    rig.limit(*limits, Limit("p", Metric.REQUESTS, PLENTY), owner=ORGANIZATION)
    rig.budget(Budget("budget", "EUR"))
    for _ in range(8):  # then each next sub-window is asked for ahead
        _serve(rig, 200)
        rig.wait(STEP_MS / 1_000)
    _serve(rig, 100)
    rig.loop.now_s += TILL_RESTS_MS / 1_000
    return rig


def _serve(rig: LimiterRig, count: int) -> None:
    askers = rig.ask(count)
    rig.run()
    for asker in askers:
        rig.end(asker, output_tokens=10)


def _drawn(askers: list[Asker]) -> list[Asker]:
    return [asker for asker in askers if isinstance(asker.claim, Till)]


def _use(rig: LimiterRig, terms: Terms) -> dict[str, int]:
    """Return how much of each limit and of the budget is used when all is settled, by rule."""
    rig.wait(10)
    assert rig.agent.authority.permits_of("worker") == {}
    used = {"money": MONEY - rig.agent.budgets["budget"]}
    for meter in terms.meters:
        ask, name = Ask(meter.bucket, 0, 0), f"{rig.loop.now_s}-{meter.bucket.id}"
        leases = at_once(rig.agent.authority.take([ask], take_id=name, holder=""))
        assert isinstance(leases, tuple)
        rule = meter.bucket.id.partition("/")[2].partition(":")[0]
        used[rule] = meter.bucket.limit - leases[0].remaining
    return used


def test_frequent_requests_draw_from_a_till() -> None:
    """The first few take for themselves; then nearly all draw what was taken for many."""
    rig = _rig()
    askers = rig.ask(100)
    assert all(asker.is_in for asker in askers)
    drawn = _drawn(askers)
    assert len(drawn) >= 95
    assert len({id(asker.claim) for asker in drawn}) <= 4  # each twice as large as the one before


def test_a_till_ends_with_its_terms() -> None:
    """The moment that a raise ends, nobody draws any more of what was taken under it."""
    raised = Limit("e", Metric.REQUESTS, PLENTY, raised_limit=2 * PLENTY, raised_until=5_000)
    rig = _rig(raised)
    asker = _drawn(rig.ask(100))[-1]
    till, quota = asker.claim, rig.quotas[A_KEY]
    assert isinstance(till, Till)
    assert till.units >= 2
    assert rig.limiter.draw(quota, rig.target, asker.demand, 4_999.9) is till
    late = rig.limiter.draw(quota, rig.target, asker.demand, 5_000.0)
    assert late is None or late.terms is not till.terms


def test_what_has_a_target_of_its_own_draws_by_its_own_bounds() -> None:
    """What was drawn from last is of no use to a request for another model."""
    rig = _rig()
    asker = _drawn(rig.ask(100))[-1]
    till, quota = asker.claim, rig.quotas[A_KEY]
    assert isinstance(till, Till)
    other = msgspec.structs.replace(rig.target, alias="model-b")
    found = rig.limiter.draw(quota, other, asker.demand, 1_010.0)
    assert found is None or found.terms is not till.terms
    assert rig.limiter.draw(quota, rig.target, asker.demand, 1_010.0) is till


def test_rare_requests_take_for_themselves() -> None:
    """Nothing is taken for others that may never come."""
    rig = _rig()
    rig.loop.now_s += 2 * TOLD_MS / 1_000
    for _ in range(50):
        rig.loop.now_s += TOLD_MS / 1_000
        assert not _drawn(rig.ask())


def test_what_is_drawn_is_counted_exactly() -> None:
    """In whatever order requests end, sent or not, in whichever sub-window."""
    rig = _rig()
    asker = rig.one()
    rig.end(asker)
    assert asker.claim is not None
    terms = asker.claim.terms
    before = _use(rig, terms)
    draw = random.Random(1)
    flying: list[Asker] = []
    sent = inputs = outputs = drawn = 0
    for _ in range(60):
        rig.wait(draw.choice([0.0, 0.004, 0.05]))
        askers = rig.ask(draw.randint(1, 60), cap=draw.choice([20, 30, None]))
        rig.run()
        drawn += len(_drawn(askers))
        flying += askers
        draw.shuffle(flying)
        while len(flying) > 100:
            asker, was_sent = flying.pop(), draw.random() < 0.9
            usage = Usage(draw.randint(1, 400), draw.randint(0, 20)) if was_sent else NOTHING
            rig.settle(asker, usage, was_sent=was_sent)
            sent += was_sent
            inputs, outputs = inputs + usage.input_tokens, outputs + usage.output_tokens
    assert drawn > 1_000
    for ending in flying:
        rig.settle(ending, was_sent=False)
    used = {name: amount - before[name] for name, amount in _use(rig, terms).items()}
    assert used == {
        "r": sent,
        "p": sent,
        "i": inputs,
        "o": outputs,
        "c": 0,
        "money": (inputs + outputs) * TOKEN,
    }


@settings(max_examples=tries(50))
@given(
    figures=st.tuples(*[st.integers(0, 10**13)] * 4)
    | st.tuples(*[st.integers(0, 10**5).map(lambda round_: round_ * 10**8)] * 4),
    usage=st.builds(Usage, *[st.integers(0, 10**6)] * 2, st.none() | st.integers(0, 2 * 10**6)),
    part=st.integers(0, 10**9) | st.just(10**18),
)
def test_what_is_drawn_costs_what_it_would_by_itself(
    figures: tuple[int, int, int, int], usage: Usage, part: int
) -> None:
    """To the nano-unit, and never more than was held for it."""
    rig = LimiterRig(budget=MONEY)
    rig.limit(Limit("r", Metric.REQUESTS, PLENTY))
    (asker,) = rig.ask()
    assert asker.claim is not None
    price = Price("EUR", 0, *figures)
    account = Account(Budget("other", "EUR"), "org-a", "")
    till = Till(asker.claim.terms, 10)
    till.hold, till.part = OpenHold(account, Hold("hold", 10**18, 0, 1), 0), part
    till.factors = reduced_factors(price)
    cost = min(cost_of(price, usage), part)
    assert till.end(1, usage, was_sent=True, is_typical=False) == (HoldUse("hold", cost),)
    assert till.spent == cost


def test_units_that_nobody_draws_go_back() -> None:
    """Within two sweeps nothing is taken but for the one request that is in flight."""
    rig = _rig()
    askers = rig.ask(70)
    staying = _drawn(askers)[0]
    for asker in askers:
        if asker is not staying:
            rig.end(asker)
    rig.loop.now_s += TOLD_MS / 1_000
    rig.limiter.sweep()
    assert isinstance(staying.claim, Till)
    meters = staying.claim.terms.meters
    (flying,) = [meter.used for meter in meters if meter.bucket.is_permits]
    assert flying == 1
    rig.end(staying)
    rig.wait(10)
    assert rig.agent.authority.permits_of("worker") == {}


@pytest.mark.parametrize(
    ("limit", "error"),
    [
        (Limit("few", Metric.REQUESTS, 4_500), RATE_EXCEEDED),
        (Limit("few", Metric.CONCURRENCY, 3_000, window_s=0), CONCURRENCY_EXCEEDED),
    ],
)
def test_units_are_there_for_whoever_lacks_them(limit: Limit, error: object) -> None:
    """Of a limit every one is let in, though tills of other kinds were filled just before."""
    rig = _rig(limit)
    kinds = [rig.ask(9, cap=cap) for cap in (1, 2, 4, 8, 16, 32, 64)]
    rig.run()
    assert all(_drawn(askers) for askers in kinds)
    crowd = rig.ask(4_000)
    rig.run()
    let_in = sum(asker.is_in for askers in [crowd, *kinds] for asker in askers)
    assert let_in == limit.limit - (SERVED if limit.metric is Metric.REQUESTS else 0)
    assert {asker.error for asker in crowd if not asker.is_in} == {error}


def test_places_of_a_scarce_limit_go_back_one_by_one() -> None:
    """Once others may wait for them, places do not wait for the rest of their till."""
    rig = _rig(Limit("few", Metric.CONCURRENCY, 3_000, window_s=0))
    askers = rig.ask(500)
    rig.run()
    drawn = _drawn(askers)
    assert len(drawn) > 90
    others = rig.ask(2_400, key=OTHER_KEY)
    rig.run()
    assert all(asker.is_in for asker in others)
    for left, asker in enumerate(reversed(drawn[-50:]), start=1):
        rig.end(asker)
        held = rig.agent.authority.permits_of("worker")
        assert held["org-a/few:o"] == 2_900 - left


def test_units_are_not_used_by_another_clock() -> None:
    """When the authority's time turns out to be another, what was taken is taken anew."""
    rig = _rig()
    first = _drawn(rig.ask(70))[-1].claim
    rig.limiter.take(LimitsClock(rig.agent.clock.base_ms + 20))
    assert all(asker.claim is not first for asker in rig.ask(10))


def test_a_till_never_outlives_its_hold() -> None:
    """What is left of it when the hold's time is up is freed with it."""
    rig = _rig()
    rig.wait(10)
    rig.agent.use_ms = 1_000
    _serve(rig, 200)
    rig.wait(0.9)
    _serve(rig, 100)
    flying = rig.ask(100)
    rig.run()
    rig.wait(0.2)
    held = sum(use.amount for asker in flying if asker.claim for use in asker.claim.hold_uses)
    spent = sum(rig.agent.holds.values()) - held
    rig.wait(2)
    for asker in flying:
        rig.end(asker, input_tokens=0)
    rig.wait(0.5)
    assert sum(rig.agent.holds.values()) == spent


def test_callers_of_a_till_are_told_of_their_limits() -> None:
    """The same lines as others, a hundredth of a second old at most, and the cap if it is ours."""
    rig = _rig()
    named, unnamed = rig.ask(50, cap=20)[-1].claim, rig.ask(50, cap=None)[-1].claim
    assert isinstance(named, Till)
    assert isinstance(unnamed, Till)
    assert b"x-ratelimit-remaining-requests: 9999" in named.lines
    assert b"x-penstock-max-tokens" not in named.lines
    assert named.cap is None
    assert unnamed.lines.endswith(b"x-penstock-max-tokens: 4096\r\n")
    assert unnamed.cap == 4096
    rig.loop.now_s += TOLD_MS / 1_000
    assert rig.ask(50, cap=20)[-1].claim is not named
