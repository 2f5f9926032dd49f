"""Rules of limits: which buckets there are, and whose rule counts."""

import pytest

from penstock.contract.limits import Limit, Metric
from penstock.limits.rules import STEP_MS, bucket_of, geometry_of, limit_at, merge

RULE = Limit("r1", Metric.REQUESTS, 100, raised_limit=500, raised_until=1_000)


@pytest.mark.parametrize("window_s", [1, 7, 59, 60, 61, 3_600, 86_400, 31 * 86_400])
def test_sub_windows_cover_more_than_the_window(window_s: int) -> None:
    """One sub-window more than needed, each a multiple of the step."""
    sub_window_ms, count = geometry_of(window_s)
    assert sub_window_ms % STEP_MS == 0
    assert sub_window_ms * (count - 2) < window_s * 1_000 <= sub_window_ms * (count - 1)
    assert count <= 121


def test_what_is_in_flight_has_no_window() -> None:
    """Its bucket holds permits."""
    limit = Limit("c", Metric.CONCURRENCY, 10, window_s=0)
    assert bucket_of(limit, "org", "o", 0).is_permits


def test_a_raise_ends_by_itself() -> None:
    """Until its last second the raised limit holds, then the rule's own."""
    assert limit_at(RULE, 999) == 500
    assert bucket_of(RULE, "org", "k.key", 1_000).limit == 100
    assert bucket_of(RULE, "org", "k.key", 1_000).id == "org/r1:k.key"


def test_a_rule_of_ones_own_replaces_the_plans() -> None:
    """Of the same slot; others stay."""
    plan = (
        Limit("p1", Metric.REQUESTS, 10),
        Limit("p2", Metric.REQUESTS, 10, alias="large"),
        Limit("p3", Metric.TOKENS, 10),
    )
    assert [limit.id for limit in merge([RULE], plan)] == ["r1", "p2", "p3"]
