"""Workers end one after the other while callers come: not one request is lost."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from tests.fakes.scripted_engine import ScriptedEngine, Talk, chat, counts, running_scripted_engine
from tests.fakes.stream_caller import AbnormalEndError, StreamCaller, calling, chat_body
from tests.fakes.worker_process import WorkerProcess, running_worker

from penstock.gateway.limits import ARRIVAL_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

KNOCKING = 20
CALLERS = 8
DELAY_S = 3.0
"""Ten times and more what the balancer takes to see that a replica is not ready."""
LOOK_S = 0.05


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[ScriptedEngine]:
    """Return an engine that takes a moment."""

    async def script(talk: Talk) -> None:
        await asyncio.sleep(0.02)
        await talk.send(chat(counts(1, 2)))

    async with running_scripted_engine() as running:
        running.script = script
        yield running


async def test_who_knocked_before_the_end_is_served(engine: ScriptedEngine, tmp_path: Path) -> None:
    """Connections that wait to be accepted, or that are new, bring their requests yet."""
    with running_worker(tmp_path, [engine.port]) as worker:
        new = [await StreamCaller.connect(worker.port) for _ in range(3)]
        os.kill(worker.pid, signal.SIGSTOP)
        knocking = [await StreamCaller.connect(worker.port) for _ in range(KNOCKING)]
        for caller in knocking:
            await caller.ask("", chat_body())
        os.kill(worker.pid, signal.SIGTERM)
        os.kill(worker.pid, signal.SIGCONT)
        began_s = time.monotonic()
        for caller in new:
            await caller.ask("", chat_body())
        is_late = time.monotonic() - began_s > ARRIVAL_S / 2  # on a busy machine
        served = knocking if is_late else [*knocking, *new]
        for caller in served:
            answer = await caller.read_answer()
            assert (answer.status, answer.header["connection"]) == (200, "close")
        for caller in (*knocking, *new):
            caller.close()
        assert await asyncio.to_thread(worker.process.wait, 20) == 0
        outcomes = [event.outcome for event in worker.events()]
        assert outcomes == ["ok"] * len(outcomes)
        assert len(served) <= len(outcomes) <= KNOCKING + len(new)


class Balancer:
    """Gives out replicas in turn, without those that said that they are not ready."""

    def __init__(self) -> None:
        """Know none."""
        self.is_open = True
        """Whoever works with it goes on as long as it is. Who is cancelled may not hear of it."""
        self._ports: list[int] = []
        self._ready: list[int] = []
        self._turn = 0

    def add(self, port: int) -> None:
        """Know one more replica."""
        self._ports.append(port)

    def forget(self, port: int) -> None:
        """Know a replica no more."""
        self._ports.remove(port)

    def next(self) -> int:
        """Return the port of the next one that is ready."""
        self._turn += 1
        return self._ready[self._turn % len(self._ready)]

    async def look(self) -> None:
        """Ask all how they are."""
        self._ready = [port for port in self._ports if await _is_ready(port)]

    async def run(self) -> None:
        """Look again and again."""
        while self.is_open:
            await self.look()
            await asyncio.sleep(LOOK_S)


async def _is_ready(port: int) -> bool:
    try:
        async with calling(port) as caller:
            await caller.send(b"GET /health/ready HTTP/1.1\r\nhost: g\r\nconnection: close\r\n\r\n")
            return (await caller.read_answer()).status == 200
    except (OSError, AbnormalEndError):  # who comes as a port is closed is reset
        return False


@contextmanager
def _replica(folder: Path, engine: ScriptedEngine, balancer: Balancer) -> Iterator[WorkerProcess]:
    with running_worker(folder, [engine.port], drain_delay_s=DELAY_S, drain_grace_s=30.0) as worker:
        balancer.add(worker.port)
        yield worker


async def _ask_on(balancer: Balancer, seen: Counter[int]) -> None:
    """Ask as long as it is open, on a connection as long as it is kept."""
    while balancer.is_open:
        port = balancer.next()
        async with calling(port) as caller:
            for _ in range(5):
                await caller.ask("", chat_body())
                answer = await caller.read_answer()
                seen[answer.status] += 1
                if answer.header.get("connection") == "close":
                    break


async def test_no_request_is_lost_when_replicas_are_replaced(
    engine: ScriptedEngine, tmp_path: Path
) -> None:
    """Behind a balancer that heeds readiness, both are replaced, and every request is answered."""
    balancer, seen = Balancer(), Counter[int]()
    with (
        _replica(tmp_path / "a", engine, balancer) as first,
        _replica(tmp_path / "b", engine, balancer) as second,
    ):
        await balancer.look()
        looking = asyncio.create_task(balancer.run())
        callers = [asyncio.create_task(_ask_on(balancer, seen)) for _ in range(CALLERS)]
        with (
            _replica(tmp_path / "c", engine, balancer),
            _replica(tmp_path / "d", engine, balancer),
        ):
            for old in (first, second):
                os.kill(old.pid, signal.SIGTERM)
                assert await asyncio.to_thread(old.process.wait, 60) == 0
                balancer.forget(old.port)
                assert {event.outcome for event in old.events()} == {"ok"}
            assert not looking.done()
            assert not [task.result() for task in callers if task.done()], "a request was lost"
            balancer.is_open = False
            await asyncio.gather(looking, *callers)
    assert seen.keys() == {200}
