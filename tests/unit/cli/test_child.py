"""The supervisor's promises, with real processes that stand for ours."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.cli.errors import CommandError
from penstock.cli.launch.child import Child, Keeper, RestartPolicy
from penstock.kit.clock import SystemClock

QUICK = RestartPolicy(first_s=0.01, most_s=0.05, healthy_s=30.0)
STEADY = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
pathlib.Path({pid_file!r}).write_text(str(__import__("os").getpid()))
while True:
    time.sleep(0.02)
"""
STUBBORN = """
import os, pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
inner = subprocess.Popen([sys.executable, "-IS", "-c", "import time; time.sleep(60)"])
pathlib.Path({pid_file!r}).write_text(str(inner.pid))
time.sleep(60)
"""


def make_child(folder: Path, script: str, **changes: float) -> Child:
    """Return a child that runs the script and is ready once it wrote its pid."""
    pid_file = folder / "pid"

    async def is_ready() -> bool:
        return pid_file.exists() and bool(pid_file.read_text())

    return Child(
        name="engine",
        command=(sys.executable, "-IS", "-c", script.format(pid_file=str(pid_file))),
        log_path=folder / "logs" / "engine.log",
        is_ready=is_ready,
        **{"start_timeout_s": 20.0, "stop_grace_s": 10.0, **changes},  # type: ignore[arg-type]
    )


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds, at most 10 seconds."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not happen")


def is_alive(pid: int) -> bool:
    """Tell whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_stops_a_child_in_order(tmp_path: Path) -> None:
    """A child that heeds SIGTERM ends by itself and is gone when `stop` returns."""
    keeper = Keeper(make_child(tmp_path, STEADY), print, SystemClock(), QUICK)
    await keeper.start()
    pid = keeper.pid
    assert pid == int((tmp_path / "pid").read_text())

    assert await keeper.stop(asyncio.Event())
    assert not is_alive(pid)
    assert keeper.pid is None


async def test_restarts_the_dead(tmp_path: Path) -> None:
    """A child that is killed runs again under a new process id, and both facts are reported."""
    said: list[str] = []
    keeper = Keeper(make_child(tmp_path, STEADY), said.append, SystemClock(), QUICK)
    await keeper.start()
    first = keeper.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)

    await until(lambda: keeper.pid not in (None, first))
    await until(lambda: len(said) == 2)
    assert "by SIGKILL" in said[0]
    assert said[1] == "engine runs again"
    await keeper.stop(asyncio.Event())


async def test_hurry_kills_at_once_with_all_descendants(tmp_path: Path) -> None:
    """In a hurry a child that ignores SIGTERM is killed, and so is what it started itself."""
    child = make_child(tmp_path, STUBBORN, hurry_grace_s=0.05)
    keeper = Keeper(child, print, SystemClock(), QUICK)
    await keeper.start()
    inner = int((tmp_path / "pid").read_text())
    hurry = asyncio.Event()
    stopping = asyncio.create_task(keeper.stop(hurry))
    await asyncio.sleep(0.05)
    assert not stopping.done()

    hurry.set()
    assert not await stopping
    await until(lambda: not is_alive(inner))


async def test_kills_after_the_grace(tmp_path: Path) -> None:
    """A child that ignores SIGTERM is killed when its grace is over."""
    keeper = Keeper(make_child(tmp_path, STUBBORN, stop_grace_s=0.1), print, SystemClock(), QUICK)
    await keeper.start()
    pid = keeper.pid
    assert pid is not None

    assert not await keeper.stop(asyncio.Event())
    assert not is_alive(pid)


async def test_shows_the_log_of_a_child_that_cannot_start(tmp_path: Path) -> None:
    """A child that ends while starting gives an error with its exit code and its own last words."""
    log = tmp_path / "logs" / "engine.log"
    log.parent.mkdir()
    log.write_text("words of an earlier start\n")
    script = "import sys; print('no such model'); sys.exit(3)"
    keeper = Keeper(make_child(tmp_path, script), print, SystemClock(), QUICK)

    with pytest.raises(CommandError) as caught:
        await keeper.start()
    assert "exit code 3" in str(caught.value)
    assert "no such model" in str(caught.value)
    assert "earlier start" not in str(caught.value)
    assert str(log) in caught.value.remedy
    assert await keeper.stop(asyncio.Event())


async def test_gives_up_on_a_child_that_is_never_ready(tmp_path: Path) -> None:
    """A child that is not ready in time gives an error that says how long it had."""
    script = "import time; time.sleep(60)"
    keeper = Keeper(make_child(tmp_path, script, start_timeout_s=0.1), print, SystemClock(), QUICK)
    with pytest.raises(CommandError, match=r"not ready within 0\.1 s"):
        await keeper.start()
    await keeper.stop(asyncio.Event())
    assert keeper.pid is None


def test_children_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """Kill -9 of the parent ends the child by SIGTERM: nothing lingers."""
    tether = Path(sys.modules["penstock.cli.launch.child"].__file__ or "").with_name("tether.py")
    child = STEADY.format(pid_file=str(tmp_path / "pid"))
    parent = (
        "import os, subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-IS', {str(tether)!r}, str(os.getpid()),"
        f" sys.executable, '-IS', '-c', {child!r}])\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-IS", "-c", parent]) as process:
        asyncio.run(until((tmp_path / "pid").exists))
        asyncio.run(until(lambda: bool((tmp_path / "pid").read_text())))
        pid = int((tmp_path / "pid").read_text())
        process.kill()
    asyncio.run(until(lambda: not is_alive(pid)))


def test_tether_refuses_a_parent_that_is_gone() -> None:
    """A command whose parent died before it was tied to it does not run at all."""
    tether = Path(sys.modules["penstock.cli.launch.child"].__file__ or "").with_name("tether.py")
    answer = subprocess.run(
        [sys.executable, "-IS", str(tether), "1", sys.executable, "-c", "print('ran')"],
        capture_output=True,
        check=False,
    )
    assert answer.returncode == 1
    assert answer.stdout == b""


def test_restarts_back_off_up_to_a_limit() -> None:
    """Each death in a row doubles the pause, up to the most."""
    policy = RestartPolicy(first_s=0.5, most_s=4.0)
    assert [policy.delay_s(deaths) for deaths in (1, 2, 3, 4, 5, 1000)] == [
        0.5,
        1.0,
        2.0,
        4.0,
        4.0,
        4.0,
    ]
