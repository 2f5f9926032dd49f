"""`penstock credentials` against a control plane in memory."""

import io
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.control_api import FakeControl, run, run_json
from typer.testing import CliRunner

from penstock.cli.errors import CommandError
from penstock.cli.main import app
from penstock.cli.secret_input import MAX_SECRET_BYTES, read_secret

SECRET = "sk-a-secret"


class Terminal(io.BytesIO):
    """A stdin that somebody sits at."""

    def isatty(self) -> bool:
        """Say that it is a terminal."""
        return True


@pytest.fixture
def secret_file(tmp_path: Path) -> str:
    """A file that holds the secret and a line break."""
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    return str(path)


@pytest.fixture
def own(plane: FakeControl) -> dict[str, Any]:
    """A credential of the organization `acme`, beside one of the platform of the same name."""
    organization = plane.state.add("organizations", name="acme")
    plane.state.add("credentials", name="openai", provider="openai_compatible")
    return plane.state.add(
        "credentials",
        name="openai",
        provider="openai_compatible",
        organization_id=organization["id"],
    )


def test_create_reads_the_secret_from_a_file(plane: FakeControl, secret_file: str) -> None:
    """The secret of `--secret-file` is sent without its line break and printed nowhere."""
    arguments = ("credentials", "create", "openai", "--provider", "vllm")
    result = run(plane, *arguments, "--secret-file", secret_file)
    assert result.exit_code == 0
    assert plane.state.changes()[0].body == {"name": "openai", "provider": "vllm", "secret": SECRET}
    assert "Created credential openai (crd_" in result.stdout
    assert SECRET not in result.output


def test_create_reads_the_secret_from_stdin(plane: FakeControl) -> None:
    """Without --secret-file and a terminal, stdin holds the secret."""
    arguments = ["credentials", "create", "openai", "--provider", "vllm", "--json"]
    runner = CliRunner()
    result = runner.invoke(app, arguments, input=f"{SECRET}\r\n", env=plane.environment)
    assert result.exit_code == 0
    body = plane.state.changes()[0].body
    assert body is not None
    assert body["secret"] == SECRET
    assert SECRET not in result.output


def test_an_organization_brings_its_own(plane: FakeControl, secret_file: str) -> None:
    """--org and --upstream are given by name and sent as ids."""
    organization = plane.state.add("organizations", name="acme")
    upstream = plane.state.add("upstreams", name="openai", endpoints=["https://api.openai.com"])
    (row,) = run_json(
        plane,
        *("credentials", "create", "own", "--provider", "openai_compatible", "--org", "acme"),
        *("--upstream", "openai", "--secret-file", secret_file),
    )
    assert row["organization_id"] == organization["id"]
    assert row["upstream_id"] == upstream["id"]


def test_a_wrong_name_is_told_before_the_secret_is_read(plane: FakeControl) -> None:
    """An unknown organization is told even though there is no secret either."""
    arguments = ("credentials", "create", "own", "--provider", "vllm", "--org", "nobody")
    result = run(plane, *arguments)
    assert result.exit_code == 1
    assert "There is no organization 'nobody'." in result.stderr


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "holds no secret"),
        (b"\n", "holds no secret"),
        (b"\xff\xfe", "no UTF-8 text"),
        (b"x" * (MAX_SECRET_BYTES + 1), "more than"),
    ],
)
def test_what_is_no_secret_is_refused(
    plane: FakeControl, tmp_path: Path, content: bytes, why: str
) -> None:
    """A file that holds no secret is exit code 2, and nothing is sent."""
    path = tmp_path / "secret"
    path.write_bytes(content)
    arguments = ("credentials", "create", "a", "--provider", "vllm", "--secret-file", str(path))
    result = run(plane, *arguments)
    assert result.exit_code == 2
    assert why in result.stderr
    assert plane.state.changes() == []


def test_a_file_that_is_not_there_is_told(plane: FakeControl, tmp_path: Path) -> None:
    """A file that cannot be read is named, with the reason."""
    path = tmp_path / "absent"
    arguments = ("credentials", "create", "a", "--provider", "vllm", "--secret-file", str(path))
    result = run(plane, *arguments)
    assert result.exit_code == 2
    assert f"{path} cannot be read" in result.stderr


def test_a_terminal_is_asked_without_echo() -> None:
    """On a terminal the secret is asked for by what shows nothing, and the stream is not read."""
    assert read_secret(None, stdin=Terminal(b"visible"), ask=lambda _: SECRET) == SECRET
    with pytest.raises(CommandError):
        read_secret(None, stdin=Terminal(b"visible"), ask=lambda _: "")


def test_the_help_says_why_it_is_no_argument() -> None:
    """`credentials create --help` says how a secret is handed over, and why not as an argument."""
    text = " ".join(CliRunner().invoke(app, ["credentials", "create", "--help"]).stdout.split())
    assert "--secret-file" in text
    assert "no argument" in text


def test_set_replaces_the_secret(plane: FakeControl, own: dict[str, Any], secret_file: str) -> None:
    """`credentials set` sends the new secret alone, to the credential of the named owner."""
    arguments = ("credentials", "set", "openai", "--org", "acme", "--secret-file", secret_file)
    result = run(plane, *arguments)
    assert result.exit_code == 0, result.output
    assert SECRET not in result.output
    (asked,) = plane.state.changes()
    assert (asked.method, asked.path) == ("PATCH", f"/api/v1/credentials/{own['id']}")
    assert asked.body == {"secret": SECRET}


def test_a_name_that_two_owners_use_is_ambiguous(plane: FakeControl, own: dict[str, Any]) -> None:
    """A name of the platform's and an organization's credential names the choices."""
    result = run(plane, "credentials", "show", "openai")
    assert result.exit_code == 2
    assert "in the platform" in result.stderr
    assert f"{own['id']} in acme" in result.stderr
    assert run_json(plane, "credentials", "show", "openai", "--org", "acme") == [own]
    shown = run(plane, "credentials", "list").stdout
    assert "the platform" in shown
    assert "acme" in shown


def test_update_renames(plane: FakeControl, own: dict[str, Any]) -> None:
    """`credentials update --name` gives another name and leaves the secret alone."""
    run_json(plane, "credentials", "update", own["id"], "--name", "own")
    assert plane.state.changes()[0].body == {"name": "own"}


def test_rewrap_and_rotate_say_what_was_done(plane: FakeControl, own: dict[str, Any]) -> None:
    """Both print the report; `rotate --org` is for that organization alone."""
    assert run_json(plane, "credentials", "rewrap") == [plane.state.report]
    assert "7 credentials anew" in run(plane, "credentials", "rotate").stdout
    run_json(plane, "credentials", "rotate", "--org", "acme")
    assert [(asked.path.rpartition("/")[2], asked.body) for asked in plane.state.changes()] == [
        ("rewrap", None),
        ("rotate", {}),
        ("rotate", {"organization_id": own["organization_id"]}),
    ]


def test_what_still_needs_an_old_key_is_exit_code_1(plane: FakeControl) -> None:
    """A run that left something on the old key fails, so that nobody destroys that key."""
    plane.state.report |= {"unreadable": 1, "outdated": 2, "is_complete": False}
    result = run(plane, "credentials", "rewrap")
    assert result.exit_code == 1
    assert "2 still need an older version" in result.stdout
    assert run(plane, "credentials", "rotate", "--json").exit_code == 1
