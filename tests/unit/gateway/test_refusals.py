"""What the agent is told of requests that no engine was asked for."""

import random

from penstock.gateway.errors import DRAINING
from penstock.gateway.limits import REFUSALS_KEPT
from penstock.gateway.refusals import Refusals
from penstock.gateway.request import Request
from penstock.gateway.trace import Tracer
from penstock.kit.errors import Refusal

MORE = 7


def _refusals(*, is_wanted: bool) -> Refusals:
    tracer = Tracer(None, random.Random(1).getrandbits)
    return Refusals(is_wanted=is_wanted, slot=3, wall_ns=lambda: 1_000, tracer=tracer)


def _note(refusals: Refusals, name: str) -> None:
    request = Request()
    request.request_id = name
    refusals.note(request, Refusal(DRAINING))


def test_what_does_not_fit_between_two_reports_is_counted_only() -> None:
    """As many as fit are told, in order; the rest is a number; then there is room again."""
    refusals = _refusals(is_wanted=True)
    for number in range(REFUSALS_KEPT):
        _note(refusals, f"r-{number}")
    for _ in range(MORE):
        assert not refusals.take_another()
    told = refusals.take()
    assert told is not None
    ids = [each.request_id for each in told.requests]
    assert (ids, told.dropped) == ([f"r-{n}" for n in range(REFUSALS_KEPT)], MORE)
    assert {(each.slot, each.status) for each in told.requests} == {(3, DRAINING.status)}
    assert refusals.take() is None
    assert refusals.take_another()


def test_nothing_is_told_that_nobody_wants() -> None:
    """Without an agent that asks, nothing is kept and nothing counted."""
    refusals = _refusals(is_wanted=False)
    _note(refusals, "r")
    assert not refusals.take_another()
    assert refusals.take() is None
