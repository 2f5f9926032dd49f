"""The how-to page about Dynamo, executed against a real one."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.fakes.dev_instance import running_dev
from tests.fakes.dynamo import running_dynamo

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "serve-dynamo.md"
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


def test_the_page_does_what_it_says(tmp_path: Path) -> None:
    """Every command of the page succeeds, and the model of a real Dynamo answers."""
    (tmp_path / "dynamo").mkdir()
    with (
        running_dynamo(tmp_path / "dynamo") as url,
        running_dev(tmp_path / "data", "--model", "emulated-70b") as instance,
    ):
        page = PAGE.read_text("utf-8").replace("http://127.0.0.1:8000", url)
        page = page.replace("http://127.0.0.1:8080", instance.facts["base_url"])
        making, asking = BLOCK.findall(page)
        (key,) = KEY.findall(_run(instance.data, making))
        deadline = time.monotonic() + SOON_S
        while "data: [DONE]" not in (
            seen := _run(instance.data, asking.replace("ps_live_...", key))
        ):
            assert time.monotonic() < deadline, seen
            time.sleep(0.2)
        assert '" word' in seen
