"""Examples in docstrings, run as readers would."""

import doctest
import importlib
from pathlib import Path

import pytest

import penstock

_SOURCE = Path(str(penstock.__file__)).parent
_MODULES = sorted(
    ".".join(path.relative_to(_SOURCE.parent).with_suffix("").parts)
    for path in _SOURCE.rglob("*.py")
    if ">>> " in path.read_text()
)


@pytest.mark.parametrize("name", _MODULES)
def test_examples_are_true(name: str) -> None:
    """What a docstring's example says that comes of it is what comes of it."""
    said: list[str] = []
    runner = doctest.DocTestRunner()
    for found in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name)):
        runner.run(found, out=said.append)
    assert runner.tries > 0, "its examples are none that a reader of the documentation sees"
    assert not runner.failures, "".join(said)
