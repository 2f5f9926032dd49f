"""Deadlines of a caller's connection, on a clock that the test moves."""

import pytest
from tests.fakes.http_rig import CHAT, chunk, get, request
from tests.fakes.still_worker import StillConnection, StillWorker

from penstock.gateway.errors import JOURNAL_FULL
from penstock.gateway.limits import (
    ARRIVAL_S,
    BODY_IDLE_S,
    HEADER_DEADLINE_S,
    KEEP_ALIVE_S,
    LINGER_S,
    PIPELINE_DEPTH,
    SWEEP_S,
    WRITE_STALL_S,
)
from penstock.kit.errors import Refusal

_LIVE = get(b"/health/live")
_HEAD = request()[: -len(CHAT)]
_JUST = SWEEP_S * 2
"""How much later than its time an end may come, and more than how much earlier it may not."""


def _expect_end(connection: StillConnection, after_s: float, how: list[str]) -> None:
    """See that the connection ends in that way at that time, and not before."""
    connection.wait(after_s - _JUST)
    assert connection.transport.ends == []
    connection.wait(2 * _JUST)
    assert connection.transport.ends == how


def test_a_connection_that_says_nothing_is_closed() -> None:
    """Whoever connects has as long for a first header as for any, and is closed without words."""
    connection = StillConnection()
    _expect_end(connection, HEADER_DEADLINE_S, ["close"])
    assert connection.take_answers() == []


def test_a_header_that_stops_is_408() -> None:
    """A header that is not complete in time is answered with 408, then the connection ends."""
    connection = StillConnection()
    connection.wait(5)
    connection.send(_HEAD[:40])
    _expect_end(connection, HEADER_DEADLINE_S, ["eof"])
    assert connection.take_answers() == [408]


def test_a_header_that_trickles_is_408() -> None:
    """More bytes of a header buy no time."""
    connection = StillConnection()
    for position in range(int(HEADER_DEADLINE_S)):
        connection.send(_HEAD[position : position + 1])
        connection.wait(0.99)
        assert connection.transport.ends == []
    connection.send(_HEAD[10:11])
    connection.wait(2 * _JUST)
    assert connection.take_answers() == [408]


def test_empty_lines_buy_no_time() -> None:
    """Line ends before a request do not begin one."""
    connection = StillConnection()
    for _ in range(int(HEADER_DEADLINE_S)):
        connection.send(b"\r\n")
        connection.wait(0.99)
    connection.wait(_JUST)
    assert connection.transport.ends == ["close"]


@pytest.mark.parametrize("tail", [CHAT[:10], b""], ids=["some", "nothing"])
def test_a_body_that_stops_is_408(tail: bytes) -> None:
    """A body that does not go on is answered with 408, then the connection ends."""
    connection = StillConnection()
    connection.send(_HEAD + tail)
    connection.wait(BODY_IDLE_S - 1)
    connection.send(CHAT[len(tail) : -1])
    _expect_end(connection, BODY_IDLE_S, ["eof"])
    assert connection.take_answers() == [408]


def test_a_slow_body_is_waited_for() -> None:
    """A body that goes on, however slowly, is taken."""
    worker = StillWorker()
    worker.trouble = Refusal(JOURNAL_FULL)
    connection = StillConnection(worker)
    connection.send(request(b"", framing=b"Transfer-Encoding: chunked"))
    for piece in CHAT:
        connection.send(chunk(b"%c" % piece))
        connection.wait(BODY_IDLE_S - 1, step_s=1)
    connection.send(chunk(b""))
    assert connection.take_answers() == [503]


def test_an_idle_connection_is_closed() -> None:
    """Between two requests a connection is kept for a while, then closed without words."""
    connection = StillConnection()
    connection.send(_LIVE)
    assert connection.take_answers() == [200]
    connection.wait(KEEP_ALIVE_S - _JUST)
    connection.send(_LIVE)
    assert connection.take_answers() == [200]
    _expect_end(connection, KEEP_ALIVE_S, ["close"])
    assert connection.take_answers() == []


def test_a_later_header_has_no_more_time() -> None:
    """From a request's first byte on its deadline counts, not the idle connection's."""
    connection = StillConnection()
    connection.send(_LIVE + b"GET")
    assert connection.take_answers() == [200]
    connection.wait(1)
    connection.send(b" /")
    _expect_end(connection, HEADER_DEADLINE_S - 1, ["eof"])
    assert connection.take_answers() == [408]


@pytest.mark.parametrize(
    ("content", "status"),
    [(request(key="wrong"), 401), (request(path=b"/nothing"), 404)],
)
def test_a_refused_body_that_stops_keeps_its_refusal(content: bytes, status: int) -> None:
    """Who was refused already is told that, not that it was slow."""
    connection = StillConnection()
    connection.send(content[:-1])
    assert connection.take_answers() == []
    _expect_end(connection, BODY_IDLE_S, ["eof"])
    assert connection.take_answers() == [status]


