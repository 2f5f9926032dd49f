"""The how-to page: its commands work as they stand there."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.fakes.ports import free_port

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "emulate-a-model-server.md"
START_TIMEOUT_S = 60


@pytest.mark.skipif(shutil.which("curl") is None, reason="the page's commands use curl")
def test_the_commands_of_the_page_work() -> None:
    """The first command serves, and all others succeed against it."""
    port = free_port()
    blocks = re.findall(r"^```sh\n(.+?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    serve, *others = (block.replace("18080", str(port)) for block in blocks)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path}
    with subprocess.Popen(
        ["sh", "-ec", f"exec {serve}"], stdout=subprocess.DEVNULL, env=environment
    ) as server:
        try:
            _wait_listening(port)
            for commands in others:
                ended = subprocess.run(
                    ["sh", "-ec", commands],
                    capture_output=True,
                    text=True,
                    check=True,
                    timeout=60,
                    env=environment,
                )
                assert ended.stdout.startswith(("data: ", "event: ", "{"))
        finally:
            server.terminate()


def _wait_listening(port: int) -> None:
    give_up_at_s = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except ConnectionError:
            assert time.monotonic() < give_up_at_s, "the emulator did not start"
            time.sleep(0.02)
        else:
            return
