"""Callers that take their answer slowly, or not at all: when the worker gives them up."""

import asyncio
from typing import Any, cast

import pytest

from penstock.gateway.limits import KEEP_ALIVE_S, LINGER_S, WRITE_BUFFER_BYTES, WRITE_STALL_S
from penstock.gateway.server import Downstream
from penstock.gateway.worker import Worker
from penstock.kit.clock import ManualClock
from penstock.kit.errors import ErrorCode


class FakeTransport(asyncio.Transport):
    """A connection whose unsent bytes the test sets."""

    def __init__(self) -> None:
        """Start open and empty."""
        super().__init__()
        self.unsent = 0
        self.is_aborted = False
        self.is_closed = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Check the bound that is asked for."""
        assert (high, low) == (WRITE_BUFFER_BYTES, None)

    def get_write_buffer_size(self) -> int:
        """Return what the test set."""
        return self.unsent

    def write(self, data: Any) -> None:
        """Take it as unsent."""
        self.unsent += len(data)

    def can_write_eof(self) -> bool:
        """Return that half-closing works."""
        return True

    def write_eof(self) -> None:
        """Half-close."""

    def is_closing(self) -> bool:
        """Whether it was closed in any way."""
        return self.is_closed or self.is_aborted

    def close(self) -> None:
        """Close."""
        self.is_closed = True

    def abort(self) -> None:
        """Close at once."""
        self.is_aborted = True

    def resume_reading(self) -> None:
        """Read."""


class FakeWorker:
    """What a connection asks of its worker."""

    def __init__(self) -> None:
        """Start a clock."""
        self.clock = ManualClock(now_s=100.0)
        self.now_s = self.clock.monotonic_s
        self.is_draining = False

    def join(self, downstream: Downstream) -> bool:  # noqa: ARG002 - the worker's signature
        """Take every connection."""
        return True

    def leave(self, downstream: Downstream) -> None:
        """Let it go."""


class FakeExchange:
    """A request under way that notes why it was ended."""

    def __init__(self) -> None:
        """Start under way."""
        self.ended_by: str | None = None
        self.swept = 0
        self.is_paused = False

    def caller_gone(self, error: ErrorCode | None = None) -> None:
        """Note the reason."""
        self.ended_by = "left" if error is None else error.code

    def sweep(self, now_s: float) -> None:  # noqa: ARG002 - the exchange's signature
        """Count it."""
        self.swept += 1

    def pause(self) -> None:
        """Note it."""
        self.is_paused = True

    def resume(self) -> None:
        """Note it."""
        self.is_paused = False


class Rig:
    """One connection with a request under way."""

    def __init__(self, *, has_exchange: bool = True) -> None:
        """Connect."""
        self.worker = FakeWorker()
        self.transport = FakeTransport()
        self.downstream = Downstream(cast("Worker", self.worker))
        self.downstream.connection_made(self.transport)
        self.exchange = FakeExchange()
        if has_exchange:
            self.downstream._exchange = cast("Any", self.exchange)

    def pass_time(self, seconds: float, step_s: float = 0.25) -> None:
        """Sweep as often as a worker does."""
        for _ in range(round(seconds / step_s)):
            self.worker.clock.advance(step_s)
            self.downstream.sweep(self.worker.now_s())


@pytest.fixture
def stalled() -> Rig:
    """Return a connection whose caller stopped reading just now."""
    rig = Rig()
    rig.transport.unsent = WRITE_BUFFER_BYTES + 1
    rig.downstream.pause_writing()
    return rig


def test_a_full_pipe_pauses_the_engine(stalled: Rig) -> None:
    """The engine is not read while its caller is behind, and is once it caught up."""
    assert stalled.exchange.is_paused
    stalled.transport.unsent = 0
    stalled.downstream.resume_writing()
    assert not stalled.exchange.is_paused


def test_a_caller_that_takes_nothing_is_given_up(stalled: Rig) -> None:
    """After the bound without a byte taken, engine and connection are let go."""
    stalled.pass_time(WRITE_STALL_S - 1)
    assert stalled.exchange.ended_by is None
    stalled.pass_time(2)
    assert stalled.exchange.ended_by == "err:gateway:downstream:caller_stalled"
    assert stalled.transport.is_aborted


def test_a_caller_that_takes_a_little_is_not_given_up(stalled: Rig) -> None:
    """However slow it is, a caller that takes something now and then keeps its answer."""
    for _ in range(10):
        stalled.pass_time(WRITE_STALL_S - 5)
        stalled.transport.unsent -= 1
    assert stalled.exchange.ended_by is None
    assert not stalled.transport.is_closing()
    stalled.pass_time(WRITE_STALL_S + 1)
    assert stalled.transport.is_aborted


def test_what_an_engine_adds_is_no_progress(stalled: Rig) -> None:
    """Unsent bytes that only grow do not count as taken."""
    stalled.pass_time(WRITE_STALL_S / 2)
    stalled.transport.unsent += 20_000
    stalled.pass_time(WRITE_STALL_S / 2 + 1)
    assert stalled.transport.is_aborted


def test_a_brief_stall_is_forgotten(stalled: Rig) -> None:
    """A caller that caught up has the whole bound again for its next stall."""
    stalled.pass_time(WRITE_STALL_S - 5)
    stalled.transport.unsent = 0
    stalled.downstream.resume_writing()
    stalled.pass_time(1)
    stalled.transport.unsent = WRITE_BUFFER_BYTES + 1
    stalled.downstream.pause_writing()
    stalled.pass_time(WRITE_STALL_S - 5)
    assert stalled.exchange.ended_by is None


def test_a_stream_below_the_bound_is_never_a_stall() -> None:
    """While an engine may still send, what is unsent is no reason to give a caller up."""
    rig = Rig()
    for _ in range(100):
        rig.transport.unsent += 10
        rig.pass_time(2)
    assert rig.exchange.ended_by is None
    assert rig.exchange.swept == 800, "the engine's own deadlines are looked at all the while"


@pytest.mark.parametrize("is_paused", [True, False])
def test_the_last_answer_of_a_connection_is_sent_whole(*, is_paused: bool) -> None:
    """A closing connection waits for a slow caller as long as it takes something."""
    rig = Rig(has_exchange=False)
    rig.transport.unsent = 100_000 if is_paused else 100
    if is_paused:
        rig.downstream.pause_writing()
    rig.downstream._linger()
    for _ in range(50):
        rig.pass_time(LINGER_S * 3)
        rig.transport.unsent -= 1
    assert not rig.transport.is_closing()
    rig.transport.unsent = 0
    if is_paused:
        rig.downstream.resume_writing()
    rig.pass_time(LINGER_S + 1)
    assert rig.transport.is_aborted


def test_the_last_answer_of_a_connection_is_not_kept_for_ever() -> None:
    """A closing connection whose caller takes nothing is given up too."""
    rig = Rig(has_exchange=False)
    rig.transport.unsent = 100
    rig.downstream._linger()
    rig.pass_time(WRITE_STALL_S + 1)
    assert rig.transport.is_aborted


def test_an_idle_connection_is_closed_in_time() -> None:
    """A connection that is kept alive closes when its time is over, not while it sends."""
    rig = Rig(has_exchange=False)
    rig.downstream._deadline_s = rig.worker.now_s() + KEEP_ALIVE_S
    rig.pass_time(KEEP_ALIVE_S - 1)
    assert not rig.transport.is_closing()
    rig.pass_time(2)
    assert rig.transport.is_closing()


def test_leaving_is_noticed_though_much_is_unsent(stalled: Rig) -> None:
    """A caller that closes its side is gone at once, however much was not sent to it."""
    assert stalled.downstream.eof_received() is False
    assert stalled.exchange.ended_by == "left"
