"""How many tokens requests will probably use."""

from penstock.gateway.demand import Demand
from penstock.gateway.estimate import Habit, Habits
from penstock.gateway.limits import UNSEEN_OUTPUT_TOKENS

_DEMAND = Demand(400, None, 1, 0, has_other_caps=False)
_FEW = Demand(400, 20, 2, 0, has_other_caps=False)


def test_nothing_seen_means_a_token_for_four_bytes() -> None:
    """And as much output as is named, up to a bound, for each answer."""
    habit = Habit()
    assert habit.estimate(_DEMAND, most=10**6) == (101, UNSEEN_OUTPUT_TOKENS)
    assert habit.estimate(_DEMAND, most=50) == (101, 50)
    assert habit.estimate(_FEW, most=50) == (101, 40)


def test_the_input_follows_what_was_seen() -> None:
    """A language that takes more tokens a byte is soon known."""
    habit = Habit()
    for _ in range(100):
        habit.learn(400, 200, 10)
    assert 200 <= habit.estimate(_DEMAND, most=1)[0] <= 201
    for _ in range(100):
        habit.learn(400, 100, 10)
    assert 100 <= habit.estimate(_DEMAND, most=1)[0] <= 105


def test_the_output_is_what_is_usual() -> None:
    """95 of 100 requests write no more; what a request names is a bound."""
    habit = Habit()
    for number in range(400):
        habit.learn(400, 100, 10 if number % 100 < 90 else 500 if number % 100 < 98 else 9_000)
    assert habit.estimate(_DEMAND, most=10**6)[1] == 500
    assert habit.estimate(_FEW, most=10**6)[1] == 40


def test_old_outputs_are_forgotten() -> None:
    """What was usual before the last 400 requests does not count."""
    habit = Habit()
    for _ in range(400):
        habit.learn(400, 100, 5_000)
    for _ in range(400):
        habit.learn(400, 100, 7)
    assert habit.estimate(_DEMAND, most=10**6)[1] == 7


def test_organizations_have_habits_of_their_own() -> None:
    """One's use says nothing about another's, nor one alias' about another's."""
    habits = Habits()
    habits.get("org-a", "small").learn(400, 400, 1)
    assert habits.get("org-a", "small").estimate(_DEMAND, most=1)[0] > 399
    assert habits.get("org-b", "small").estimate(_DEMAND, most=1)[0] == 101
    assert habits.get("org-a", "large").estimate(_DEMAND, most=1)[0] == 101
