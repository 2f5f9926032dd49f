"""Admission by limits and budgets: what is let in, what waits, what is refused and how."""

import pytest
from tests.fakes.limiter_rig import ORGANIZATION, PROJECT, TOKEN, LimiterRig

from penstock.contract.limits import Enforcement, Limit, Metric
from penstock.contract.money import Budget
from penstock.contract.node import Granted, PermitsHeld, Want, WantHolds
from penstock.contract.snapshot import Key
from penstock.gateway.claim import Claim
from penstock.gateway.errors import (
    CONCURRENCY_EXCEEDED,
    LIMITS_UNAVAILABLE,
    PRICE_MISSING,
    QUOTA_EXHAUSTED,
    RATE_EXCEEDED,
    REQUEST_TOO_LARGE,
)
from penstock.gateway.limits import PARK_S


def test_no_more_than_the_limit_is_let_in() -> None:
    """Of many at once as many as the limit gives; the rest hear when to come back, exactly."""
    rig = LimiterRig()
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
    rig = LimiterRig()
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
    rig = LimiterRig()
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
    rig = LimiterRig()
    rig.limit(Limit("small", Metric.INPUT_TOKENS, 50))
    assert rig.one(body_bytes=4_000).error is REQUEST_TOO_LARGE


def test_a_request_that_names_no_output_fits_any_limit_of_output() -> None:
    """What it may write is then a guess, and no guess is held against it."""
    rig = LimiterRig()
    rig.limit(Limit("small", Metric.OUTPUT_TOKENS, 50))
    assert rig.one(cap=None).is_in
    assert rig.one(cap=None).error is RATE_EXCEEDED


def test_places_are_free_when_requests_end() -> None:
    """As many as the limit are in flight, and not one more."""
    rig = LimiterRig()
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
    rig = LimiterRig()
    rig.limit(Limit("c", Metric.CONCURRENCY, 2, window_s=0))
    rig.end(rig.one())
    assert rig.agent.authority.permits_of("worker") == {}


def test_idle_places_of_a_large_limit_go_back_in_time() -> None:
    """They are kept for a moment, since requests come in bursts."""
    rig = LimiterRig()
    rig.limit(Limit("c", Metric.CONCURRENCY, 1_000, window_s=0))
    for asker in rig.ask(50):
        rig.run()
        rig.end(asker)
    rig.wait(3)
    assert rig.agent.authority.permits_of("worker") == {}


def test_unused_estimates_come_back() -> None:
    """A request that wrote less than estimated takes only what it wrote."""
    rig = LimiterRig()
    rig.limit(Limit("t", Metric.OUTPUT_TOKENS, 100))
    rig.end(rig.one(cap=100), output_tokens=10)
    assert rig.one(cap=90).is_in


def test_use_beyond_the_estimate_counts() -> None:
    """A request that used more than was taken makes others wait."""
    rig = LimiterRig()
    rig.limit(Limit("t", Metric.INPUT_TOKENS, 500))
    rig.end(rig.one(), input_tokens=490)
    assert rig.one().error is RATE_EXCEEDED


def test_a_request_that_was_never_sent_counts_nothing() -> None:
    """All that it took is there for others."""
    rig = LimiterRig()
    rig.limit(Limit("r1", Metric.REQUESTS, 1))
    asker = rig.one()
    rig.settle(asker, was_sent=False)
    assert rig.one().is_in


def test_what_comes_too_late_to_be_used_is_there_for_the_next_question() -> None:
    """Who was given something for a time that is over is given it anew, and not refused."""
    rig = LimiterRig()
    rig.limit(Limit("r1", Metric.REQUESTS, 1))
    rig.loop.now_s = 50.99
    (asker,) = rig.ask()
    rig.loop.turn()
    (want,) = rig.sent
    rig.sent.clear()
    (granted,) = rig.agent.answer(want)
    rig.loop.now_s = 51.01
    assert isinstance(granted, Granted)
    rig.limiter.take(granted)
    rig.run()
    assert asker.is_in
    assert rig.one().error is RATE_EXCEEDED


def test_what_was_left_over_is_there_for_the_next_question() -> None:
    """When a share's time is over, what nobody used of it can be asked for at once."""
    rig = LimiterRig()
    rig.limit(Limit("r1", Metric.REQUESTS, 2))
    _, unsent = rig.ask(2)
    rig.run()
    rig.settle(unsent, was_sent=False)
    rig.run()
    rig.loop.now_s += 1
    asked = rig.ask(2)
    rig.run()
    assert [asker.is_in for asker in asked] == [True, False]


