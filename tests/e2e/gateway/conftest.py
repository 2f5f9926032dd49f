"""What tests of the gateway share: an engine that does as it is told, and a worker before it.

A module that needs another engine or another worker has a fixture of its own by the same name; the
worker here stands before either.
"""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from tests.fakes.http_rig import Rig, running_rig
from tests.fakes.scripted_engine import ScriptedEngine, running_scripted_engine
from tests.fakes.worker_process import WorkerProcess, running_worker


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[ScriptedEngine]:
    """Return an engine whose script each test brings."""
    async with running_scripted_engine() as running:
        yield running


@pytest.fixture(scope="module")
def worker(
    engine: ScriptedEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WorkerProcess]:
    """Return a worker in front of the engine."""
    with running_worker(tmp_path_factory.mktemp("worker"), [engine.port]) as running:
        yield running


@pytest.fixture(scope="session")
def shared_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Start one worker for all tests that ask it one thing at a time, and the engine behind it."""
    with running_rig(tmp_path_factory.mktemp("gateway")) as rig:
        yield rig


@pytest.fixture
def rig(shared_rig: Rig) -> Rig:
    """Return the worker and its engine, with nothing seen yet."""
    shared_rig.engine.seen.clear()
    return shared_rig
