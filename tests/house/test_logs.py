"""Logs: every event is declared, used and documented, and nothing is logged past the one door."""

import ast
import re
from collections import Counter
from pathlib import Path

from docs.generate import REFERENCE, log_events
from tests.house.sources import PACKAGE, expect_none, label, nodes, python_files, text

LOGS = PACKAGE / "kit" / "logs"
NAME = re.compile(r"[a-z]+\.[a-z][a-z0-9_]*")
OURS = {"ts", "level", "event", "process", "node", "bug", "traceback", "traceback_id", "suppressed"}
"""Fields that the form itself says."""
QUIETENED = {PACKAGE / "kit" / "kek" / "aws.py"}
"""May ask for a library's logger, to make it say less."""


def _sources() -> list[Path]:
    return [path for path in python_files("src") if not path.is_relative_to(LOGS)]


def test_events_are_declared_once_where_they_happen() -> None:
    """An event's name begins with the room whose `log_events.py` declares it, and is its own."""
    names = [event.name for event in log_events()]
    expect_none([name for name, count in Counter(names).items() if count > 1])
    expect_none([name for name in names if not NAME.fullmatch(name)])
    declared = {
        name: path.parent.name
        for path in python_files("src")
        if path.name == "log_events.py"
        for name in re.findall(r'Event\(\s*"([^"]+)"', text(path))
    }
    expect_none([name for name, room in declared.items() if name.partition(".")[0] != room])


def test_every_event_is_used() -> None:
    """No event is declared that nothing logs."""
    used = {
        node.attr
        for path in python_files("src")
        for node in nodes(path)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if node.value.id == "log_events"
    }
    expect_none(
        [
            f"{label(path)}: {name}"
            for path in _sources()
            if path.name == "log_events.py"
            for name in re.findall(r"^([A-Z_0-9]+) = Event\(", text(path), re.MULTILINE)
            if name not in used
        ]
    )


def test_only_declared_events_are_logged() -> None:
    """Nobody asks `logging` for a logger: declare it in `log_events.py` and call its `log`."""
    expect_none(
        [
            label(path, node.lineno)
            for path in _sources()
            if path not in QUIETENED
            for node in nodes(path)
            if (isinstance(node, ast.Import) and any(name.name == "logging" for name in node.names))
            or (isinstance(node, ast.ImportFrom) and node.module == "logging")
        ]
    )


def test_no_field_hides_one_of_the_form() -> None:
    """No event is logged with a field that every line has, or with names nobody can look up."""
    expect_none(
        [
            f"{label(path, node.lineno)}: {keyword.arg or '**'}"
            for path in _sources()
            for node in nodes(path)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if node.func.attr == "log" and "log_events" in ast.unparse(node.func)
            for keyword in node.keywords
            if keyword.arg is None or keyword.arg in OURS - {"bug"}
        ]
    )


def test_every_event_is_documented() -> None:
    """Every event has its line in the reference."""
    page = text(REFERENCE / "log-events.md")
    expect_none([event.name for event in log_events() if f"`{event.name}`" not in page])
