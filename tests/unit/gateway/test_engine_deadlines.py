"""How long engines may be silent in an answer: time is moved by hand, so no machine is too slow."""

import pytest
from tests.fakes.flawed_request import Site, receive
from tests.fakes.scripted_engine import DONE, LAST_CHUNK, ROLE, STREAM_HEAD, chunk, token

from penstock.contract.snapshot import Timeouts
from penstock.gateway.limits import SWEEP_S

IDLE_S = Timeouts().idle_ms / 1000
PAUSES = 50


def _be_silent(site: Site, seconds: float) -> None:
    for _ in range(round(seconds / SWEEP_S)):
        site.wait(SWEEP_S)


def test_pauses_below_the_bound_do_not_add_up() -> None:
    """A stream may pause for almost as long as an engine may be silent, again and again."""
    site = Site()
    connection, _ = site.send()
    _be_silent(site, IDLE_S)  # before the first byte another bound counts
    receive(connection, STREAM_HEAD + chunk(ROLE))
    for _ in range(PAUSES):
        _be_silent(site, IDLE_S - SWEEP_S)
        receive(connection, chunk(token("a")))
    receive(connection, chunk(DONE) + LAST_CHUNK)
    (event,) = site.events
    assert (event.outcome, event.output_tokens) == ("ok", PAUSES)
    assert site.shown.endswith(chunk(DONE) + LAST_CHUNK)


@pytest.mark.parametrize("is_begun", [True, False])
def test_a_longer_silence_is_a_stall(*, is_begun: bool) -> None:
    """After the bound, and two looks at it, the answer ends; no sooner."""
    site = Site()
    connection, transport = site.send()
    receive(connection, STREAM_HEAD + (chunk(token("a")) if is_begun else b""))
    _be_silent(site, IDLE_S)
    assert not site.events
    _be_silent(site, 2 * SWEEP_S)
    (event,) = site.events
    assert (event.outcome, event.error_code) == ("timeout", "err:gateway:upstream:idle_timeout")
    assert event.status == (200 if is_begun else 504)
    assert transport.is_closing()