def test_a_caller_that_reads_no_end_is_cut_off() -> None:
    """After the last answer the other side has a moment to close, then it is cut off."""
    connection = StillConnection()
    connection.send(request(CHAT, b"X : a"))
    assert connection.take_answers() == [400]
    assert connection.transport.ends == ["eof"]
    for _ in range(4):
        connection.send(b"more of the same")
        connection.wait(LINGER_S / 4 - 0.01)
    assert connection.transport.ends == ["eof"]
    connection.wait(_JUST)
    assert connection.transport.ends == ["eof", "abort"]
    assert connection.take_answers() == []


def test_a_caller_that_takes_nothing_is_cut_off() -> None:
    """An answer that nobody takes is held for a while, then the connection is cut off."""
    connection = StillConnection()
    connection.send(_LIVE)
    connection.transport.unsent_bytes = 100_000
    connection.downstream.pause_writing()
    connection.wait(WRITE_STALL_S - _JUST)
    assert connection.transport.ends == []
    connection.wait(3 * _JUST)
    assert connection.transport.ends == ["abort"]


def test_a_slow_reader_is_no_idle_caller() -> None:
    """As long as an answer is being taken, however slowly, the connection stays."""
    connection = StillConnection()
    connection.send(_LIVE)
    connection.transport.unsent_bytes = 100_000
    connection.downstream.pause_writing()
    for _ in range(10):
        connection.wait(WRITE_STALL_S - 1, step_s=1)
        connection.transport.unsent_bytes -= 1
    assert connection.transport.ends == []
    connection.transport.unsent_bytes = 0
    connection.downstream.resume_writing()
    connection.send(_LIVE)
    assert connection.take_answers() == [200, 200]


def test_requests_wait_while_nothing_is_taken() -> None:
    """Answers are not piled up for a caller that does not read, and none is lost."""
    connection = StillConnection()
    connection.downstream.pause_writing()
    for _ in range(PIPELINE_DEPTH):
        assert not connection.transport.is_reading_paused
        connection.send(_LIVE)
    assert connection.transport.is_reading_paused
    assert connection.take_answers() == []
    connection.downstream.resume_writing()
    assert connection.take_answers() == [200] * PIPELINE_DEPTH
    assert not connection.transport.is_reading_paused


def test_a_large_waiting_request_stops_the_reading() -> None:
    """No more than one large body waits on a connection."""
    connection = StillConnection()
    connection.worker.trouble = Refusal(JOURNAL_FULL)
    connection.downstream.pause_writing()
    connection.send(request(b"x" * 100_000))
    assert connection.transport.is_reading_paused
    connection.downstream.resume_writing()
    assert connection.take_answers() == [503]
    assert not connection.transport.is_reading_paused


def test_a_connection_too_many_is_told_so() -> None:
    """Without room a connection gets 503 and is closed, and is not counted."""
    worker = StillWorker()
    worker.has_room = False
    connection = StillConnection(worker)
    assert connection.take_answers() == [503]
    assert connection.transport.ends == ["close"]
    connection.send(_LIVE)
    assert connection.take_answers() == []
    assert worker.connections == set()


def test_a_lost_connection_is_counted_out() -> None:
    """A connection that ends makes room, and nothing of it is served any more."""
    connection = StillConnection()
    assert len(connection.worker.connections) == 1
    connection.downstream.connection_lost(None)
    assert connection.worker.connections == set()
    connection.send(_LIVE)
    assert connection.take_answers() == []


def test_a_drain_closes_idle_connections() -> None:
    """A worker that drains closes what is idle and waits for what has begun."""
    worker = StillWorker()
    idle, busy = StillConnection(worker), StillConnection(worker)
    idle.send(_LIVE)
    busy.send(_LIVE[:-2])
    worker.is_draining = True
    for connection in (idle, busy):
        connection.downstream.drain()
    assert idle.transport.ends == ["close"]
    assert busy.transport.ends == []
    busy.send(_LIVE[-2:] + _LIVE)
    assert busy.take_answers() == [200]
    assert busy.transport.ends == ["eof"]


def test_a_drain_waits_for_the_first_request_of_who_has_just_come() -> None:
    """A new connection has a second for it, however often it is asked to end; then it is closed."""
    worker = StillWorker()
    quick, slow = StillConnection(worker), StillConnection(worker)
    worker.is_draining = True
    for connection in (quick, slow):
        connection.downstream.drain()
    slow.wait(ARRIVAL_S / 2)
    slow.downstream.drain()
    quick.send(_LIVE)
    assert quick.take_answers() == [200]
    assert quick.transport.ends == ["eof"]
    assert slow.transport.ends == []
    slow.wait(ARRIVAL_S / 2)
    assert slow.transport.ends == ["close"]


def test_readiness_follows_admission() -> None:
    """A worker that admits nothing is live, but not ready."""
    worker = StillWorker()
    worker.trouble = Refusal(JOURNAL_FULL)
    connection = StillConnection(worker)
    connection.send(_LIVE + get(b"/health/ready") + request())
    assert connection.take_answers() == [200, 503, 503]
    worker.trouble = None
    connection.send(get(b"/health/ready"))
    assert connection.take_answers() == [200]
