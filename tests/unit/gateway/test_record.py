"""The end of requests that meet a bug of ours: nothing that they took is kept by it."""

import json

import pytest
from tests.fakes.flawed_request import Flaws, Site, receive
from tests.fakes.limiter_rig import TOKEN
from tests.fakes.scripted_engine import ROLE, STREAM_HEAD, chunk

from penstock.gateway.errors import FIRST_BYTE_TIMEOUT
from penstock.gateway.forward import Pool
from penstock.kit.errors import Refusal

STAGES = ("count", "let_go", "measure", "event", "tell", "journal")
TELLING = ("redact", "telling")


@pytest.mark.parametrize("stage", STAGES)
def test_a_bug_at_its_end_keeps_nothing(stage: str, caplog: pytest.LogCaptureFixture) -> None:
    """Places and money come back, one event is recorded, the caller is let go, the log tells."""
    site = Site(Flaws(stage))
    assert site.rig.one().denial is not None
    site.exchange.caller_gone()
    site.rig.wait(10)
    assert site.ended == [site.exchange]
    (event,) = site.events
    assert (event.outcome, event.error_code) == (
        "interrupted",
        "err:gateway:internal:interrupted",
    )
    assert sum(use.amount for use in event.holds) == event.input_tokens * TOKEN
    assert site.rig.agent.budgets["budget"] == 1_000 * TOKEN - event.holds[0].amount
    assert site.rig.one().is_in
    (line,) = (each for each in caplog.messages if "request failed" in each)
    assert caplog.text.count(f"RuntimeError: a bug in {stage}") == 1
    assert site.exchange.request_id in line


class FlawedPool(Pool):
    """An endpoint for which nothing can be written."""

    def head(self, path: str) -> bytes:
        """Fail."""
        raise RuntimeError(path)


def test_a_bug_as_it_is_sent_keeps_no_connection() -> None:
    """The connection that it had got is closed when the request ends, and counted nowhere."""
    site = Site()
    with pytest.raises(RuntimeError):
        site.send(FlawedPool)
    pool = site.exchange._pool
    connection = site.exchange._connection
    assert pool is not None
    assert connection is not None
    assert (pool.in_flight, connection.transport.is_closing()) == (1, False)
    site.exchange.caller_gone()
    assert (pool.in_flight, connection.transport.is_closing()) == (0, True)


def _expect_one_end(site: Site, caplog: pytest.LogCaptureFixture, stage: str) -> None:
    """See that it ended once, as it would have without the bug, and that the log tells of that."""
    site.exchange.interrupt()
    site.wait(1e9)
    assert site.ended == [site.exchange]
    (event,) = site.events
    assert (event.outcome, event.error_code) == ("timeout", "err:gateway:internal:bug")
    assert sum("request failed" in each for each in caplog.messages) == 1
    assert caplog.text.count(f"RuntimeError: a bug in {stage}") == 1
    assert site.rig.one().is_in


@pytest.mark.parametrize("stage", TELLING)
@pytest.mark.parametrize(
    ("target", "members"),
    [
        (b"/v1/chat/completions", {"error"}),
        (b"/v1/messages", {"type", "error", "request_id"}),
        (b"/v2/models/model-a/infer", {"error"}),
    ],
)
def test_a_bug_in_telling_of_an_error_is_told_plainly(
    stage: str, target: bytes, members: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The caller gets 500 in its protocol, at once; what failed before that is what is paid for."""
    site = Site(Flaws(stage), target=target)
    site.exchange._fail(Refusal(FIRST_BYTE_TIMEOUT), outcome="timeout")
    head, _, body = site.shown.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert b"\r\nx-penstock-error-code: err:gateway:internal:bug\r\n" in head
    assert not site.is_kept
    assert json.loads(body).keys() == members
    assert site.events[0].status == 500
    assert (site.events[0].input_tokens, site.events[0].output_tokens) == (0, 0)
    _expect_one_end(site, caplog, stage)


def test_a_bug_in_all_telling_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    """Where not even that can be told, the caller's connection is closed."""
    site = Site(Flaws("telling", count=2))
    with pytest.raises(RuntimeError):
        site.exchange._fail(Refusal(FIRST_BYTE_TIMEOUT), outcome="timeout")
    assert (site.shown, site.is_kept) == (b"", False)
    _expect_one_end(site, caplog, "telling")


@pytest.mark.parametrize("stage", TELLING)
def test_a_bug_in_telling_of_a_streams_error_breaks_it_off(
    stage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What has begun gets no regular end: the connection is closed behind what was shown."""
    site = Site(Flaws(stage))
    connection, transport = site.send()
    receive(connection, STREAM_HEAD + chunk(ROLE))
    shown = site.shown
    assert shown.endswith(chunk(ROLE))
    site.exchange._fail(Refusal(FIRST_BYTE_TIMEOUT), outcome="timeout")
    assert (site.shown, site.is_kept, transport.is_closing()) == (shown, False, True)
    assert site.events[0].status == 200
    _expect_one_end(site, caplog, stage)
