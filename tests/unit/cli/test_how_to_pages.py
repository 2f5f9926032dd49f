"""The how-to pages: their commands work in the order in which they stand there."""

import re
import shlex
from pathlib import Path

import pytest
from tests.fakes.control_api import FakeControl, run

PAGES = Path(__file__).parents[3] / "docs" / "how-to"
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "page",
    [
        "find-endpoints.md",
        "keep-upstream-credentials.md",
        "let-urgent-requests-go-first.md",
        "limit-usage.md",
        "manage-keys.md",
        "serve-lora-adapters.md",
        "serve-a-model.md",
        "serve-llama-cpp.md",
        "serve-llm-d.md",
        "serve-nim.md",
        "serve-sglang.md",
        "serve-sound-and-images.md",
        "serve-tensorrt-llm.md",
        "serve-triton.md",
        "serve-vllm.md",
        "set-budgets.md",
    ],
)
def test_every_command_works(
    plane: FakeControl, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command of a page succeeds behind those above it."""
    monkeypatch.chdir(tmp_path)
    Path("vllm.key").write_text("sk-of-the-engine\n")
    blocks = BLOCK.findall((PAGES / page).read_text("utf-8"))
    lines = [line for block in blocks for line in block.splitlines()]
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("penstock ")]
    assert len(commands) > 5
    for words in commands:
        result = run(plane, *words)
        assert result.exit_code == 0, (words, result.output)
