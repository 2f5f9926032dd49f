"""`penstock emulator` takes the emulator's own settings and says where it listens."""

import json
import signal
import subprocess
import sys
import urllib.request

import pytest
from typer.testing import CliRunner

from penstock.cli.main import app
from penstock.emulator.flags import list_flags

PENSTOCK = (sys.executable, "-c", "from penstock.cli.main import main; main()")


def test_every_setting_is_an_option() -> None:
    """Every setting of the emulator is an option here, but for the one that is always on."""
    shown = CliRunner().invoke(app, ["docs", "cli"]).stdout
    missing = [flag.option for flag in list_flags() if f"`{flag.option}`" not in shown]
    assert missing == ["--announce"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--ttft-ms", "-1"], "--ttft-ms"),
        (["--port", "70000"], "--port"),
        (["--fault", "surprise"], "--fault"),
        (["--output-tokens", "many"], "--output-tokens"),
    ],
)
def test_a_bad_value_is_exit_code_2(arguments: list[str], named: str) -> None:
    """A value out of range, or of another kind, is wrong usage and its option is named."""
    result = CliRunner().invoke(app, ["emulator", *arguments])
    assert result.exit_code == 2
    assert named in result.stderr


def test_it_serves_until_it_is_told_to_stop() -> None:
    """It says where it listens, serves the models it was told to, and ends by SIGINT with 0."""
    command = [*PENSTOCK, "emulator", "--port", "0", "--models", "one,two", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        with urllib.request.urlopen(f"{ready['url']}/v1/models") as answer:  # noqa: S310
            names = [model["id"] for model in json.load(answer)["data"]]
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    assert names == ready["models"] == ["one", "two"]
