"""What holds for every test: only this machine is talked to, and slow machines fail nothing."""

import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import hypothesis
import pytest
from tests.fakes.effort import tries

# What is imported and collected lives to the end: nobody need look through it for garbage.
gc.disable()

# Two busy cores make any example slow now and then: that is no finding.
hypothesis.settings.register_profile(
    "penstock", deadline=None, print_blob=True, max_examples=tries(100)
)
hypothesis.settings.load_profile("penstock")

# A proxy of the developer's shell must not get what tests send to 127.0.0.1.
for _name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
    os.environ.pop(_name, None)
    os.environ.pop(_name.lower(), None)

# Tests start hundreds of processes: what one has compiled, the others need not.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

_TESTS = Path(__file__).parent
_LONGEST_FIRST = {"integration": 1, "contract": 2, "e2e": 3, "property": 4}
"""Folders by how long one file of theirs takes; behind them are those of a second or two."""

_LOOPBACK = ("127.", "::1", "::ffff:127.", "localhost")


def _refuse_other_machines(event: str, arguments: Sequence[object]) -> None:
    if event != "socket.connect":
        return
    address = arguments[1]
    if isinstance(address, tuple) and not str(address[0]).startswith(_LOOPBACK):
        message = f"a test tried to connect to {address[0]}: tests talk to this machine only"
        raise RuntimeError(message)


sys.addaudithook(_refuse_other_machines)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long, so that at the end no core waits for another's."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}

    def order(item: pytest.Item) -> int:
        folder = item.path.relative_to(_TESTS).parts[0]
        return 0 if item.path in slow else _LONGEST_FIRST.get(folder, len(_LONGEST_FIRST) + 1)

    items.sort(key=order)


def pytest_collection_finish() -> None:
    """Look for garbage again, but not among what was imported and collected."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Let everything go, as at the end of any process."""
    gc.unfreeze()
