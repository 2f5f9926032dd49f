"""One worker for all tests that ask it one thing at a time."""

from collections.abc import Iterator

import pytest
from tests.fakes.http_rig import Rig, running_rig


@pytest.fixture(scope="session")
def shared_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Start a worker and the engine behind it, once."""
    with running_rig(tmp_path_factory.mktemp("gateway")) as rig:
        yield rig


@pytest.fixture
def rig(shared_rig: Rig) -> Rig:
    """Return the worker and its engine, with nothing seen yet."""
    shared_rig.engine.seen.clear()
    return shared_rig
