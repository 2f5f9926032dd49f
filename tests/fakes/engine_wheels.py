"""Programs of others that come as wheels, each in an environment of its own, outside of the lock.

Model servers, and what checks a format.

They are large, and want versions of libraries that are not ours: `make test-engines` installs
them, at the first time, into `.venv-engines/`, and nothing else does.
"""

import fcntl
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / ".venv-engines"
WISH = "PENSTOCK_TEST_ENGINES"
"""Set by `make test-engines`: without it nothing is installed, and nothing of it is run."""
_INSTALL_S = 150


def engine_python(
    name: str,
    packages: Sequence[str],
    *,
    alone: Sequence[str] = (),
    sources: Sequence[str] = (),
    base: Path = Path(sys.executable),
) -> Path:
    """Return the Python of an environment with these packages, or skip the test.

    Args:
        name: The environment's folder.
        packages: As pip is told, with versions.
        base: The Python that makes the environment.
        alone: Further packages, whose own wishes for others are not heard.
        sources: Further packages that come as sources, whose own wishes are not heard at all.
    """
    if not os.environ.get(WISH):
        pytest.skip("real engines are asked by `make test-engines` only")
    folder = FOLDER / name
    python, done = folder / "bin" / "python", folder / "installed.txt"
    wanted = "\n".join([*packages, *alone, *sources])
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists() or done.read_text("utf-8") != wanted:
            _run([str(base), "-m", "venv", "--clear", str(folder)])
            pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            if alone:
                _run([*pip, "--no-deps", "--only-binary", ":all:", *alone])
            _run([*pip, "--only-binary", ":all:", *packages])
            if sources:
                _run([*pip, "--no-deps", "--ignore-requires-python", *sources])
            done.write_text(wanted, "utf-8")
    return python


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=_INSTALL_S)
    except subprocess.TimeoutExpired:
        pytest.skip(f"this engine's wheels did not come within {_INSTALL_S} s")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this engine's wheels are not to be had here: {error.stderr.strip()[-500:]}")
