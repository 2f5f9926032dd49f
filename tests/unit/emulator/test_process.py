"""The emulator as a process."""

import signal
import socket
import subprocess
import sys

import httpx
import pytest

COMMAND = (sys.executable, "-m", "penstock.emulator")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(number: signal.Signals) -> None:
    """It says one line when ready, serves, and ends with status 0 at SIGTERM or SIGINT."""
    with subprocess.Popen(
        [*COMMAND, "--port", "0", "--announce"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().rpartition(" ")[2].strip()
        with httpx.stream(
            "POST",
            f"{url}/v1/chat/completions",
            json={"model": "emulated-70b", "messages": [{"role": "user"}], "stream": True},
            headers={"x-emulator-itl-ms": "10", "x-emulator-output-tokens": "10000"},
        ) as answer:
            next(answer.iter_raw())
            process.send_signal(number)
            out, error = process.communicate(timeout=60)
    assert (process.returncode, out, error) == (0, "", "")


def test_a_taken_port_is_an_error_that_names_it() -> None:
    """A port that is taken ends it with an error that says so."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = subprocess.run(
            [*COMMAND, "--port", str(port)], capture_output=True, text=True, check=False, timeout=60
        )
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert str(port) in ended.stderr