@pytest.mark.parametrize("enforcement", [Enforcement.SOFT, Enforcement.SHADOW])
def test_rules_that_are_not_hard_stop_nobody(enforcement: Enforcement) -> None:
    """They are counted; a soft one is also named in the answer."""
    rig = LimiterRig()
    rig.limit(Limit("lenient", Metric.REQUESTS, 2, enforcement=enforcement))
    askers = rig.ask(5)
    rig.run()
    assert all(asker.is_in for asker in askers)
    assert rig.count("penstock_limit_exceeded_total") == 3
    lines = [asker.claim.limit_lines() for asker in askers if isinstance(asker.claim, Claim)]
    named = sum(b"x-penstock-limit-exceeded: lenient\r\n" in each for each in lines)
    assert named == (3 if enforcement is Enforcement.SOFT else 0)


def test_without_an_agent_hard_rules_refuse_at_once() -> None:
    """Nobody knows what is left: 503; rules that are not hard let through, which is counted."""
    rig = LimiterRig(is_linked=False)
    rig.limit(Limit("hard", Metric.REQUESTS, 10))
    assert rig.one().error is LIMITS_UNAVAILABLE
    rig.limit(Limit("soft", Metric.REQUESTS, 10, enforcement=Enforcement.SOFT))
    assert rig.one().is_in
    assert rig.count("penstock_limit_unanswered_total") == 1


def test_an_agent_that_hangs_costs_no_more_than_the_wait() -> None:
    """After it the request is refused, or let through by rules that are not hard."""
    rig = LimiterRig()
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
    rig = LimiterRig()
    rig.limit(Limit("hard", Metric.REQUESTS, 10))
    rig.agent.is_away = True
    assert rig.one().error is LIMITS_UNAVAILABLE


def test_who_leaves_while_waiting_takes_nothing() -> None:
    """What was asked for it is there for others, and it is neither let in nor refused."""
    rig = LimiterRig()
    rig.limit(Limit("r1", Metric.REQUESTS, 1))
    (gone,) = rig.ask()
    rig.settle(gone, was_sent=False)
    rig.run()
    assert not gone.is_in
    assert gone.denial is None
    assert rig.one().is_in


def test_a_new_agent_is_told_what_is_held() -> None:
    """Places that were given or returned while nobody listened are not lost."""
    rig = LimiterRig()
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
    rig = LimiterRig()
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
    rig = LimiterRig()
    rig.limit(Limit("r1", Metric.REQUESTS, 1, raised_limit=3, raised_until=1_055))
    assert [rig.one().is_in for _ in range(4)] == [True, True, True, False]
    rig.wait(130)
    assert [rig.one().is_in for _ in range(2)] == [True, False]


def test_money_is_held_at_the_worst_and_settled_at_the_cost() -> None:
    """The event names the exact cost; what a request did not cost is there for the next one."""
    rig = LimiterRig(budget=1_000 * TOKEN)
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
    rig = LimiterRig(budget=5_000 * TOKEN)
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


def test_many_at_the_end_of_a_budget_take_few_questions() -> None:
    """It is asked for one of them, then for all that it has enough for, then found to be empty."""
    rig = LimiterRig(budget=5_200 * TOKEN)
    rig.budget(Budget("budget", "EUR", lowers_cap=False))
    askers = rig.ask(60)
    rig.run()
    assert sum(asker.is_in for asker in askers) == 10
    asked = [want.asks[0].least for want in rig.asked(WantHolds)]
    assert asked == [500 * TOKEN, 3_700 * TOKEN, 500 * TOKEN]


def test_a_cap_is_lowered_to_what_is_left() -> None:
    """Rather fewer output tokens than none, when the budget says so."""
    rig = LimiterRig(budget=450 * TOKEN)
    rig.budget(Budget("budget", "EUR"))
    asker = rig.one(cap=100, body_bytes=400)
    assert asker.is_in
    assert isinstance(asker.claim, Claim)
    assert asker.claim.written_cap == 50
    assert rig.one().error is QUOTA_EXHAUSTED


