"""SIGTERM: nothing new is taken, streams finish in the grace, the rest are told and recorded."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
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
    token,
    usage_frame,
)
from tests.fakes.stream_caller import StreamCaller, ask, calling, chat_body
from tests.fakes.worker_process import WorkerProcess, eventually, make_snapshot, running_worker

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def engine() -> AsyncIterator[ScriptedEngine]:
    """Return an engine that streams for half a second, or never ends."""

    async def short(talk: Talk) -> None:
        await talk.send(STREAM_HEAD, chunk(ROLE))
        for number in range(5):
            await asyncio.sleep(0.1)
            await talk.send(chunk(token(str(number))))
        await talk.send(chunk(usage_frame(counts(1, 5)) + DONE), LAST_CHUNK)

    async def endless(talk: Talk) -> None:
        await talk.send(STREAM_HEAD, chunk(ROLE))
        while True:
            await talk.send(chunk(token("x")))
            await asyncio.sleep(0.05)

    async def flood(talk: Talk) -> None:
        await talk.send(STREAM_HEAD)
        while True:
            await talk.send(chunk(token("x") * 500))

    async def silence(talk: Talk) -> None:
        await talk.gone()

    async def quick(talk: Talk) -> None:
        await talk.send(chat(counts(1, 1)))

    async with running_scripted_engine() as running:
        running.scripts |= {
            "short": short,
            "endless": endless,
            "flood": flood,
            "silence": silence,
            "quick": quick,
        }
        yield running


async def _ended(worker: WorkerProcess, timeout_s: float = 30.0) -> int:
    return await asyncio.to_thread(worker.process.wait, timeout_s)


def _check_all_closed(worker: WorkerProcess) -> None:
    opened = [record.event_id for record in worker.opens()]
    closed = [event.event_id for event in worker.events()]
    assert sorted(opened) == sorted(set(closed)) == sorted(closed)


async def test_streams_finish_within_the_grace(engine: ScriptedEngine, tmp_path: Path) -> None:
    """After SIGTERM new connections are refused, streams end well, and the worker ends with 0."""
    with running_worker(tmp_path, [engine.port], drain_grace_s=60.0) as worker:
        idle = await StreamCaller.connect(worker.port)
        await idle.ask("quick", chat_body())
        assert (await idle.read_answer()).status == 200
        streams = [asyncio.create_task(ask(worker.port, "short")) for _ in range(20)]
        await eventually(lambda: len(engine.seen("short")) == 20)
        os.kill(worker.pid, signal.SIGTERM)
        assert await idle.is_closed(), "idle connections are closed"
        idle.close()
        with pytest.raises(ConnectionRefusedError):
            await StreamCaller.connect(worker.port)
        answers = await asyncio.gather(*streams)
        assert all(found.is_complete and found.body.endswith(DONE) for found in answers)
        assert await _ended(worker) == 0, "it does not wait for the grace to run out"
        assert {event.outcome for event in worker.events()} == {"ok"}
        _check_all_closed(worker)


async def test_the_rest_is_told_when_the_grace_is_over(
    engine: ScriptedEngine, tmp_path: Path
) -> None:
    """When the grace runs out, streams get an error event and no end, plain callers a 503."""
    go_on = asyncio.Event()

    async def soon(talk: Talk) -> None:
        await talk.send(STREAM_HEAD, chunk(ROLE))
        await go_on.wait()
        await talk.send(chunk(usage_frame(counts(1, 5)) + DONE), LAST_CHUNK)

    engine.scripts["soon"] = soon
    with running_worker(tmp_path, [engine.port], drain_grace_s=3.0) as worker:
        finishing = [asyncio.create_task(ask(worker.port, "soon")) for _ in range(3)]
        streams = [asyncio.create_task(ask(worker.port, "endless")) for _ in range(10)]
        plain = [asyncio.create_task(ask(worker.port, "silence", chat_body())) for _ in range(5)]
        await eventually(lambda: len(engine.talks) == 18)
        os.kill(worker.pid, signal.SIGTERM)
        await eventually(lambda: "gateway.draining" in worker.log.read_text())
        go_on.set()
        for found in await asyncio.gather(*finishing):
            assert found.is_complete
        for found in await asyncio.gather(*streams):
            assert found.status == 200
            assert not found.is_complete
            assert b"[DONE]" not in found.body
            assert found.code == "internal:interrupted"
        for found in await asyncio.gather(*plain):
            assert (found.status, found.code) == (503, "internal:interrupted")
            assert found.header["retry-after"] == "1"
            assert found.header["connection"] == "close"
        assert await _ended(worker) == 0
        await eventually(lambda: engine.open_count == 0)
        events = worker.events()
    outcomes = sorted((event.outcome, event.status, event.usage_source) for event in events)
    assert outcomes == [
        *[("interrupted", 200, "counted")] * 10,
        *[("interrupted", 503, "estimated")] * 5,
        *[("ok", 200, "engine")] * 3,
    ]
    codes = {event.error_code for event in events if event.outcome == "interrupted"}
    assert codes == {"err:gateway:internal:interrupted"}
    _check_all_closed(worker)


async def test_what_waits_for_a_connection_is_told_too(
    engine: ScriptedEngine, tmp_path: Path
) -> None:
    """Requests that wait for a connection when the grace runs out are never dispatched."""
    snapshot = make_snapshot([engine.port], max_connections=1)
    with running_worker(tmp_path, [engine.port], snapshot=snapshot, drain_grace_s=0.3) as worker:
        asking = [asyncio.create_task(ask(worker.port, "silence", chat_body())) for _ in range(4)]
        await eventually(lambda: len(worker.opens()) == 4 and len(engine.talks) == 1)
        os.kill(worker.pid, signal.SIGTERM)
        answers = await asyncio.gather(*asking)
        assert {(found.status, found.code) for found in answers} == {(503, "internal:interrupted")}
        assert await _ended(worker) == 0
        assert len(engine.talks) == 1
        _check_all_closed(worker)


async def test_a_caller_that_does_not_read_holds_no_worker(
    engine: ScriptedEngine, tmp_path: Path
) -> None:
    """A stream whose caller reads nothing is ended with the grace, and recorded."""
    with running_worker(tmp_path, [engine.port], drain_grace_s=0.3) as worker:
        async with calling(worker.port, receive_bytes=65_536) as caller:
            await caller.ask("flood")
            await caller.read_head()
            await asyncio.sleep(0.3)
            os.kill(worker.pid, signal.SIGTERM)
            assert await _ended(worker) == 0
        (event,) = worker.events()
        assert event.outcome == "interrupted"


async def test_a_second_signal_changes_nothing(engine: ScriptedEngine, tmp_path: Path) -> None:
    """Signals during the drain neither hurry it nor break it."""
    with running_worker(tmp_path, [engine.port], drain_grace_s=5.0) as worker:
        stream = asyncio.create_task(ask(worker.port, "short"))
        await eventually(lambda: len(engine.seen("short")) == 1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            os.kill(worker.pid, number)
            await asyncio.sleep(0.02)
        assert (await stream).is_complete
        assert await _ended(worker) == 0
        _check_all_closed(worker)


async def test_an_idle_worker_ends_at_once(engine: ScriptedEngine, tmp_path: Path) -> None:
    """Without anything under way SIGTERM takes no time, and leaves an empty journal."""
    with running_worker(tmp_path, [engine.port], drain_grace_s=60.0) as worker:
        os.kill(worker.pid, signal.SIGTERM)
        assert await _ended(worker) == 0, "without waiting for the grace to run out"
        assert worker.opens() == []
        assert worker.events() == []
