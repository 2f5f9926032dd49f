"""Rules as they are kept: what they may be like, and which ids they have."""

from typing import Any

import pytest

from penstock.catalog.written_rules import MAX_RULES
from penstock.contract.limits import MAX_LIMIT, MAX_WINDOW_S, Limit, Metric
from penstock.limits.rule_forms import keep_rules, read_rules


def _rule(**members: Any) -> dict[str, Any]:
    return {"metric": "requests", "limit": 10, **members}


def test_what_is_kept_is_read_again() -> None:
    """Rules come back as they were, in one order, with ids of their own."""
    rules = [
        Limit("", Metric.TOKENS, MAX_LIMIT, MAX_WINDOW_S, alias="chat", per="key"),
        Limit("", Metric.CONCURRENCY, 1, 0, raised_limit=5, raised_until=1_000),
    ]
    kept = keep_rules(rules)
    assert kept == keep_rules(reversed(rules))
    found = read_rules("lim_1", kept)
    assert keep_rules(found) == kept
    assert len({rule.id for rule in found}) == 2


def test_an_id_outlives_changes_of_figures() -> None:
    """What was used is still used after a limit is changed: the rule counts in the same bucket."""
    (before,) = read_rules("lim_1", [_rule()])
    (after,) = read_rules("lim_1", [_rule(limit=20, enforcement="soft")])
    (other,) = read_rules("lim_2", [_rule()])
    (longer,) = read_rules("lim_1", [_rule(window_s=61)])
    assert before.id == after.id
    assert len({before.id, other.id, longer.id}) == 3


@pytest.mark.parametrize(
    ("kept", "reason"),
    [
        ("[]", "no list"),
        ([1], "no list"),
        ([{"metric": "requests"}], "missing required field `limit`"),
        ([_rule(metric="money")], "'money'"),
        ([_rule(limit=0)], "limit is out of range"),
        ([_rule(limit=-1)], "limit is out of range"),
        ([_rule(limit=1.5)], "got `float`"),
        ([_rule(limit="10")], "got `str`"),
        ([_rule(limit=MAX_LIMIT + 1)], "limit is out of range"),
        ([_rule(window_s=0)], "window_s is out of range"),
        ([_rule(window_s=MAX_WINDOW_S + 1)], "window_s is out of range"),
        ([_rule(metric="concurrency")], "concurrency has no window"),
        ([_rule(raised_limit=5)], "go together"),
        ([_rule(raised_until=5)], "go together"),
        ([_rule(raised_limit=0, raised_until=5)], "raised_limit is out of range"),
        ([_rule(raised_limit=5, raised_until=10**15)], "raised_until is out of range"),
        ([_rule(per="tenant")], "'tenant'"),
        ([_rule(alias="no name")], "alias or model"),
        ([_rule(model="")], "alias or model"),
        ([_rule(), _rule(limit=20)], "[1] another one counts the same"),
        ([_rule(window_s=n + 1) for n in range(MAX_RULES + 1)], "at most 64"),
    ],
)
def test_what_no_rule_can_be_is_refused_with_the_reason(kept: Any, reason: str) -> None:
    """Each fault is told, with what to do about it."""
    with pytest.raises(ValueError, match=";") as caught:
        read_rules("lim_1", kept)
    assert reason in str(caught.value)
