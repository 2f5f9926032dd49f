"""Decisions about budgets."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.limits.budget_rules import (
    HOLD_S,
    MAX_HOLD,
    SHARE,
    seconds_until,
    size_hold,
    subject_of,
    usable_ms,
)

AMOUNTS = st.integers(0, 10**19)


@given(free=AMOUNTS, least=AMOUNTS, more=AMOUNTS)
def test_a_hold_is_enough_and_not_too_much(free: int, least: int, more: int) -> None:
    """Never more than is free or wanted, never less than needed; large only far from the limit."""
    amount = size_hold(free, least, least + more)
    assert (amount is None) == (least > free)
    if amount is not None:
        assert least <= amount <= min(free, least + more)
        assert amount == least or amount <= min(free // SHARE, MAX_HOLD)


def test_holds_end_with_their_window() -> None:
    """Nothing is let in on one beyond it, nor for longer than `HOLD_S`."""
    assert usable_ms(None, 0) == HOLD_S * 1_000
    assert usable_ms(10_000_000, 9_000_000) == 1_000
    assert usable_ms(10**15, 0) == HOLD_S * 1_000
    assert usable_ms(1, 2) == 0
    assert seconds_until(None, 0) is None
    assert seconds_until(1_500_001, 500_000) == 2


def test_a_key_of_nobody_is_its_own_member() -> None:
    """Workers reckon alike (`gateway.quota`)."""
    assert subject_of("", "1", "2") == ""
    assert subject_of("key", "1", "2") == "k.1"
    assert subject_of("member", "1", "2") == "m.2"
    assert subject_of("member", "1", "") == "k.1"
