"""`penstock import litellm`: files, streams and exit codes around the pure function."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from penstock.cli.main import app

CONFIG = """\
model_list:
  - model_name: large
    litellm_params:
      model: openai/llama-70b
      api_base: http://127.0.0.1:8000/v1
      api_key: sk-a-secret-of-somebody
general_settings:
  master_key: os.environ/MASTER_KEY
  database_url: postgres://user:password@127.0.0.1/litellm
surprise: 1
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration of LiteLLM."""
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return path


def run(*arguments: object) -> Result:
    """Run the command."""
    return CliRunner().invoke(app, ["import", "litellm", *map(str, arguments)])


def test_stdout_holds_the_file_alone(config: Path, tmp_path: Path) -> None:
    """Without --output stdout is the penstock.yaml, and what was not carried is on stderr."""
    result = run(config, "--organization", "acme", "--project", "chat")
    assert result.exit_code == 0
    assert "large" in result.stdout
    assert "name: acme" in result.stdout
    assert f"{config}:10:1: " in result.stderr
    assert "MASTER_KEY" in result.stderr
    for secret in ("sk-a-secret", "password"):
        assert secret not in result.output

    (tmp_path / "penstock.yaml").write_text(result.stdout)
    environment = {
        name: f"{name}-{'0123456789' * 3}"
        for name in json.loads(run(config, "--json").stdout)["variables"]
    }
    check = ["config", "check", str(tmp_path / "penstock.yaml")]
    checked = CliRunner().invoke(app, check, env=environment)
    assert checked.exit_code == 0, checked.output


def test_output_is_written_once(config: Path, tmp_path: Path) -> None:
    """--output writes a new file, and never over one that is there."""
    target = tmp_path / "penstock.yaml"
    result = run(config, "--output", target)
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "is written" in result.stderr
    first = target.read_text()

    result = run(config, "--output", target, "--organization", "other")
    assert result.exit_code == 2
    assert "is there already" in result.stderr
    assert target.read_text() == first


def test_json_is_one_object(config: Path) -> None:
    """With --json there is one object with the text, the notes with their lines and variables."""
    result = run(config, "--json")
    answer = json.loads(result.stdout)
    assert result.stderr == ""
    assert "large" in answer["text"]
    assert "MASTER_KEY" in answer["variables"]
    assert {"kind": "lost", "line": 10}.items() <= answer["notes"][-1].items()


@pytest.mark.parametrize("content", [b"a: [", b"nothing: here\n", b"\xff\xfe\x00", None])
def test_what_is_no_configuration(tmp_path: Path, content: bytes | None) -> None:
    """A file that is missing, no text, no YAML or not LiteLLM's is exit code 1 with its name."""
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_bytes(content)
    result = run(path)
    assert result.exit_code == 1
    assert str(path) in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.output


def test_a_bad_name_is_wrong_usage(config: Path) -> None:
    """A name that penstock.yaml cannot have is exit code 2."""
    assert run(config, "--organization", "Not A Slug").exit_code == 2


def test_an_output_that_cannot_be_written(config: Path, tmp_path: Path) -> None:
    """A folder that is not there is exit code 1 with the name."""
    result = run(config, "--output", tmp_path / "absent" / "penstock.yaml")
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr
