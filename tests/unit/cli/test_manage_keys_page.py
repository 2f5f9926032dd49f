"""The how-to page: its commands work in the order in which they stand there."""

import re
import shlex
from pathlib import Path

from tests.fakes.control_api import FakeControl, run

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "manage-keys.md"


def test_every_command_works(plane: FakeControl) -> None:
    """Every command of the page succeeds behind those above it."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert len(commands) > 10
    for program, *arguments in commands:
        assert program == "penstock"
        result = run(plane, *arguments)
        assert result.exit_code == 0, (arguments, result.output)
