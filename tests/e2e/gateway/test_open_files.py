"""A worker that may open few files: callers' connections leave enough of them for all else."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.http_rig import get, request
from tests.fakes.raw_http import RawConnection
from tests.fakes.recording_engine import RecordingEngine, running_engine
from tests.fakes.worker_process import WorkerProcess, running_worker

from penstock.gateway.limits import FILES_KEPT

SOFT, HARD = 150, 300
MOST = (HARD - FILES_KEPT) // 2
PROGRAM = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({SOFT}, {HARD}))
from penstock.gateway.__main__ import main
sys.exit(main())
"""
PATIENCE_S = 30.0


@pytest.fixture
def engine() -> Iterator[RecordingEngine]:
    """Return an engine."""
    with running_engine() as running:
        yield running


@pytest.fixture
def worker(engine: RecordingEngine, tmp_path: Path) -> Iterator[WorkerProcess]:
    """Return a worker in front of it, which may have more connections than files."""
    with running_worker(tmp_path, [engine.port], program=("-c", PROGRAM)) as running:
        yield running


def test_callers_leave_files_for_engines(worker: WorkerProcess, engine: RecordingEngine) -> None:
    """However many come, those who are let in are served, the others told to come again."""
    assert resource.prlimit(worker.pid, resource.RLIMIT_NOFILE) == (HARD, HARD)
    held: list[RawConnection] = []
    codes = []
    for _ in range(HARD):
        connection = RawConnection(worker.port, timeout_s=PATIENCE_S)
        connection.send(get(b"/health/live"))
        answer = connection.read_answer()
        codes.append(answer.code if answer.status == 503 else answer.status)
        if answer.status == 200:
            held.append(connection)
        else:
            connection.close()
    assert codes == [200] * MOST + ["capacity:connections_exhausted"] * (HARD - MOST)
    for connection in held:
        connection.send(request())
    assert {connection.read_answer().status for connection in held} == {200}
    assert len(engine.seen) == MOST
    for connection in held:
        connection.close()
