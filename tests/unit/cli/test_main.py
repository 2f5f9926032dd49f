"""The command line as a whole: version, help, exit codes, the reference."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from penstock import __version__
from penstock.cli.checks.folder import check_config
from penstock.cli.checks.model import Verdict
from penstock.cli.main import app
from penstock.cli.output import columns_left_out
from penstock.cli.reference import render_reference

ROOT = Path(__file__).resolve().parents[3]
COMMANDS = ("dev", "usage", "doctor", "emulator", "version", "config")


def test_the_reference_is_current() -> None:
    """docs/reference/cli.md says what the commands say (`penstock docs cli` writes it anew)."""
    page = ROOT / "docs" / "reference" / "cli.md"
    assert page.read_text("utf-8") == render_reference(app)
    assert CliRunner().invoke(app, ["docs", "cli"]).stdout == render_reference(app)


def test_the_reference_is_written(tmp_path: Path) -> None:
    """`penstock docs cli --output FILE` writes the page."""
    page = tmp_path / "cli.md"
    assert CliRunner().invoke(app, ["docs", "cli", "--output", str(page)]).exit_code == 0
    assert page.read_text("utf-8") == render_reference(app)


def test_tables_of_the_reference_are_whole() -> None:
    """Every row of the reference's tables has its three cells."""
    rows = [line for line in render_reference(app).splitlines() if line.startswith("|")]
    assert rows
    assert {len(re.split(r"(?<!\\)\|", row)) for row in rows} == {5}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    """Every command is in the help, and has a help of its own."""
    assert command in CliRunner().invoke(app, ["--help"]).stdout
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage: " in result.stdout


def test_version() -> None:
    """The version is told in words and as JSON."""
    assert CliRunner().invoke(app, ["--version"]).stdout == f"penstock {__version__}\n"
    assert __version__ in CliRunner().invoke(app, ["version"]).stdout
    answer = json.loads(CliRunner().invoke(app, ["version", "--json"]).stdout)
    assert answer["penstock"] == __version__


def test_an_unknown_command_is_exit_code_2() -> None:
    """A command that does not exist is wrong usage."""
    result = CliRunner().invoke(app, ["surprise"])
    assert result.exit_code == 2
    assert "surprise" in result.stderr


def test_commands_start_without_frameworks() -> None:
    """Loading all commands imports no framework, no event loop, no HTTP and no database."""
    heavy = ("asyncio", "fastapi", "uvicorn", "httpx", "sqlalchemy", "uvloop", "yaml", "rich.table")
    assert _modules_behind("list(commands.values())").isdisjoint(heavy)


def test_a_command_loads_no_other() -> None:
    """Whoever asks for one command waits for no other's modules."""
    modules = _modules_behind("commands['version']")
    assert "penstock.cli.version" in modules
    assert modules.isdisjoint(("penstock.cli.keys", "penstock.cli.emulator", "http.client"))


def _modules_behind(expression: str) -> set[str]:
    script = (
        "import sys; from typer.main import get_command; from penstock.cli.main import app; "
        f"commands = get_command(app).commands; {expression}; print(*sys.modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(answer.stdout.split())


def test_config_check_of_a_good_file(tmp_path: Path) -> None:
    """A valid file gives a summary and exit code 0, as a table and as JSON."""
    (tmp_path / "key").write_text("0123456789abcdef")
    path = tmp_path / "penstock.yaml"
    path.write_text(
        "version: 1\n"
        "organizations: [{name: acme}]\n"
        "projects: [{name: chat, organization: acme}]\n"
        "keys: [{name: k, project: chat, secret: 'file:key'}]\n"
    )
    result = CliRunner().invoke(app, ["config", "check", str(path)])
    assert result.exit_code == 0
    assert "acme" in result.stdout
    assert "is valid" in result.stdout

    answer = json.loads(CliRunner().invoke(app, ["config", "check", str(path), "--json"]).stdout)
    assert answer["is_valid"] is True
    assert answer["summary"]["projects"] == ["chat"]


def test_config_check_tells_what_does_nothing(tmp_path: Path) -> None:
    """A tokenizer whose upstream's engines tell nothing of their caches is valid, and told."""
    path = tmp_path / "penstock.yaml"
    path.write_text(
        "version: 1\n"
        "upstreams:\n"
        "  - {name: silent, endpoints: ['http://gpu:8000']}\n"
        "  - {name: telling, endpoints: ['http://gpu:8001'], kv_events: '5557'}\n"
        "deployments:\n"
        "  - {name: a, upstream: silent, model: m, tokenizer: /models/m}\n"
        "  - {name: b, upstream: telling, model: m, tokenizer: /models/m}\n"
        "  - {name: c, upstream: silent, model: m}\n"
    )
    result = CliRunner().invoke(app, ["config", "check", str(path)])
    assert result.exit_code == 0
    assert "deployments[0].tokenizer: does nothing" in "".join(result.stdout.splitlines())
    answer = json.loads(CliRunner().invoke(app, ["config", "check", str(path), "--json"]).stdout)
    assert answer["is_valid"] is True
    assert [each["where"] for each in answer["unused"]] == ["deployments[0].tokenizer"]
    assert answer["for_apply_only"] == []
    finding = check_config(path)
    assert finding.verdict is Verdict.NOTE
    assert "does nothing" in finding.detail


def test_config_check_of_a_bad_file(tmp_path: Path) -> None:
    """Every fault is one line `file:line:column: ...`, and the exit code is 1."""
    path = tmp_path / "penstock.yaml"
    path.write_text("version: 1\nsurprise: 1\naliases: [{name: a, route: nowhere}]\n")
    result = CliRunner().invoke(app, ["config", "check", "--data", str(tmp_path)])
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert len(lines) == 2
    assert all(re.match(rf"{re.escape(str(path))}:\d+:\d+: ", line) for line in lines)

    result = CliRunner().invoke(app, ["config", "check", "--json", str(path)])
    answer = json.loads(result.stdout)
    assert result.exit_code == 1
    assert [finding["line"] for finding in answer["findings"]] == [2, 3]


def test_config_check_of_no_file(tmp_path: Path) -> None:
    """A file that is not there is one finding, not a traceback."""
    result = CliRunner().invoke(app, ["config", "check", str(tmp_path / "absent.yaml")])
    assert result.exit_code == 1
    assert "cannot be read" in result.stdout


@pytest.mark.parametrize(
    ("width", "left_out"),
    [(100, []), (40, ["id"]), (25, ["id", "note"]), (1, ["id", "note"])],
)
def test_a_narrow_terminal_gets_fewer_columns(width: int, left_out: list[str]) -> None:
    """Expendable columns go, in their order, until the rest fits or nothing more may go."""
    columns, row = ("name", "note", "id"), ("n" * 10, "o" * 10, "i" * 36)
    assert columns_left_out(columns, [row], ("id", "note"), width) == left_out
