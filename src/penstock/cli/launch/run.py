"""Runs the processes of a dev instance from the first start to the last stop."""

import asyncio
import signal
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock.cli.launch import logs
from penstock.cli.launch.child import Child, Keeper, RestartPolicy
from penstock.cli.launch.reporter import Reporter
from penstock.kit.clock import Clock

_LOG_CHECK_S = 30.0
_SAME_SIGNAL_S = 1.0
"""Signals closer together are one wish: `timeout` and some shells send each twice."""


class StopSignals:
    """Counts the wishes to stop: the first is orderly, the second is in a hurry.

    Args:
        clock: Tells one wish from two.
        on_second: Called once, at the second wish.
    """

    def __init__(self, clock: Clock, on_second: Callable[[], None]) -> None:
        """See the class."""
        self.wanted = asyncio.Event()
        """Somebody wants us to stop."""
        self.hurry = asyncio.Event()
        """Somebody wants it at once."""
        self._clock = clock
        self._on_second = on_second
        self._first_s = 0.0

    def install(self) -> None:
        """Receive SIGINT, SIGTERM and, unless it is ignored (nohup), SIGHUP."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self.receive)
        loop.add_signal_handler(signal.SIGTERM, self.receive)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            loop.add_signal_handler(signal.SIGHUP, self.receive)

    def receive(self) -> None:
        """Take note of one signal."""
        now = self._clock.monotonic_s()
        if not self.wanted.is_set():
            self._first_s = now
            self.wanted.set()
        elif now - self._first_s >= _SAME_SIGNAL_S and not self.hurry.is_set():
            self.hurry.set()
            self._on_second()


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What `run` needs besides the processes."""

    reporter: Reporter
    clock: Clock
    on_ready: Callable[[], None]
    """Called once, when every process is ready; its errors stop everything."""
    configure: Callable[[], Coroutine[Any, Any, None]]
    """Done while the processes start; its errors stop everything."""
    follow: Callable[[], Coroutine[Any, Any, None]]
    """Goes on for as long as the processes run."""
    policy: RestartPolicy = field(default_factory=RestartPolicy)


async def run(children: Sequence[Child], signals: StopSignals, running: Running) -> None:
    """Start the children, all at once, keep them running, and stop them on a signal.

    They are stopped one after the other, in the order of `children`, whatever ended the run.

    Raises:
        CommandError: A child could not start; all others are stopped then, too.
    """
    keepers = [
        Keeper(child, running.reporter.warn, running.clock, running.policy) for child in children
    ]
    try:
        if not await _start(keepers, signals, running):
            return
        running.on_ready()
        chores = [
            asyncio.create_task(_keep_logs_short(children)),
            asyncio.create_task(running.follow()),
        ]
        try:
            await signals.wanted.wait()
        finally:
            for chore in chores:
                chore.cancel()
            await asyncio.gather(*chores, return_exceptions=True)
    finally:
        await _stop(keepers, signals, running.reporter)


async def _start(keepers: Sequence[Keeper], signals: StopSignals, running: Running) -> bool:
    """Start all; return False when a signal came first."""
    begin_s = running.clock.monotonic_s()

    async def start_one(keeper: Keeper) -> None:
        await keeper.start()
        took_s = running.clock.monotonic_s() - begin_s
        running.reporter.progress(f"  {keeper.child.name} is ready ({took_s:.1f} s)")

    running.reporter.progress(f"Starting {', '.join(k.child.name for k in keepers)} ...")
    starts = [asyncio.create_task(start_one(keeper)) for keeper in keepers]
    starts.append(asyncio.create_task(running.configure()))
    wanted = asyncio.create_task(signals.wanted.wait())
    pending: set[asyncio.Task[None]] = set(starts)
    try:
        while pending and not wanted.done():
            done, _ = await asyncio.wait([*pending, wanted], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {wanted}:
                # Raises what went wrong with it.
                task.result()
            pending -= done
    finally:
        for task in (*starts, wanted):
            task.cancel()
        await asyncio.gather(*starts, wanted, return_exceptions=True)
    return not pending


async def _stop(keepers: Sequence[Keeper], signals: StopSignals, reporter: Reporter) -> None:
    reporter.progress("Stopping (Ctrl-C again to hurry) ...")
    for keeper in keepers:
        if await keeper.stop(signals.hurry):
            reporter.progress(f"  {keeper.child.name} has stopped")
        else:
            reporter.warn(f"{keeper.child.name} did not stop in time and was killed")


async def _keep_logs_short(children: Sequence[Child]) -> None:
    while True:
        await asyncio.sleep(_LOG_CHECK_S)
        for child in children:
            for path in (child.log_path, *child.other_logs):
                logs.shorten_running(path)
