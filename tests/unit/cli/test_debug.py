"""`penstock debug`: what a process says of itself, for people and programs."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from penstock.cli.main import app
from penstock.kit.debug_door import DebugDoor, Parameters, debug_routes, socket_path
from penstock.kit.inspection import Found, InspectionError, Question

HOSTILE = "a\x1b[2Jb\nc[red]"


async def _answer(question: Question, parameters: Parameters) -> Found:
    if parameters.get("worker") == "7":
        message = "there are workers 0"
        raise InspectionError(message)
    found: dict[str, Found] = {
        "tasks": {"count": 2, "tasks": [{"count": 2, "names": [HOSTILE], "stack": [HOSTILE]}]},
        "memory": {"resident_bytes": question.rows, "is_cut": True, "traced_s": question.trace_s},
        "connections": {"in_flight": 1, "requests": [{"request_id": HOSTILE, "age_ms": None}]},
    }
    return found[question.topic]


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """A data folder whose agent answers, in a thread."""
    loop = asyncio.new_event_loop()
    door = DebugDoor(socket_path(tmp_path, "agent"), debug_routes(_answer))
    thread = Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(door.open(), loop).result()
    yield tmp_path
    asyncio.run_coroutine_threadsafe(door.close(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


Ask = Callable[..., Result]


@pytest.fixture
def ask(data: Path) -> Ask:
    """Run the command on that folder."""
    return lambda *words: CliRunner().invoke(app, ["debug", *words, "--data", str(data)])


@pytest.mark.parametrize("topic", ["tasks", "connections"])
def test_what_is_shown_steers_no_terminal(ask: Ask, topic: str) -> None:
    """Names of tasks and ids of requests are escaped."""
    shown = ask(topic)
    assert shown.exit_code == 0, shown.output
    assert "a\\x1b[2Jb\\nc[red]" in shown.stdout
    assert "\x1b" not in shown.stdout


def test_programs_get_what_was_found(ask: Ask) -> None:
    """With --json it is one document; options reach the process."""
    shown = ask("memory", "--rows", "7", "--trace", "0.5", "--json")
    expected: dict[str, Any] = {"resident_bytes": 7, "is_cut": True, "traced_s": 0.5}
    assert json.loads(shown.stdout) == expected
    assert "is_cut: yes" in ask("memory").stdout


def test_what_cannot_be_answered_is_said(ask: Ask) -> None:
    """A worker that is not there, a process that does not run, and options that do not fit."""
    assert "there are workers 0" in ask("tasks", "--worker", "7").stderr
    gone = ask("tasks", "--control")
    assert gone.exit_code == 1
    assert "control does not answer" in gone.stderr
    assert ask("tasks", "--control", "--worker", "0").exit_code == 2
    assert ask("locals").exit_code == 2
