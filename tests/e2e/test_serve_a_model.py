"""The how-to page about serving a model, from the engine's URL to the streamed answer."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.fakes.dev_instance import DevInstance, running_dev
from tests.fakes.emulator_process import running_emulator

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "serve-a-model.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KEY = re.compile(r"ps_live_[0-9A-Za-z]{12}_[0-9A-Za-z]{38}")
DONE = "data: [DONE]"
SOON_S = 60.0


def _run(instance: DevInstance, script: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=instance.data.parent,
        env=os.environ | {"PATH": path, "PENSTOCK_DATA": str(instance.data)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _await(instance: DevInstance, script: str, text: str) -> None:
    """Run a script until it prints a text: changes are on every node a moment later."""
    deadline = time.monotonic() + SOON_S
    while text not in (seen := _run(instance, script)):
        assert time.monotonic() < deadline, seen
        time.sleep(0.1)


@pytest.mark.slow
def test_the_page_does_what_it_says(tmp_path: Path) -> None:
    """Every command of the page succeeds, and the model answers only as long as it is granted."""
    (tmp_path / "vllm.key").write_text("sk-of-the-engine\n")
    with (
        running_emulator("llama-3.3-70b") as engine_url,
        running_dev(tmp_path / "data", "--model", "emulated-70b") as instance,
    ):
        page = PAGE.read_text("utf-8")
        page = page.replace("http://127.0.0.1:8000", engine_url)
        page = page.replace("http://127.0.0.1:8080", instance.facts["base_url"])
        blocks = BLOCK.findall(page)
        (asking,) = (index for index, block in enumerate(blocks) if "curl" in block)
        *_, created = [_run(instance, block) for block in blocks[:asking]]
        (key,) = KEY.findall(created)
        ask = blocks[asking].replace("ps_live_...", key)
        _await(instance, ask, DONE)
        *more, residency, ending = blocks[asking + 1 :]
        for block in more:
            _run(instance, block)
        _await(instance, ask, DONE)
        _run(instance, residency)
        _await(instance, ask, DONE)
        _run(instance, ending)
        _await(instance, ask, "model_not_found")
