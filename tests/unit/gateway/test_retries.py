"""How much may be tried again."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.gateway.limits import RETRIES_AT_LEAST, RETRY_SHARE, RETRY_WINDOW_S
from penstock.gateway.retries import RetryBudget


class _Clock:
    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def _try_again(budget: RetryBudget) -> int:
    """Return whether one more was let through."""
    if not budget.is_left:
        return 0
    budget.take()
    return 1


def test_a_few_are_always_let_through() -> None:
    """An upstream that is asked little may have what it turns away tried elsewhere."""
    budget = RetryBudget(_Clock())
    assert sum(_try_again(budget) for _ in range(100)) == RETRIES_AT_LEAST


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400), st.integers(0, 30))))
def test_no_more_than_a_part_is_tried_again(steps: list[tuple[int, int, int]]) -> None:
    """However requests and failures come, retries stay within the share of what was asked."""
    clock = _Clock()
    budget = RetryBudget(clock)
    asked = again = 0
    for requests, failures, later_s in steps:
        clock.now_s += later_s
        budget.sweep()
        budget.requests += requests
        asked += requests
        again += sum(_try_again(budget) for _ in range(failures))
        windows = 1 + (clock.now_s - _Clock.now_s) / RETRY_WINDOW_S
        assert again <= 2 * RETRY_SHARE * asked + windows * RETRIES_AT_LEAST


def test_what_is_long_ago_counts_no_more() -> None:
    """A busy time gives no credit past the window that follows it."""
    clock = _Clock()
    budget = RetryBudget(clock)
    budget.requests = 1_000
    clock.now_s += RETRY_WINDOW_S
    budget.sweep()
    assert sum(_try_again(budget) for _ in range(500)) == RETRY_SHARE * 1_000
    clock.now_s += 2 * RETRY_WINDOW_S
    budget.sweep()
    assert sum(_try_again(budget) for _ in range(500)) == RETRIES_AT_LEAST
