"""The ticker: one timer for everything that is due."""

import asyncio
from collections.abc import Callable

from penstock.emulator.ticker import Ticker


class ManualTimers:
    """Timers of a loop that moves only when told to."""

    def __init__(self) -> None:
        """Start at 10 s."""
        self.now_s = 10.0
        self.armed: list[asyncio.TimerHandle] = []
        self._loop = asyncio.new_event_loop()
        self._loop.close()

    def time(self) -> float:
        """Return the manual time."""
        return self.now_s

    def call_at(self, when: float, callback: Callable[[], None], /) -> asyncio.TimerHandle:
        """Keep the callback."""
        handle = asyncio.TimerHandle(when, callback, (), self._loop)
        self.armed.append(handle)
        return handle

    def pending(self) -> list[asyncio.TimerHandle]:
        """Return the timers that were not cancelled."""
        return [handle for handle in self.armed if not handle.cancelled()]

    def advance_to(self, now_s: float) -> None:
        """Move to a time, calling what comes due on the way, each at its time."""
        while due := sorted(h for h in self.pending() if h.when() <= now_s):
            self.armed.remove(due[0])
            self.now_s = max(self.now_s, due[0].when())
            due[0]._run()
        self.now_s = now_s


class Probe:
    """Remembers when it was called, and comes again if it has an interval."""

    def __init__(self, ticker: Ticker, timers: ManualTimers, interval_ms: float = 0) -> None:
        """See the class."""
        self.calls: list[float] = []
        self._ticker = ticker
        self._timers = timers
        self._interval_ms = interval_ms
        self._due_ms = 0.0

    def start(self, due_ms: float) -> None:
        """Be called at that time."""
        self._due_ms = due_ms
        self._ticker.schedule(due_ms, self)

    def tick(self, slot_ms: int) -> None:
        """Remember the time."""
        assert slot_ms >= self._due_ms
        self.calls.append(round(self._timers.now_s * 1000, 3))
        if self._interval_ms:
            self.start(self._due_ms + self._interval_ms)


def test_nothing_is_called_early() -> None:
    """A call comes in the first millisecond that is not before its time."""
    timers = ManualTimers()
    ticker = Ticker(timers)
    probes = {due_ms: Probe(ticker, timers) for due_ms in (10_020.0, 10_005.2, 10_005.9)}
    for due_ms, probe in probes.items():
        probe.start(due_ms)
    timers.advance_to(10.1)
    assert [probes[due_ms].calls for due_ms in sorted(probes)] == [[10_006], [10_006], [10_020]]


def test_thousands_share_one_timer() -> None:
    """However many are waiting, the loop holds a single timer."""
    timers = ManualTimers()
    ticker = Ticker(timers)
    probes = [Probe(ticker, timers, interval_ms=20) for _ in range(4000)]
    for number, probe in enumerate(probes):
        probe.start(10_000 + number % 20 + 1)
    for millisecond in range(1, 100):
        timers.advance_to(10 + millisecond / 1000)
        assert len(timers.pending()) == 1
    assert {len(probe.calls) for probe in probes} == {4, 5}


def test_an_interval_does_not_drift() -> None:
    """Fractions of a millisecond add up: 100 intervals of 2.3 ms take 230 ms."""
    timers = ManualTimers()
    ticker = Ticker(timers)
    probe = Probe(ticker, timers, interval_ms=2.3)
    probe.start(10_000)
    timers.advance_to(10.2301)
    assert len(probe.calls) == 101


def test_a_late_loop_catches_up_one_call_a_turn() -> None:
    """After a pause of the loop every call is made up for, and none within another."""
    timers = ManualTimers()
    ticker = Ticker(timers)
    probe = Probe(ticker, timers, interval_ms=10)
    probe.start(10_010)
    timers.now_s = 10.1
    turns = 0
    while any(handle.when() <= timers.now_s for handle in timers.pending()):
        handle = timers.pending()[0]
        timers.armed.remove(handle)
        before = len(probe.calls)
        handle._run()
        assert len(probe.calls) == before + 1
        turns += 1
    assert turns == 10


def test_a_stopped_ticker_calls_nothing() -> None:
    """After `stop` no timer is left."""
    timers = ManualTimers()
    ticker = Ticker(timers)
    probe = Probe(ticker, timers)
    probe.start(10_010)
    ticker.stop()
    timers.advance_to(11)
    assert probe.calls == []
