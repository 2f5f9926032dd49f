"""Endpoints whose engines say that they are busy have fewer requests of a real worker in flight."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import msgspec
import pytest_asyncio
from tests.fakes.emulator_process import running_emulator
from tests.fakes.fake_agent import running_agent
from tests.fakes.scripted_engine import (
    DONE,
    ROLE,
    ScriptedEngine,
    Talk,
    answer,
    chat,
    counts,
    running_scripted_engine,
    usage_frame,
)
from tests.fakes.stream_caller import ask, chat_body
from tests.fakes.worker_process import make_snapshot, running_worker

from penstock.contract.node import Applied, Apply, EngineLoads
from penstock.contract.snapshot import Snapshot

ASKING = "endpoint-load-metrics-format"
BURST = 20
PATIENCE_S = 60.0
FULL = "endpoint-load-metrics: TEXT named_metrics.kv_cache_usage_perc=1.0"
IDLE = 'endpoint-load-metrics: JSON {"named_metrics": {"num_requests_waiting": 0.0}}'


class Engines:
    """Two engines that hold their answers until a whole burst has come."""

    def __init__(self, one: ScriptedEngine, two: ScriptedEngine) -> None:
        """Hold all."""
        self.both = one, two
        self.lines: dict[int, str] = {}
        """What each says in the heads of its plain answers, if it is asked."""
        self._release = asyncio.Event()
        one.script = two.script = self._answer

    async def _answer(self, talk: Talk) -> None:
        await self._release.wait()
        if talk.request.members.get("stream"):
            await talk.stream(ROLE, usage_frame(counts(1, 2)), DONE)
            return
        line = self.lines.get(talk.engine.port)
        body = chat(counts(1, 2)).partition(b"\r\n\r\n")[2]
        is_asked = ASKING in talk.request.header
        await talk.send(answer(body, 200, *([line] if line and is_asked else [])))

    async def burst(self, port: int, *, stream: bool = False) -> tuple[int, int]:
        """Have so many requests in flight at once; return how many each has."""
        before = [len(engine.requests) for engine in self.both]
        self._release.clear()
        calls = [asyncio.create_task(ask(port, "", chat_body(stream=stream))) for _ in range(BURST)]
        try:
            await _until(
                lambda: sum(len(each.requests) for each in self.both) == sum(before) + BURST
            )
        finally:
            self._release.set()
        assert {each.status for each in await asyncio.gather(*calls)} == {200}
        one, two = (
            len(engine.requests) - had for engine, had in zip(self.both, before, strict=True)
        )
        return one, two

    async def until(self, port: int, shares: tuple[int, int]) -> None:
        """Repeat bursts until they are shared so."""
        deadline = time.monotonic() + PATIENCE_S
        while (found := await self.burst(port)) != shares:
            assert time.monotonic() < deadline, f"{found} still"
            await asyncio.sleep(0.1)

    @property
    def asked(self) -> int:
        """How many requests asked for a report."""
        return sum(ASKING in each.header for engine in self.both for each in engine.requests)


async def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.01)


@pytest_asyncio.fixture
async def engines() -> AsyncIterator[Engines]:
    """Return both, of which nothing is known."""
    async with running_scripted_engine() as one, running_scripted_engine() as two:
        yield Engines(one, two)


def _snapshot(*ports: int) -> Snapshot:
    """Return what a worker serves from to which they are two of vLLM."""
    plain = make_snapshot(list(ports))
    upstream = msgspec.structs.replace(plain.upstreams[0], provider="vllm")
    return msgspec.structs.replace(plain, upstreams=(upstream,))


def _say(
    engine: ScriptedEngine, waiting: float, cache_use: float
) -> tuple[str, str, float, float, float]:
    """Return what an agent tells of an engine."""
    return ("engine", f"http://127.0.0.1:{engine.port}", 8.0, waiting, cache_use)


async def test_what_the_agent_read_counts_until_it_is_old(tmp_path: Path, engines: Engines) -> None:
    """A full engine has a quarter of what an idle one has, and as much once nobody says so."""
    one, two = engines.both
    with running_agent() as agent:
        agent.greeting = [EngineLoads((_say(one, 8, 1.0), _say(two, 0, 0.0)), 600.0), Apply(1)]
        snapshot = _snapshot(one.port, two.port)
        with running_worker(
            tmp_path, [], snapshot=snapshot, agent_socket=str(agent.path)
        ) as worker:
            agent.wait(Applied)
            await engines.until(worker.port, (4, 16))
            agent.send(EngineLoads((_say(one, 0, 0.0), _say(two, 8, 1.0)), 600.0))
            await engines.until(worker.port, (16, 4))
            agent.send(EngineLoads((_say(one, 8, 1.0),), 600.0, is_last=False))
            agent.send(EngineLoads((_say(two, 0, 0.0),), 600.0))
            await engines.until(worker.port, (4, 16))
            agent.send(EngineLoads((_say(one, 0, 0.0), _say(two, 8, 1.0)), 0.5))
            await engines.until(worker.port, (10, 10))  # no further word came


async def test_what_answers_say_counts_at_once(tmp_path: Path, engines: Engines) -> None:
    """Reports are asked for now and then, of plain answers; without one all is as configured."""
    one, two = engines.both
    with running_worker(tmp_path, [], snapshot=_snapshot(one.port, two.port)) as worker:
        await engines.until(worker.port, (10, 10))
        engines.lines = {one.port: FULL, two.port: IDLE}
    with running_worker(tmp_path / "2", [], snapshot=_snapshot(one.port, two.port)) as worker:
        began_s, before = time.monotonic(), engines.asked
        assert await engines.burst(worker.port, stream=True) == (10, 10)
        assert engines.asked == before, "streams do not say it"
        await engines.until(worker.port, (4, 16))
        engines.lines = {one.port: IDLE, two.port: IDLE}
        await engines.until(worker.port, (10, 10))
        most = 2 * (time.monotonic() - began_s + 1)
        assert 0 < engines.asked - before <= most, "of each once a second at most"


async def test_nothing_is_asked_where_it_decides_nothing(tmp_path: Path, engines: Engines) -> None:
    """Neither of an upstream's only endpoint, nor where the node is told not to heed it."""
    one, two = engines.both
    engines.lines = {one.port: FULL, two.port: IDLE}
    with running_worker(tmp_path, [], snapshot=_snapshot(one.port)) as worker:
        await engines.burst(worker.port)
        await asyncio.sleep(0.5)  # two looks
        await engines.burst(worker.port)
    snapshot = _snapshot(one.port, two.port)
    with running_worker(tmp_path / "2", [], snapshot=snapshot, heeds_load=False) as worker:
        await engines.burst(worker.port)
        await asyncio.sleep(0.5)
        assert await engines.burst(worker.port) == (10, 10)
    assert engines.asked == 0


