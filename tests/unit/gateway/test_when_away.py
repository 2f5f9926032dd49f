"""Budgets that refuse requests while they cannot be reached, though money is held for them."""

from tests.fakes.limiter_rig import PROJECT, TOKEN, Asker, LimiterRig

from penstock.contract.money import Budget, WhenAway
from penstock.contract.node import CheckHolds
from penstock.contract.snapshot import Key
from penstock.gateway.errors import LIMITS_UNAVAILABLE
from penstock.gateway.limits import (
    CHECK_HOLDS_MS,
    HOLD_TRUSTED_MS,
    MONEY_BELIEVED_MS,
    PARK_S,
    SWEEP_S,
)
from penstock.gateway.till import Till

MONEY = 10**9 * TOKEN
OTHER_KEY = Key("key-b", b"", "org-a", "project-b")


def _rig(when_away: WhenAway = "refuse") -> LimiterRig:
    """Return a rig that holds money for more requests than any test makes."""
    rig = LimiterRig(budget=MONEY)
    rig.budget(Budget("budget", "EUR", when_away=when_away))
    for _ in range(3):
        for asker in (askers := rig.ask(100)):
            assert not asker.denial
        rig.run()
        for asker in askers:
            rig.end(asker, output_tokens=10)
    return rig


def _expect_refused_at_once(rig: LimiterRig) -> None:
    (asker,) = rig.ask()
    rig.loop.turn()
    assert asker.error is LIMITS_UNAVAILABLE


def test_without_an_agent_nothing_is_spent() -> None:
    """The moment its link is lost all requests are refused, and what was held goes back later."""
    rig = _rig()
    (flying,) = rig.ask()
    assert flying.is_in
    rig.lose()
    _expect_refused_at_once(rig)
    rig.find()
    rig.wait(MONEY_BELIEVED_MS / 1_000)
    assert rig.one().is_in
    rig.end(flying, output_tokens=100)
    rig.wait(10)
    assert rig.agent.budgets["budget"] == MONEY - (3 * 100 * 110 + 200 + 500) * TOKEN


def test_without_a_database_nothing_is_spent_when_that_is_known() -> None:
    """It is looked at every second, and nothing more is spent when it was found to be away."""
    rig = _rig()
    rig.wait(SWEEP_S)
    rig.agent.is_away = True
    ran_s = _time_it_runs(rig)
    assert ran_s <= CHECK_HOLDS_MS / 1_000 + SWEEP_S
    _expect_refused_at_once(rig)
    rig.agent.is_away = False
    rig.wait(0.5)
    assert rig.one().is_in


def test_without_a_word_nothing_is_spent_after_a_while() -> None:
    """When the agent hangs, what is held may be spent for three seconds since the last look."""
    rig = _rig()
    rig.wait(SWEEP_S)
    rig.is_hung = True
    ran_s = _time_it_runs(rig)
    assert HOLD_TRUSTED_MS / 1_000 - 1 <= ran_s <= HOLD_TRUSTED_MS / 1_000 + 0.01
    (asker,) = rig.ask()
    rig.wait(PARK_S + 0.01)
    assert asker.error is LIMITS_UNAVAILABLE


def test_with_a_database_it_is_spent_on() -> None:
    """As long as it is there, requests that come all the time find what they need."""
    rig = _rig()
    for _ in range(40):
        asker = rig.one()
        assert asker.is_in
        rig.end(asker)
        rig.wait(SWEEP_S)
    assert 8 <= len(rig.asked(CheckHolds)) <= 10


def test_frequent_requests_are_refused_as_well() -> None:
    """What they draw from is closed at the same moment."""
    rig = _rig()
    drawn: list[Asker] = []
    while not any(isinstance(asker.claim, Till) for asker in drawn):
        drawn = rig.ask(30)
        rig.run()
        for asker in drawn:
            rig.settle(asker, was_sent=False)
        rig.loop.now_s += 0.004
    flying = rig.ask(2)
    assert all(isinstance(asker.claim, Till) and asker.claim.units for asker in flying)
    rig.lose()
    _expect_refused_at_once(rig)
    rig.find()
    for asker in flying:
        rig.end(asker, output_tokens=100)
    rig.wait(10)
    assert rig.agent.budgets["budget"] == MONEY - (3 * 100 * 110 + 2 * 200) * TOKEN


def test_what_others_may_spend_is_spent_on() -> None:
    """Requests that the budget does not bear on go on without an agent."""
    rig = LimiterRig(lax=MONEY, strict=MONEY)
    rig.budget(Budget("lax", "EUR"))
    rig.budget(Budget("strict", "EUR", when_away="refuse"), owner=PROJECT)
    assert rig.one().is_in
    assert rig.one(key=OTHER_KEY).is_in
    rig.lose()
    _expect_refused_at_once(rig)
    (asker,) = rig.ask(key=OTHER_KEY)
    assert asker.is_in


def test_nobody_looks_for_budgets_that_are_spent_on() -> None:
    """Without one that refuses nothing is asked, and what is held is spent without an agent."""
    rig = _rig("spend_held")
    rig.wait(3)
    assert rig.asked(CheckHolds) == []
    rig.lose()
    assert rig.one().is_in


def _time_it_runs(rig: LimiterRig) -> float:
    """Have a request come ten times a second until one is not let in; return how long that was."""
    began_s = rig.loop.now_s
    next_sweep_s = began_s + SWEEP_S
    while True:
        (asker,) = rig.ask()
        rig.run()
        if not asker.is_in:
            return rig.loop.now_s - began_s
        rig.settle(asker, was_sent=False)
        rig.loop.now_s += 0.1
        if rig.loop.now_s >= next_sweep_s:
            next_sweep_s += SWEEP_S
            rig.limiter.sweep()
            rig.run()
