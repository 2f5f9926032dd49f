"""How-to pages of engines, executed against real ones."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.fakes.dev_instance import running_dev
from tests.fakes.dynamo import running_dynamo
from tests.fakes.ports import free_port

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

PAGES = Path(__file__).parents[2] / "docs" / "how-to"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KEY = re.compile(r"ps_live_[0-9A-Za-z]{12}_[0-9A-Za-z]{38}")
SOON_S = 60.0


def _run(data: Path, script: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env=os.environ | {"PATH": path, "PENSTOCK_DATA": str(data)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _walk(page: str, engine_url: str, data: Path) -> str:
    """Do what a page says, from the first command to the answer; return that."""
    with running_dev(data, "--model", "emulated-70b") as instance:
        text = (PAGES / page).read_text("utf-8").replace("http://127.0.0.1:8000", engine_url)
        text = text.replace("http://127.0.0.1:8080", instance.facts["base_url"])
        making, asking = BLOCK.findall(text)
        (provider,) = re.findall(r"--provider (\w+)", making)
        _await(instance.data, f"penstock engines detect {engine_url} || true", f"{provider}: ")
        (key,) = KEY.findall(_run(instance.data, making))
        return _await(instance.data, asking.replace("ps_live_...", key), "data: [DONE]")


def _await(data: Path, script: str, text: str) -> str:
    """Run a script until it prints a text; return all that it prints then."""
    deadline = time.monotonic() + SOON_S
    while text not in (seen := _run(data, script)):
        assert time.monotonic() < deadline, seen
        time.sleep(0.2)
    return seen


def test_the_page_about_dynamo(tmp_path: Path) -> None:
    """Every command of it succeeds, and the model of a real Dynamo answers."""
    (tmp_path / "dynamo").mkdir()
    with running_dynamo(tmp_path / "dynamo") as url:
        assert '" word' in _walk("serve-dynamo.md", url, tmp_path / "data")


@contextmanager
def _running_llama() -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "penstock.emulator.local_llm", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def test_the_page_about_llama_cpp(tmp_path: Path) -> None:
    """Every command of it succeeds, and a real model answers."""
    with _running_llama() as url:
        assert '"content":"' in _walk("serve-llama-cpp.md", url, tmp_path / "data")