async def test_an_engine_with_others_work_gets_less(tmp_path: Path) -> None:
    """Of two emulated vLLM the one that somebody else keeps busy is asked less often."""
    options = ("--kind", "vllm", "--batch", "4", "--ttft-ms", "300")
    with (
        running_emulator("served-model", options=options) as busy,
        running_emulator("served-model", options=options) as other,
    ):
        ports = [int(url.rpartition(":")[2]) for url in (busy, other)]
        async with _keeping_busy(busy), httpx.AsyncClient() as client:
            with running_worker(tmp_path, [], snapshot=_snapshot(*ports)) as worker:

                async def shares() -> list[int]:
                    before = [await _count(client, url) for url in (busy, other)]
                    calls = (ask(worker.port, "", chat_body()) for _ in range(6))
                    assert {each.status for each in await asyncio.gather(*calls)} == {200}
                    after = [await _count(client, url) for url in (busy, other)]
                    return [now - then for now, then in zip(after, before, strict=True)]

                deadline = time.monotonic() + PATIENCE_S
                while (found := await shares())[0] * 2 > found[1]:
                    assert time.monotonic() < deadline, f"{found} still"
                    await asyncio.sleep(0.1)


async def _count(client: httpx.AsyncClient, url: str) -> int:
    found: int = (await client.get(url + "/emulator/stats")).json()["request_count"]
    return found


@contextlib.asynccontextmanager
async def _keeping_busy(url: str) -> AsyncIterator[None]:
    """Have an engine answer a dozen endless streams of somebody else."""
    body = {"model": "served-model", "messages": [{"role": "user", "content": "hi"}]}
    headers = {"x-emulator-itl-ms": "1000", "x-emulator-output-tokens": "10000"}
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient(timeout=PATIENCE_S))
        for _ in range(12):
            await stack.enter_async_context(
                client.stream(
                    "POST",
                    url + "/v1/chat/completions",
                    json={**body, "stream": True},
                    headers=headers,
                )
            )
        yield
