"""The tutorial does what it says."""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from tests.fakes.ports import free_port

from penstock.cli.instance import Facts

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = ROOT / "docs" / "tutorials" / "first-request.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BIN = Path(sys.executable).parent
START_S = 120.0
BOOKED_S = 10.0


@pytest.fixture
def base_url(tmp_path: Path) -> Iterator[str]:
    """A dev instance with both models, in a folder that looks like the repository's."""
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(BIN)
    ports = [f"--{name}-port={free_port()}" for name in ("gateway", "control", "metrics")]
    with subprocess.Popen(
        [str(BIN / "penstock"), "dev", "--json", *ports],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    ) as process:
        try:
            yield await_ready(tmp_path / ".penstock" / "dev.json", process)
        finally:
            process.terminate()
            assert process.wait(60) == 0


def await_ready(facts: Path, process: subprocess.Popen[bytes]) -> str:
    """Return the gateway's URL once dev.json says it."""
    deadline = time.monotonic() + START_S
    while not facts.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return msgspec.json.decode(facts.read_bytes(), type=Facts).base_url


def run(script: str, folder: Path) -> str:
    """Run a script of the tutorial and return what it printed."""
    answer = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


def await_text(text: str, look: Callable[[], str]) -> None:
    """Look until the text is there: usage is booked a moment after the answer."""
    deadline = time.monotonic() + BOOKED_S
    while text not in (seen := look()):
        assert time.monotonic() < deadline, seen
        time.sleep(0.2)


@pytest.mark.engine
def test_the_tutorial_does_what_it_says(base_url: str, tmp_path: Path) -> None:
    """Every command of the tutorial succeeds and shows what the text promises."""
    blocks = BLOCK.findall(TUTORIAL.read_text("utf-8"))
    (export, models, chat, usage, by_model, top, slow, broken, latest, doctor) = (
        block.replace("http://127.0.0.1:8080", base_url) for block in blocks
    )

    def said(block: str) -> str:
        return run(export + block, tmp_path)

    assert "smollm2" in said(models)
    assert "emulated-70b" in said(models)
    assert said(chat).rstrip().endswith("data: [DONE]")
    await_text("smollm2", lambda: said(usage))
    assert '"input_tokens"' in said(by_model)
    assert "smollm2" in said(top)
    assert float(said(slow).split()[0]) >= 0.5
    stream = said(broken)
    assert '"error"' in stream
    assert "[DONE]" not in stream
    await_text("upstream_error", lambda: said(latest))
    assert "FAILED" not in said(doctor)
