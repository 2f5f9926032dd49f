"""Shares of a route's choices: as their weights say, soon and for any weights."""

from collections import Counter
from collections.abc import Sequence
from typing import cast

import msgspec
from hypothesis import assume, given
from hypothesis import strategies as st

from penstock.contract.snapshot import Deployment
from penstock.gateway.offer import ServedUpstream, Target
from penstock.gateway.select import Turns, rank

_DRAWS = 1_000
_SLACK = 5.0
"""How far a count may be from its share, in requests, after any number of draws up to those: the
sequence's discrepancy grows with the logarithm of their number."""

_weights = st.lists(st.integers(0, 1_000), min_size=2, max_size=16)
_starts = st.floats(0, 1, exclude_max=True)


def _tier(weights: Sequence[int]) -> tuple[Target, ...]:
    deployment, upstream = Deployment("d", "u", "m"), cast("ServedUpstream", None)
    return tuple(
        Target(str(number), deployment, upstream, msgspec.Raw(b""), b"", weight)
        for number, weight in enumerate(weights)
    )


@given(_weights, _starts)
def test_first_choices_have_their_shares(weights: list[int], start: float) -> None:
    """After any number of requests each choice had its share of them, but for a few."""
    assume(any(weights))
    tier, turns, counts, total = _tier(weights), Turns(start), Counter[str](), sum(weights)
    for number in range(1, _DRAWS + 1):
        counts[next(rank([tier], turns.next())).alias] += 1
        if number % 100 == 0:
            for target in tier:
                share = number * target.weight / total
                assert abs(counts[target.alias] - share) <= _SLACK


@given(_weights, _starts, st.data())
def test_the_share_of_one_that_is_away_falls_to_the_others(
    weights: list[int], start: float, data: st.DataObject
) -> None:
    """When a choice cannot be connected to, its requests go to the others by their weights."""
    away = data.draw(st.integers(0, len(weights) - 1))
    left = sum(weights) - weights[away]
    assume(left > 0)
    tier, turns, counts = _tier(weights), Turns(start), Counter[str]()
    for _ in range(_DRAWS):
        ranked = (target.alias for target in rank([tier], turns.next()))
        counts[next(alias for alias in ranked if alias != str(away))] += 1
    for number, weight in enumerate(weights):
        if number != away:
            assert abs(counts[str(number)] - _DRAWS * weight / left) <= 2 * _SLACK


@given(_weights, _starts, st.integers(1, 6))
def test_routes_between_do_not_disturb(weights: list[int], start: float, others: int) -> None:
    """Shares hold, within a wider bound, when other routes draw from the same sequence."""
    assume(any(weights))
    tier, turns, counts = _tier(weights), Turns(start), Counter[str]()
    for _ in range(_DRAWS):
        counts[next(rank([tier], turns.next())).alias] += 1
        for _ in range(others):
            turns.next()
    for target in tier:
        share = _DRAWS * target.weight / sum(weights)
        assert abs(counts[target.alias] - share) <= 3 * _SLACK
