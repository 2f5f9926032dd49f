"""`penstock apply` and `penstock export` against the real control plane."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.control_api import run, run_json
from tests.fakes.control_server import ControlServer, serving_control

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "manage-with-gitops.md"
TENANTS = """\
version: 1
organizations: [{name: acme}]
projects: [{name: web, organization: acme}]
keys: [{name: ci, project: web, secret: "file:ci-key", aliases: [small]}]
"""
MODELS = """\
version: 1
upstreams: [{name: gpu, endpoints: ["http://a"], credential: "file:on-the-node", tls_ca_file: ca}]
routes: [{name: small, upstream: gpu, model: m}]
aliases: [{name: small, route: small}]
"""


@pytest.fixture
def control(sqlite_template: Path, tmp_path: Path) -> Iterator[ControlServer]:
    """A control plane without any objects."""
    with serving_control(sqlite_template, tmp_path / "data") as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two platform files that refer to each other."""
    folder = tmp_path / "platform"
    folder.mkdir()
    (folder / "b-tenants.yaml").write_text(TENANTS)
    (folder / "a-models.yml").write_text(MODELS)
    (folder / "README.md").write_text("no YAML")
    (folder / "ci-key").write_text("a-secret-of-the-pipeline\n")
    return folder


def test_the_life_of_files(control: ControlServer, folder: Path, tmp_path: Path) -> None:
    """A dry run says 3 and does nothing, applying says 0, again nothing, and so does the export."""
    rehearsed = run(control, "apply", "-f", str(folder), "--dry-run")
    assert rehearsed.exit_code == 3, rehearsed.output
    assert "+ key ci (organization acme, project web)" in rehearsed.stdout
    assert "To be 7 created. Nothing was changed." in rehearsed.stdout
    assert run_json(control, "orgs", "list") == []
    applied = run(control, "apply", "-f", str(folder))
    assert applied.exit_code == 0, applied.output
    assert "7 created." in applied.stdout
    assert "a-secret-of-the-pipeline" not in applied.output + rehearsed.output
    for more in ((), ("--dry-run",), ("--prune", "--yes")):
        again = run(control, "apply", "-f", str(folder), *more)
        assert (again.exit_code, again.stdout) == (0, "Nothing to change.\n")
    (upstream,) = run_json(control, "upstreams", "list")
    assert upstream["credential_reference"] == f"file:{folder}/on-the-node"
    assert upstream["tls_ca_file"] == f"{folder}/ca"

    exported = run(control, "export")
    assert exported.exit_code == 0
    path = tmp_path / "exported.yaml"
    path.write_text(exported.stdout)
    same = run(control, "apply", "-f", str(path), "--set", "other", "--dry-run")
    assert same.exit_code == 0, same.output
    (document,) = run_json(control, "export", "--set", "default")
    assert document["keys"][0]["name"] == "ci"
    assert run_json(control, "export", "--set", "other") == [{"version": 1}]


def test_changes_are_readable(control: ControlServer, folder: Path) -> None:
    """A change is shown by member, before and after; a new secret only as such."""
    run(control, "apply", "-f", str(folder))
    (folder / "a-models.yml").write_text(
        MODELS.replace("route: small}", "route: small, is_open: false}").replace(
            'endpoints: ["http://a"]', 'endpoints: ["http://a", "http://b"]'
        )
    )
    (folder / "ci-key").write_text("another-secret-of-the-pipeline\n")
    applied = run(control, "apply", "-f", str(folder))
    assert applied.stdout.splitlines() == [
        "~ upstream gpu",
        "    endpoints: http://a -> http://a, http://b",
        "~ alias small",
        "    is_open: true -> false",
        "~ key ci (organization acme, project web): new secret",
        "2 changed, 1 given a new secret.",
    ]


