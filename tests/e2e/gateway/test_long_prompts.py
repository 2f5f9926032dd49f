"""A long prompt keeps its engine busy until it is read: what comes meanwhile goes elsewhere."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import closing

import pytest
import pytest_asyncio
from tests.fakes.scripted_engine import (
    ROLE,
    STREAM_HEAD,
    ScriptedEngine,
    Talk,
    chunk,
    running_scripted_engine,
)
from tests.fakes.stream_caller import StreamCaller, chat_body
from tests.fakes.worker_process import WorkerProcess, eventually, running_worker

from penstock.gateway.limits import READING_TOKENS

pytestmark = pytest.mark.asyncio(loop_scope="module")

UNITS = 6
LONG = "x" * (UNITS * READING_TOKENS * 4)
"""Four bytes are taken for a token."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engines() -> AsyncIterator[tuple[ScriptedEngine, ScriptedEngine]]:
    """Return two engines of one upstream."""
    async with running_scripted_engine() as one, running_scripted_engine() as other:
        yield one, other


@pytest.fixture
def worker(
    engines: tuple[ScriptedEngine, ScriptedEngine], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WorkerProcess]:
    """Return a worker before both."""
    ports = [engine.port for engine in engines]
    with running_worker(tmp_path_factory.mktemp("worker"), ports) as running:
        yield running


class Site:
    """Requests that are all under way at once."""

    def __init__(
        self, engines: tuple[ScriptedEngine, ScriptedEngine], worker: WorkerProcess
    ) -> None:
        """No engine writes anything before it may."""
        self._engines, self._worker = engines, worker
        self._may_write = asyncio.Event()
        self.callers: list[StreamCaller] = []
        self._before = [len(engine.requests) for engine in engines]
        for engine in engines:
            engine.script = self._script

    async def _script(self, talk: Talk) -> None:
        await talk.send(STREAM_HEAD)  # as vLLM does, long before it has anything to say
        await self._may_write.wait()
        await talk.send(chunk(ROLE))
        await talk.gone()

    def counts(self) -> tuple[int, ...]:
        """Return how many requests each engine got."""
        now = [len(engine.requests) for engine in self._engines]
        return tuple(a - b for a, b in zip(now, self._before, strict=True))

    async def ask(self, text: str) -> None:
        """Send a prompt, and wait until an engine has it."""
        count = sum(self.counts())
        caller = await StreamCaller.connect(self._worker.port)
        self.callers.append(caller)
        await caller.ask("", chat_body(stream=True, messages=[{"role": "user", "content": text}]))
        await eventually(lambda: sum(self.counts()) == count + 1, 20)

    async def write(self) -> None:
        """Have engines write, and wait until callers see it."""
        self._may_write.set()
        for caller in self.callers:
            await caller.read_head()
            assert await caller.read_piece() == ROLE

    def close(self) -> None:
        """Have all callers leave."""
        for caller in self.callers:
            caller.close()


@pytest.fixture
def site(engines: tuple[ScriptedEngine, ScriptedEngine], worker: WorkerProcess) -> Iterator[Site]:
    """Return requests to both engines."""
    with closing(Site(engines, worker)) as site:
        yield site


async def test_short_prompts_go_past_a_long_one(site: Site) -> None:
    """Until the engine begins to write: from then on it counts as one request, as any other."""
    await site.ask(LONG)
    long_one = site.counts().index(1)
    for _ in range(UNITS):
        await site.ask("hello")
    assert site.counts()[long_one] == 1
    await site.write()
    for _ in range(UNITS - 2):
        await site.ask("hello")
    assert site.counts()[long_one] == UNITS - 1


async def test_a_long_prompt_that_is_left_counts_no_more(site: Site, worker: WorkerProcess) -> None:
    """When its caller leaves before the engine has read it, the engine is as idle as before."""
    await site.ask(LONG)
    long_one = site.counts().index(1)
    site.callers.pop().close()
    worker.wait_events(1)
    for _ in range(4):
        await site.ask("hello")
    assert site.counts()[long_one] == 1 + 2
