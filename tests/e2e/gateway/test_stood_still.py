"""A worker that stood still: it reads what came meanwhile before it says that anything is late."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
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
    token,
)
from tests.fakes.stream_caller import StreamCaller, ask, calling, chat_body
from tests.fakes.worker_process import WorkerProcess, eventually, make_snapshot, running_worker

from penstock.contract.snapshot import Timeouts
from penstock.gateway.limits import ARRIVAL_S, SWEEP_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

BOUND_S = 4.0
"""Far more than passes between two steps of a test; less than a worker stands still."""
LONGER_S = 0.5
TRIES = 20
"""On a busy machine a second may be over before the worker is stopped."""


class Held:
    """A script of an engine that answers the second half when it is told to."""

    def __init__(self, first: bytes, second: bytes) -> None:
        """Hold the answer."""
        self._first, self._second = first, second
        self._goes_on = asyncio.Event()
        self._is_sent = asyncio.Event()
        self.is_asked = asyncio.Event()

    async def __call__(self, talk: Talk) -> None:
        """Answer, with a pause."""
        if self._first:
            await talk.send(self._first)
        self.is_asked.set()
        await self._goes_on.wait()
        await talk.send(self._second)
        self._is_sent.set()

    async def finish(self) -> None:
        """Send the second half."""
        self._goes_on.set()
        await self._is_sent.wait()


PLAIN = (b"", chat(counts(1, 2)))
STREAM = (STREAM_HEAD + chunk(ROLE), chunk(token("a") + DONE) + LAST_CHUNK)


@asynccontextmanager
async def _standing_still(worker: WorkerProcess, seconds: float) -> AsyncIterator[None]:
    """Let a worker stand still while something happens, and longer."""
    os.kill(worker.pid, signal.SIGSTOP)
    stat = Path(f"/proc/{worker.pid}/stat")
    await eventually(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")
    yield
    await asyncio.sleep(seconds)
    os.kill(worker.pid, signal.SIGCONT)


async def _begin_to_drain(worker: WorkerProcess) -> None:
    os.kill(worker.pid, signal.SIGTERM)
    await eventually(lambda: "gateway.draining" in worker.log.read_text())


@pytest.mark.parametrize(("first", "second"), [PLAIN, STREAM], ids=["plain", "stream"])
async def test_what_an_engine_sent_meanwhile_came_in_time(
    engine: ScriptedEngine, tmp_path: Path, first: bytes, second: bytes
) -> None:
    """An answer, or more of it, that lies unread when its bound is over is relayed whole."""
    engine.script = script = Held(first, second)
    bound_ms = int(BOUND_S * 1000)
    timeouts = Timeouts(first_byte_ms=bound_ms, idle_ms=bound_ms)
    snapshot = make_snapshot([engine.port], timeouts=timeouts)
    with running_worker(tmp_path, [engine.port], snapshot=snapshot) as worker:
        async with calling(worker.port) as caller:
            await caller.ask("", chat_body(stream=bool(first)))
            await script.is_asked.wait()
            if first:
                assert await caller.read_head() == 200
                assert await caller.read_piece() == ROLE
            await asyncio.sleep(2 * SWEEP_S)  # it is known that nothing came since
            async with _standing_still(worker, BOUND_S + LONGER_S):
                await script.finish()
            if not first:
                assert await caller.read_head() == 200
            body, is_complete = await caller.read_body()
        assert is_complete
        assert body.endswith(DONE if first else b"}")
        (event,) = worker.wait_events(1)
        assert event.outcome == "ok"


async def test_an_answer_that_came_within_the_grace_is_not_interrupted(
    engine: ScriptedEngine, tmp_path: Path
) -> None:
    """A drain that is over reads what lies there before it ends what is under way."""
    engine.script = script = Held(*PLAIN)
    with running_worker(tmp_path, [engine.port], drain_grace_s=BOUND_S) as worker:
        asking = asyncio.create_task(ask(worker.port, "", chat_body()))
        await script.is_asked.wait()
        await _begin_to_drain(worker)
        async with _standing_still(worker, BOUND_S + LONGER_S):
            await script.finish()
        assert (await asking).status == 200
        assert await asyncio.to_thread(worker.process.wait, 20) == 0
        (event,) = worker.events()
        assert event.outcome == "ok"


async def test_a_request_that_came_while_a_drain_stood_still_is_served(
    engine: ScriptedEngine, tmp_path: Path
) -> None:
    """A new connection is not closed over a request that it brought in its time."""

    async def script(talk: Talk) -> None:
        await talk.send(chat(counts(1, 2)))

    engine.script = script
    for number in range(TRIES):
        with running_worker(tmp_path / str(number), [engine.port]) as worker:
            caller = await StreamCaller.connect(worker.port)
            began_s = time.monotonic()
            await _begin_to_drain(worker)
            await asyncio.sleep(ARRIVAL_S / 10)  # it has seen the connection
            async with _standing_still(worker, ARRIVAL_S + LONGER_S):
                is_late = time.monotonic() - began_s > ARRIVAL_S * 0.8
                await caller.ask("", chat_body())
            if not is_late:
                answer = await caller.read_answer()
                assert (answer.status, answer.header["connection"]) == (200, "close")
                caller.close()
                assert await asyncio.to_thread(worker.process.wait, 20) == 0
                return
            caller.close()
    raise AssertionError