def test_pruning_asks(control: ControlServer, folder: Path) -> None:
    """Without a terminal and --yes nothing is removed; leftovers are listed without --prune."""
    run(control, "apply", "-f", str(folder))
    (folder / "b-tenants.yaml").unlink()
    kept = run(control, "apply", "-f", str(folder))
    listed = "organization acme; project web (organization acme); key ci"
    assert f"removed with --prune: {listed}" in kept.stdout
    asked = run(control, "apply", "-f", str(folder), "--prune")
    assert asked.exit_code == 2
    assert "- project web (organization acme)" in asked.stdout
    assert "3 objects are removed for good" in asked.stderr
    assert len(run_json(control, "orgs", "list", "--status", "active")) == 1
    dry = run(control, "apply", "-f", str(folder), "--prune", "--dry-run")
    assert dry.exit_code == 3
    (applied,) = run_json(control, "apply", "-f", str(folder), "--prune", "--yes")
    assert [change["action"] for change in applied["changes"]] == ["delete"] * 3
    assert run_json(control, "orgs", "list", "--status", "active") == []


def test_faults_have_file_and_line(control: ControlServer, folder: Path) -> None:
    """What is found here and what control finds are told alike, in the file where it is."""
    (folder / "c.yaml").write_text("version: 1\naliases:\n  - {name: small, rout: small}\n")
    (folder / "a-models.yml").write_text(MODELS.replace("model: m}", "model: m, fallback: small}"))
    wrong = run(control, "apply", "-f", str(folder))
    assert wrong.exit_code == 1
    lines = wrong.stdout.splitlines()
    assert lines[0].startswith(f"{folder}/a-models.yml:3:")
    assert "leads back to itself" in lines[0]
    assert len(lines) == 4
    assert all(line.startswith(f"{folder}/c.yaml:3:") for line in lines[1:])
    assert "the first is on" in wrong.stdout
    assert "4 faults found; nothing was changed." in wrong.stderr

    (folder / "a-models.yml").write_text(MODELS.replace("upstream: gpu,", "upstream: x,"))
    (folder / "c.yaml").unlink()
    (finding,) = json.loads(run(control, "apply", "-f", str(folder), "--json").stdout)["findings"]
    assert finding["file"] == f"{folder}/a-models.yml"
    assert (finding["line"], finding["where"]) == (3, "routes[0].upstream")
    assert 'no upstream is named "x"' in finding["problem"]
    assert run_json(control, "orgs", "list") == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("version: 1\nkeys: [\n", "is no valid YAML"),
        ("version: 1\nkeys: [{name: k, project: p, secret: env:NOT_SET}]\n", "env:NOT_SET"),
        ("version: 1\n---\nversion: 1\n", "a second document begins"),
    ],
)
def test_files_that_cannot_be_read(
    control: ControlServer, tmp_path: Path, content: str, words: str
) -> None:
    """What cannot be read is told with its file before anything is sent."""
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    result = run(control, "apply", "-f", str(path))
    assert result.exit_code == 1
    assert words in result.stdout
    empty = tmp_path / "empty"
    empty.mkdir()
    result = run(control, "apply", "-f", str(empty), "-f", str(tmp_path / "gone.yaml"))
    assert result.exit_code == 1
    assert "has no file whose name ends in .yaml" in result.stdout
    assert run(control, "apply").exit_code == 2


def test_the_page(control: ControlServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files and commands of the how-to page work in the order in which they stand there."""
    text = PAGE.read_text("utf-8")
    files = re.compile(r"^`(platform/\S+)`:\n\n```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
    for name, content in files.findall(text):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHAT_KEY", "the-key-of-the-chat-server")
    monkeypatch.setenv("VLLM_KEY", "sk-vllm")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    commands = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    assert len(commands) >= 7
    for program, *words in commands:
        assert program == "penstock"
        arguments = words[: words.index(">")] if ">" in words else words
        result = run(control, *arguments)
        expected = 3 if "--dry-run" in arguments else 0
        assert result.exit_code == expected, (arguments, result.output)
