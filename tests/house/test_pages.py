"""Pages for people name commands, options, metrics and settings that are there."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from docs.generate import metrics
from tests.house.sources import ROOT, expect_none, label, text, tracked_files
from typer.main import get_command

from penstock.cli.main import app
from penstock.node.settings import AgentSettings

FENCED = re.compile(r"^ *```(?P<kind>\w*)\n(?P<content>.*?)^ *```", re.MULTILINE | re.DOTALL)
METRIC = re.compile(r"\bpenstock_[a-z0-9_]+\b")
OPTION = re.compile(r"-{1,2}[a-z][\w-]*(=.*)?", re.DOTALL)
HELP = ("-h", "--help")
SUFFIXES = ("", "_bucket", "_sum", "_count")
NOT_METRICS = ("penstock_code", "penstock_test", "penstock_dashboards")
ELSEWHERE = ("benches", "changes", "src", "tests")
MADE_OR_PAST = (("docs", ["adr"]), ("docs", ["reference"]))
SETTINGS = {"limits_url", "nats_url", "otlp", "kafka", "kek"}
REQUIRED = {"data_path": "data", "control_url": "http://127.0.0.1:8081"}


def _pages() -> Iterator[Path]:
    """Yield what people wrote: decisions tell what was so then, the reference is generated."""
    for path in tracked_files():
        room, *rest = path.relative_to(ROOT).parts
        is_written = room not in ELSEWHERE and (room, rest[:1]) not in MADE_OR_PAST
        if path.suffix == ".md" and is_written:
            yield path


def _commands(content: str) -> Iterator[list[str]]:
    """Yield the words of each command of ours in a block for a shell."""
    for line in content.replace("\\\n", " ").splitlines():
        _, found, command = line.partition("penstock ")
        before = line[: len(line) - len(command)].strip()
        if found and before.rpartition(" ")[2] in ("penstock", ".venv/bin/penstock"):
            words = shlex.shlex(command, posix=True, punctuation_chars=True)
            words.whitespace_split = True
            yield list(_until_its_end(words))


def _until_its_end(words: shlex.shlex) -> Iterator[str]:
    for word in words:
        if set(word) <= set("|&;<>()"):
            return
        yield word


def _find_fault(words: list[str]) -> str | None:
    """Return what is not there: a command, or one of its options."""
    command: Any = get_command(app)
    options = {name: each for each in command.params for name in each.opts}
    rest = iter(words)
    for word in rest:
        if OPTION.fullmatch(word):
            name, has_value, _ = word.partition("=")
            if name in HELP:
                continue
            if name not in options:
                return f"{command.name} has no option {name}"
            if not (has_value or options[name].is_flag):
                next(rest, None)
        elif subcommands := getattr(command, "commands", None):
            if word not in subcommands:
                return f"{command.name} has no command {word}"
            command = subcommands[word]
            options |= {
                name: each for each in command.params for name in (*each.opts, *each.secondary_opts)
            }
    return None


def test_commands_on_pages_are_there() -> None:
    """Each `penstock` command in a block for a shell names commands and options that exist."""
    problems = []
    count = 0
    for path in _pages():
        for block in FENCED.finditer(text(path)):
            if block["kind"] not in ("", "sh", "bash", "console", "shell"):
                continue
            for words in _commands(block["content"]):
                count += 1
                fault = _find_fault(words)
                if fault is not None:
                    problems.append(f"{label(path)}: penstock {' '.join(words)}: {fault}")
    assert count > 100
    expect_none(problems)


def test_metrics_on_pages_are_there() -> None:
    """Each metric that a page names is one that is declared."""
    known = {metric.name + suffix for metric in metrics() for suffix in SUFFIXES}
    named = {(path, name) for path in _pages() for name in METRIC.findall(text(path))}
    assert len(named) > 50
    expect_none(
        sorted(
            f"{label(path)}: there is no {name}"
            for path, name in named
            if name not in known and not name.startswith(NOT_METRICS)
        )
    )


def test_settings_on_pages_are_taken() -> None:
    """What a page shows as settings of an agent is taken as such."""
    count = 0
    problems = []
    for path in _pages():
        for block in FENCED.finditer(text(path)):
            if block["kind"] != "json" or not block["content"].lstrip().startswith("{"):
                continue
            try:
                shown = json.loads(block["content"])
            except ValueError:
                continue  # several objects, or one that is cut short
            if SETTINGS & shown.keys():
                count += 1
                try:
                    msgspec.convert({**REQUIRED, **shown}, AgentSettings)
                except msgspec.ValidationError as error:
                    problems.append(f"{label(path)}: {error}")
    assert count >= 3
    expect_none(problems)
