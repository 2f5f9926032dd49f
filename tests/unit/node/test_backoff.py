"""Pauses after failures."""

from penstock.node.backoff import Pauses, RestartPauses, doubling_s


def test_the_first_death_costs_no_pause() -> None:
    """A worker that dies for the first time, or after a good life, is replaced at once."""
    pauses = RestartPauses()
    assert pauses.next_s(0.1) == 0
    assert pauses.next_s(0.1) == 0.5
    assert pauses.next_s(30.0) == 0
    assert pauses.next_s(0.1) == 0.5


def test_pauses_double_up_to_a_bound() -> None:
    """Deaths in a row are followed by 0.5 s, 1 s, ... and never more than 10 s."""
    pauses = RestartPauses()
    found = [pauses.next_s(29.9) for _ in range(2000)]
    assert found[:8] == [0, 0.5, 1, 2, 4, 8, 10, 10]
    assert found[-1] == 10


def test_doubling_never_overflows() -> None:
    """Any number of failures gives a finite pause."""
    assert doubling_s(10**9, first_s=0.2, most_s=5) == 5


def test_each_rests_for_itself() -> None:
    """A failure makes its own name rest, longer each time, until a success."""
    pauses = Pauses(first_s=1, most_s=3)
    assert [pauses.fail("a", 10, 0) for _ in range(3)] == [1, 2, 3]
    assert pauses.is_resting("a", 12.9)
    assert not pauses.is_resting("a", 13)
    assert not pauses.is_resting("b", 10)
    assert pauses.fail("b", 10, 0.5) == 0.75
    pauses.succeed("a")
    assert not pauses.is_resting("a", 10)
    assert pauses.fail("a", 10, 0) == 1