def test_a_cap_is_not_lowered_to_nothing() -> None:
    """Fewer tokens than are of any use are refused."""
    rig = LimiterRig(budget=405 * TOKEN)
    rig.budget(Budget("budget", "EUR"))
    assert rig.one(cap=100, body_bytes=400).error is QUOTA_EXHAUSTED
    assert rig.one(cap=5, body_bytes=400).is_in


def test_a_model_without_a_price_is_refused() -> None:
    """Nobody knows what it costs in the budget's currency."""
    rig = LimiterRig(budget=10**12)
    rig.budget(Budget("budget", "USD"))
    assert rig.one().error is PRICE_MISSING


def test_without_a_database_what_is_held_is_spent() -> None:
    """Requests run on it; then they are refused, and nothing is overspent."""
    rig = LimiterRig(budget=10**9)
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
    rig = LimiterRig(budget=10_000 * TOKEN)
    rig.agent.use_ms = 1_000
    rig.budget(Budget("budget", "EUR"))
    asker = rig.one()
    rig.wait(2)
    assert rig.agent.budgets["budget"] == 9_500 * TOKEN
    rig.end(asker, input_tokens=100)
    rig.wait(0.25)
    assert rig.agent.budgets["budget"] == 9_900 * TOKEN


def test_an_answer_that_lies_unread_came_in_time() -> None:
    """A worker that stood still for longer than the wait hears its agent before it says no."""
    rig = LimiterRig()
    rig.limit(Limit("hard", Metric.REQUESTS, 10))
    (asker,) = rig.ask()
    rig.loop.turn()
    rig.loop.now_s += 2 * PARK_S
    rig.loop.turn()  # its timer is due before anything is read
    rig.run()
    assert asker.is_in


def test_a_question_about_money_is_repeated_to_a_new_agent() -> None:
    """Under its name, so that nothing is held twice; what was freed is told again."""
    rig = LimiterRig(budget=10_000 * TOKEN)
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


def test_an_empty_budget_is_asked_for_a_few_times_a_second() -> None:
    """However many ask for more than is left, the database hears of it every 250 ms at most."""
    rig = LimiterRig(budget=0)
    rig.budget(Budget("budget", "EUR"))
    for _ in range(100):
        assert rig.one().error is QUOTA_EXHAUSTED
        rig.loop.now_s += 0.01
    assert len(rig.asked(WantHolds)) == 4
    rig.agent.budgets["budget"] = 1_000_000 * TOKEN
    rig.loop.now_s += 0.25
    assert rig.one().is_in


def test_what_was_heard_of_a_budget_is_told_when_no_answer_comes() -> None:
    """Who waits in vain hears that the budget was empty a second ago, or else that nobody knows."""
    rig = LimiterRig(budget=0)
    rig.budget(Budget("budget", "EUR"))
    assert rig.one().error is QUOTA_EXHAUSTED
    rig.is_hung = True
    for seconds, error in ((1.0, QUOTA_EXHAUSTED), (1.5, LIMITS_UNAVAILABLE)):
        rig.wait(seconds)
        asker = rig.one()
        assert asker.denial is None
        rig.wait(PARK_S + 0.01)
        assert asker.error is error


def test_a_bug_of_one_that_waits_strands_no_other() -> None:
    """Those that waited behind it are decided all the same."""
    rig = LimiterRig()
    rig.limit(Limit("r1", Metric.REQUESTS, 3))
    flawed, *others = rig.ask(8)
    flawed.is_in = True  # so it fails when it is let in
    with pytest.raises(AssertionError):
        rig.run()
    rig.wait(PARK_S + 1)
    assert sum(asker.is_in for asker in others) == 2
    assert sum(asker.denial is not None for asker in others) == 5


def test_a_bug_of_one_that_gave_up_strands_no_other() -> None:
    """Those whose time is up later are told so, whatever went wrong with the first."""
    rig = LimiterRig()
    rig.limit(Limit("r1", Metric.REQUESTS, 3))
    rig.is_hung = True
    (flawed,) = rig.ask()
    rig.wait(PARK_S / 2)
    others = rig.ask(4)
    flawed.is_in = True
    with pytest.raises(AssertionError):
        rig.wait(PARK_S)
    rig.wait(PARK_S)
    assert {asker.error for asker in others} == {LIMITS_UNAVAILABLE}
