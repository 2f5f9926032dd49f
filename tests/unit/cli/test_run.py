"""The order of things in a dev instance's life."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.reporter import RecordingReporter

from penstock.cli.errors import BAD_CONFIG, CommandError
from penstock.cli.launch.child import Child, RestartPolicy
from penstock.cli.launch.run import Running, StopSignals, run
from penstock.kit.clock import ManualClock, SystemClock

STEADY = """
import pathlib, signal, sys, time
def end(*_):
    with open({order!r}, "a") as file:
        file.write({name!r} + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
pathlib.Path({up!r}).touch()
time.sleep(60)
"""


@pytest.fixture
def reporter() -> RecordingReporter:
    """A reporter that remembers."""
    return RecordingReporter()


def make_child(folder: Path, name: str, script: str = STEADY) -> Child:
    """Return a child that notes its end in `order`."""
    up = folder / f"{name}.up"
    text = script.format(order=str(folder / "order"), name=name, up=str(up))

    async def is_ready() -> bool:
        return up.exists()

    return Child(
        name=name,
        command=(sys.executable, "-IS", "-c", text),
        log_path=folder / f"{name}.log",
        is_ready=is_ready,
        start_timeout_s=20.0,
        stop_grace_s=10.0,
    )


async def nothing() -> None:
    """Have nothing to do."""


async def refuse() -> None:
    """Find the configuration wrong."""
    raise CommandError(BAD_CONFIG, "It cannot be applied.")


def running(
    reporter: RecordingReporter,
    on_ready: Callable[[], None],
    configure: Callable[[], Coroutine[Any, Any, None]] = nothing,
) -> Running:
    """Return the surroundings of a run."""
    return Running(
        reporter=reporter,
        clock=SystemClock(),
        on_ready=on_ready,
        configure=configure,
        follow=nothing,
        policy=RestartPolicy(first_s=0.01),
    )


async def test_stops_in_order_on_a_signal(tmp_path: Path, reporter: RecordingReporter) -> None:
    """All are ready before it says so; on a signal they end in the order they were given."""
    names = ["agent", "control", "engine"]
    signals = StopSignals(SystemClock(), lambda: None)
    ready: list[bool] = []

    def on_ready() -> None:
        ready.append(all((tmp_path / f"{name}.up").exists() for name in names))
        signals.receive()

    await run([make_child(tmp_path, n) for n in names], signals, running(reporter, on_ready))

    assert ready == [True]
    assert (tmp_path / "order").read_text().split() == names
    assert reporter.warnings == []


async def test_one_that_cannot_start_stops_the_others(
    tmp_path: Path, reporter: RecordingReporter
) -> None:
    """When one child cannot start, the error is its own and nothing is left running."""
    children = [
        make_child(tmp_path, "agent"),
        make_child(tmp_path, "control", "raise SystemExit(7)"),
    ]

    def on_ready() -> None:
        pytest.fail("it is not ready")

    with pytest.raises(CommandError, match="control ended with exit code 7"):
        await run(children, StopSignals(SystemClock(), lambda: None), running(reporter, on_ready))
    assert "  agent has stopped" in reporter.lines


async def test_what_cannot_be_configured_stops_all(
    tmp_path: Path, reporter: RecordingReporter
) -> None:
    """When the configuration cannot be applied, that is the error and nothing is left running."""

    def on_ready() -> None:
        pytest.fail("it is not configured")

    with pytest.raises(CommandError, match="It cannot be applied"):
        await run(
            [make_child(tmp_path, "control")],
            StopSignals(SystemClock(), lambda: None),
            running(reporter, on_ready, refuse),
        )
    assert "  control has stopped" in reporter.lines


async def test_a_signal_while_starting_stops_all(
    tmp_path: Path, reporter: RecordingReporter
) -> None:
    """Ctrl-C before everything is ready ends the start without an error."""
    slow = "import time; time.sleep(60)"
    signals = StopSignals(SystemClock(), lambda: None)

    def on_ready() -> None:
        pytest.fail("it is not ready")

    task = asyncio.create_task(
        run([make_child(tmp_path, "engine", slow)], signals, running(reporter, on_ready))
    )
    await asyncio.sleep(0.1)
    signals.receive()
    await task
    assert "  engine has stopped" in reporter.lines


async def test_only_a_later_signal_hurries() -> None:
    """A second signal within a second is the same wish; a later one hurries, and says so once."""
    clock = ManualClock()
    said: list[str] = []
    signals = StopSignals(clock, lambda: said.append("hurry"))
    signals.receive()
    signals.receive()
    assert signals.wanted.is_set()
    assert not signals.hurry.is_set()

    clock.advance(1.5)
    signals.receive()
    signals.receive()
    assert signals.hurry.is_set()
    assert said == ["hurry"]
