"""A journal without space: nothing new is admitted, nothing is lost, and it goes on by itself."""

import asyncio
import resource
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from tests.fakes.raw_http import ask as ask_raw
from tests.fakes.scripted_engine import (
    DONE,
    LAST_CHUNK,
    ROLE,
    STREAM_HEAD,
    ScriptedEngine,
    Talk,
    chat,
    chunk,
    counts,
    running_scripted_engine,
    usage_frame,
)
from tests.fakes.stream_caller import ask, calling, chat_body
from tests.fakes.worker_process import WorkerProcess, eventually, running_worker

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEGMENT_BYTES = 65_536
DISK_BYTES = 1024 * 1024


@dataclass
class SmallDisk:
    """A disk that can be filled: a small tmpfs, or, where mounting is not allowed, a stand-in.

    The stand-in occupies the name of the next segment: making it fails as it does on a full disk.
    """

    folder: Path
    is_mounted: bool

    def fill(self) -> None:
        """Leave no space for one more segment."""
        if not self.is_mounted:
            segments = sorted(self.folder.glob("*/*.journal"))
            self._name(segments[-1], 1).touch()
            return
        with (self.folder / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
            while True:
                ballast.write(b"x" * 4096)

    def free(self) -> None:
        """Make space again."""
        if self.is_mounted:
            (self.folder / "ballast").unlink()
        else:
            for segment in self.folder.glob("*/*.journal"):
                if segment.stat().st_size == 0:
                    segment.unlink()

    @staticmethod
    def _name(segment: Path, step: int) -> Path:
        return segment.with_name(f"{int(segment.stem) + step:08d}.journal")


@contextmanager
def _small_disk(folder: Path) -> Iterator[SmallDisk]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    try:
        is_mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        is_mounted = False
    try:
        yield SmallDisk(folder, is_mounted)
    finally:
        if is_mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[ScriptedEngine]:
    """Return an engine that answers at once, or when it is told to."""

    async def quick(talk: Talk) -> None:
        await talk.send(chat(counts(1, 2)))

    async with running_scripted_engine(quick) as running:
        yield running


def _ready(worker: WorkerProcess) -> int:
    return ask_raw(worker.port, b"GET /health/ready HTTP/1.1\r\nhost: g\r\n\r\n").status


async def _fill_the_journal(worker: WorkerProcess) -> int:
    """Ask until the worker admits nothing more; return how many requests were served."""
    async with calling(worker.port) as caller:
        for served in range(10_000):
            await caller.ask("", chat_body())
            found = await caller.read_answer()
            if found.status != 200:
                assert (found.status, found.code) == (503, "capacity:journal_full")
                assert found.header["retry-after"] == "1"
                return served
    raise AssertionError


async def _until_ready(worker: WorkerProcess) -> None:
    await eventually(lambda: _ready(worker) == 200)


async def test_a_full_disk_stops_admission_and_loses_nothing(
    engine: ScriptedEngine, tmp_path: Path
) -> None:
    """On a full disk new requests get 503, those under way end and are recorded, and it resumes."""
    go_on = asyncio.Event()

    async def held(talk: Talk) -> None:
        await talk.send(STREAM_HEAD, chunk(ROLE))
        await asyncio.wait_for(go_on.wait(), 120)
        await talk.send(chunk(usage_frame(counts(3, 4)) + DONE), LAST_CHUNK)

    engine.scripts["held"] = held
    with (
        _small_disk(tmp_path / "disk") as disk,
        running_worker(
            tmp_path / "worker", [engine.port],
            journal_path=str(disk.folder), journal_segment_bytes=SEGMENT_BYTES,
        ) as worker,
    ):  # fmt: skip
        streams = [asyncio.create_task(ask(worker.port, "held")) for _ in range(30)]
        await eventually(lambda: len(engine.seen("held")) == 30)
        disk.fill()
        served = await _fill_the_journal(worker)
        seen = len(engine.requests)
        assert _ready(worker) == 503
        assert ask_raw(worker.port, b"GET /health/live HTTP/1.1\r\nhost: g\r\n\r\n").status == 200
        refused = await asyncio.gather(*(ask(worker.port, "", chat_body()) for _ in range(20)))
        assert {found.code for found in refused} == {"capacity:journal_full"}
        assert len(engine.requests) == seen, "what cannot be recorded is not sent"

        go_on.set()
        answers = await asyncio.wait_for(asyncio.gather(*streams), 30)
        assert all(found.is_complete and found.body == ROLE + DONE for found in answers)
        assert len(worker.events()) == served + 30, "each end is recorded, on a full disk too"
        served += await _fill_the_journal(worker)  # what the ends did not need of their room
        assert _ready(worker) == 503

        disk.free()
        await _until_ready(worker)
        assert await _after(worker) == [200] * 200
        assert worker.stop() == 0
        assert worker.log.read_text().count("gateway.journal_not_ahead") == 1, "it says so once"
        _check_all_closed(worker, served + 30 + 200)


async def _after(worker: WorkerProcess) -> list[int]:
    found: list[int] = []
    async with calling(worker.port) as caller:
        while len(found) < 200:
            await caller.ask("", chat_body())
            status = (await caller.read_answer()).status
            if status != 503:  # small segments fill faster than the next one is made
                found.append(status)
    return found


def _check_all_closed(worker: WorkerProcess, count: int) -> None:
    opened = [record.event_id for record in worker.opens()]
    closed = [event.event_id for event in worker.events()]
    assert len(opened) == len(set(opened)) == count
    assert sorted(opened) == sorted(closed)


async def test_a_disk_that_takes_no_writes_loses_nothing(
    engine: ScriptedEngine, tmp_path: Path
) -> None:
    """While writing fails, last bytes wait and nothing is admitted; then all goes on in order."""
    go_on = asyncio.Event()

    async def held(talk: Talk) -> None:
        await asyncio.wait_for(go_on.wait(), 120)
        await talk.send(chat(counts(3, 4)))

    engine.scripts["waiting"] = held
    with running_worker(tmp_path, [engine.port]) as worker:
        assert (await ask(worker.port, "", chat_body())).status == 200
        asking = [asyncio.create_task(ask(worker.port, "waiting", chat_body())) for _ in range(20)]
        await eventually(lambda: len(engine.seen("waiting")) == 20)
        hard = resource.prlimit(worker.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (1000, hard))
        go_on.set()
        await asyncio.sleep(0.4)
        assert not any(task.done() for task in asking), "no last byte without its record"
        found = await ask(worker.port, "", chat_body())
        assert (found.status, found.code) == (503, "capacity:journal_full")
        assert _ready(worker) == 503

        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (hard, hard))
        answers = await asyncio.wait_for(asyncio.gather(*asking), 30)
        assert {found.status for found in answers} == {200}
        await _until_ready(worker)
        assert (await ask(worker.port, "", chat_body())).status == 200
        assert worker.stop() == 0
        _check_all_closed(worker, 22)


async def test_a_worker_without_space_does_not_start(
    engine: ScriptedEngine, tmp_path: Path
) -> None:
    """A worker that cannot allocate its first segment says so and ends."""
    with _small_disk(tmp_path / "disk") as disk:
        too_large = 1024 * DISK_BYTES if disk.is_mounted else 2**62
        with pytest.raises(RuntimeError, match=r"gateway\.cannot_start"):
            running_worker(
                tmp_path / "worker", [engine.port],
                journal_path=str(disk.folder), journal_segment_bytes=too_large,
            ).__enter__()  # fmt: skip
