"""The journal of a real worker: on disk before it matters, in order, and given back."""

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.fakes import odd_disk_worker
from tests.fakes.scripted_engine import (
    DONE,
    ROLE,
    ScriptedEngine,
    Talk,
    chat,
    counts,
    running_scripted_engine,
    token,
    usage_frame,
)
from tests.fakes.stream_caller import ask, calling, chat_body
from tests.fakes.worker_process import WorkerProcess, running_worker

from penstock.contract.journal import LOCK_FILE, Begin, Close, Open, scan

pytestmark = pytest.mark.asyncio(loop_scope="module")

ODD_DISK = Path(odd_disk_worker.__file__)


async def _plain(talk: Talk) -> None:
    await talk.send(chat(counts(1, 2)))


async def _stream(talk: Talk) -> None:
    await talk.stream(ROLE, token("x"), usage_frame(counts(1, 2)), DONE)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[ScriptedEngine]:
    """Return an engine that answers at once."""
    async with running_scripted_engine(_plain) as running:
        running.scripts["stream"] = _stream
        yield running


async def test_open_is_on_disk_before_the_engine_sees_the_request(
    engine: ScriptedEngine, worker: WorkerProcess
) -> None:
    """Whatever a request's turn in a burst is, its OPEN can be read when the engine gets it."""
    missing = []

    async def look(talk: Talk) -> None:
        name = talk.request.header["x-request-id"]
        if name not in {record.request_id for record in worker.opens()}:
            missing.append(name)
        await _plain(talk)

    engine.scripts["look"] = look
    for burst in (1, 5, 40):
        asking = (
            ask(worker.port, "look", chat_body(), x_request_id=f"open-{burst}-{number}")
            for number in range(burst)
        )
        assert {found.status for found in await asyncio.gather(*asking)} == {200}
    assert missing == []


@pytest.mark.parametrize("script", ["", "stream"])
async def test_close_is_on_disk_before_the_last_byte(worker: WorkerProcess, script: str) -> None:
    """When a caller has the last byte, the usage of its request can be read."""
    missing = []

    async def one(name: str) -> None:
        async with calling(worker.port) as caller:
            await caller.ask(script, chat_body(stream=bool(script)), x_request_id=name)
            found = await caller.read_answer()
            events = [event for event in worker.events() if event.request_id == name]
        assert found.is_complete
        if [event.output_tokens for event in events] != [2]:
            missing.append(name)

    for burst in (1, 5, 40):
        await asyncio.gather(*(one(f"close-{script}-{burst}-{n}") for n in range(burst)))
    assert missing == []


async def test_an_error_too_is_on_disk_before_its_last_byte(
    engine: ScriptedEngine, worker: WorkerProcess
) -> None:
    """When a caller is told that its stream broke off, the record can be read."""

    async def broken(talk: Talk) -> None:
        await talk.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n", ROLE)
        talk.reset()

    engine.scripts["broken"] = broken
    found = await ask(worker.port, "broken", x_request_id="broken")
    assert not found.is_complete
    assert [e.outcome for e in worker.events() if e.request_id == "broken"] == ["upstream_error"]


def _segments(worker: WorkerProcess) -> list[Path]:
    return sorted(Path(worker.settings.journal_path).glob("*/*.journal"))


async def test_every_record_survives_rotation(engine: ScriptedEngine, tmp_path: Path) -> None:
    """Over many small segments every record is there once, in order, and no space is kept."""
    with running_worker(tmp_path, [engine.port], journal_segment_bytes=65_536) as worker:
        statuses: list[int] = []

        async def caller(number: int) -> None:
            async with calling(worker.port) as connection:
                for turn in range(125):
                    name = f"{number}-{turn}-".ljust(128, "x")
                    await connection.ask("", chat_body(), x_request_id=name)
                    while (found := await connection.read_answer()).status == 503:
                        # Such small segments fill faster than a busy disk makes the next one.
                        assert found.code == "capacity:journal_full"
                        await connection.ask("", chat_body(), x_request_id=name)
                    statuses.append(found.status)

        await asyncio.gather(*(caller(number) for number in range(8)))
        assert statuses == [200] * 1000
        assert worker.stop() == 0
    segments = _segments(worker)
    assert len(segments) > 5
    opened: list[str] = []
    closed: list[str] = []
    for number, segment in enumerate(segments, 1):
        content = segment.read_bytes()
        records = list(scan(content))
        assert records[-1][1] == len(content), "the rest of a segment is given back"
        assert isinstance(records[0][0], Begin)
        assert (records[0][0].segment, records[0][0].producer) == (number, "node-test/0")
        for record, _ in records[1:]:
            if isinstance(record, Open):
                opened.append(record.event_id)
            else:
                assert isinstance(record, Close)
                assert record.event.event_id in opened
                closed.append(record.event.event_id)
    assert len(opened) == len(set(opened)) == 1000
    assert sorted(closed) == sorted(opened)


async def test_the_lock_says_whether_the_worker_lives(
    engine: ScriptedEngine, tmp_path: Path
) -> None:
    """The folder's lock is held while the worker lives, and free after kill -9."""
    with running_worker(tmp_path, [engine.port]) as worker:
        lock = os.open(Path(worker.settings.journal_path, "0-00000001", LOCK_FILE), os.O_RDWR)
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            worker.stop(9)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(lock)


@pytest.mark.parametrize("is_strict", [True, False])
async def test_only_strict_mode_waits_for_the_disk(
    engine: ScriptedEngine, tmp_path: Path, *, is_strict: bool
) -> None:
    """In strict mode the last byte waits for fsync, otherwise nothing does."""
    program = (str(ODD_DISK), "slow")
    with running_worker(
        tmp_path, [engine.port], program=program, journal_strict=is_strict
    ) as worker:
        for script in ("", "stream"):
            waits_s = []
            for _ in range(3):
                started_s = time.monotonic()
                found = await ask(worker.port, script, chat_body(stream=bool(script)))
                assert found.is_complete
                waits_s.append(time.monotonic() - started_s)
            # A busy machine may be as late as a slow disk, but not each time.
            assert (min(waits_s) >= odd_disk_worker.SLOW_S) is is_strict
        asking = [ask(worker.port, "", chat_body()) for _ in range(50)]
        started_s = time.monotonic()
        assert {found.status for found in await asyncio.gather(*asking)} == {200}
        # One after the other they would take at least 50 times that long.
        assert time.monotonic() - started_s < 25 * odd_disk_worker.SLOW_S, "waits are shared"


@pytest.mark.parametrize("is_strict", [True, False])
async def test_a_failing_disk_ends_the_worker(
    engine: ScriptedEngine, tmp_path: Path, *, is_strict: bool
) -> None:
    """After one failed fsync the worker ends with a code of its own, and never tries it again."""
    program = (str(ODD_DISK), "failing")
    with running_worker(
        tmp_path, [engine.port], program=program, journal_strict=is_strict
    ) as worker:
        async with calling(worker.port) as caller:
            await caller.ask("", chat_body())
            if is_strict:
                assert await caller.is_closed(), "no answer without its record on the disk"
        code = await asyncio.to_thread(worker.process.wait, 30)
        assert code == 70
        assert worker.log.read_text().count("journal not synced") == 1
        assert len(worker.opens()) == 1
