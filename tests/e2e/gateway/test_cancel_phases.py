"""Callers that leave: their engine is stopped at once, in every phase, and one record says so."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
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
    hanging_port,
    running_scripted_engine,
    token,
    usage_frame,
)
from tests.fakes.stream_caller import StreamCaller, ask, calling, chat_body, promptly
from tests.fakes.worker_process import (
    WorkerProcess,
    eventually,
    make_snapshot,
    running_worker,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

LEAVING = ["close", "half_close", "reset"]
TOKENS = 5


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[ScriptedEngine]:
    """Return an engine that streams tokens and stops, or never answers at all."""

    async def tokens_then_silence(talk: Talk) -> None:
        await talk.send(STREAM_HEAD, chunk(ROLE))
        for number in range(TOKENS):
            await talk.send(chunk(token(str(number))))
        await talk.gone()

    async def silence(talk: Talk) -> None:
        await talk.gone()

    async def half_an_answer(talk: Talk) -> None:
        await talk.send(chat(counts(1, 1))[:120])
        await talk.gone()

    async def flood(talk: Talk) -> None:
        await talk.send(STREAM_HEAD)
        while True:
            await talk.send(chunk(token("x") * 500))

    async def quick(talk: Talk) -> None:
        await talk.send(chat(counts(1, 1)))

    async def whole(talk: Talk) -> None:
        await talk.send(STREAM_HEAD, chunk(ROLE + usage_frame(counts(3, 9)) + DONE))
        await asyncio.sleep(0.3)
        await talk.send(LAST_CHUNK)

    async with running_scripted_engine() as running:
        running.scripts |= {
            "tokens": tokens_then_silence,
            "silence": silence,
            "half": half_an_answer,
            "flood": flood,
            "quick": quick,
            "whole": whole,
        }
        yield running


@pytest.fixture
def narrow(engine: ScriptedEngine, tmp_path: Path) -> Iterator[WorkerProcess]:
    """Return a worker that makes one connection to the engine, and no more."""
    snapshot = make_snapshot([engine.port], max_connections=1)
    with running_worker(tmp_path, [engine.port], snapshot=snapshot) as running:
        yield running


def _leave(caller: StreamCaller, how: str) -> None:
    """Leave in this way."""
    getattr(caller, how)()


@asynccontextmanager
async def _asking(
    engine: ScriptedEngine, worker: WorkerProcess, script: str, body: bytes | None = None
) -> AsyncIterator[tuple[StreamCaller, Talk]]:
    """Ask, and wait until the engine has the request."""
    before = len(engine.seen(script))
    async with calling(worker.port) as caller:
        await caller.ask(script, body)
        await eventually(lambda: len(engine.seen(script)) > before)
        yield caller, engine.seen(script)[-1]


@pytest.mark.parametrize("how", LEAVING)
async def test_leaving_a_stream_stops_the_engine(
    engine: ScriptedEngine, worker: WorkerProcess, how: str
) -> None:
    """A caller that leaves a stream stops the engine, and is counted for what was relayed."""
    before = len(worker.events())
    async with _asking(engine, worker, "tokens") as (caller, talk):
        await caller.read_head()
        seen = b""
        while token(str(TOKENS - 1)) not in seen:
            seen += await caller.read_piece()
        _leave(caller, how)
        await promptly(worker.port, talk.connection.is_closed.is_set)
    event = worker.wait_events(before + 1)[-1]
    assert (event.outcome, event.usage_source, event.status) == ("caller_gone", "counted", 200)
    assert event.error_code == "err:gateway:downstream:caller_gone"
    assert TOKENS <= event.output_tokens <= TOKENS + 1
    assert event.input_tokens > 0


@pytest.mark.parametrize("how", LEAVING)
@pytest.mark.parametrize("script", ["silence", "half"])
@pytest.mark.parametrize("is_stream", [True, False])
async def test_leaving_before_the_answer_stops_the_engine(
    engine: ScriptedEngine, worker: WorkerProcess, how: str, script: str, *, is_stream: bool
) -> None:
    """A caller that leaves before the answer is there, or whole, stops the engine."""
    before = len(worker.events())
    body = chat_body(stream=is_stream)
    async with _asking(engine, worker, script, body) as (caller, talk):
        await asyncio.sleep(0.02)
        _leave(caller, how)
        await promptly(worker.port, talk.connection.is_closed.is_set)
    event = worker.wait_events(before + 1)[-1]
    assert (event.outcome, event.status, event.is_stream) == ("caller_gone", 0, is_stream)
    assert event.usage_source == "estimated"
    assert event.input_tokens > 0, "the engine had the question"


@pytest.mark.parametrize("how", LEAVING)
async def test_leaving_a_full_pipe_stops_the_engine(
    engine: ScriptedEngine, worker: WorkerProcess, how: str
) -> None:
    """A caller that leaves without having read what waits for it stops the engine as quickly."""
    before = len(worker.events())
    async with calling(worker.port, receive_bytes=65_536) as caller:
        seen = len(engine.seen("flood"))
        await caller.ask("flood")
        await caller.read_head()
        await asyncio.sleep(0.3)
        talk = engine.seen("flood")[seen]
        _leave(caller, how)
        await promptly(worker.port, talk.connection.is_closed.is_set)
    event = worker.wait_events(before + 1)[-1]
    assert event.outcome == "caller_gone"


async def test_leaving_after_the_last_event_is_no_abort(
    engine: ScriptedEngine, worker: WorkerProcess
) -> None:
    """A caller that leaves at `[DONE]`, as SDKs do, had a whole answer."""
    before = len(worker.events())
    async with _asking(engine, worker, "whole") as (caller, _):
        await caller.read_head()
        assert await caller.read_piece() == ROLE + DONE
    event = worker.wait_events(before + 1)[-1]
    assert (event.outcome, event.usage_source, event.error_code) == ("ok", "engine", None)
    assert (event.input_tokens, event.output_tokens) == (3, 9)


@pytest.mark.parametrize("how", LEAVING)
async def test_leaving_while_connecting_sends_nothing(tmp_path: Path, how: str) -> None:
    """A caller that leaves while its engine is being connected to costs nothing."""
    async with hanging_port() as port:
        with running_worker(tmp_path, [port]) as worker:
            async with calling(worker.port) as caller:
                await caller.ask()
                await eventually(worker.opens)
                _leave(caller, how)
                await promptly(worker.port, worker.events)
            (event,) = worker.events()
            assert (event.outcome, event.usage_source) == ("caller_gone", "estimated")
            assert (event.input_tokens, event.output_tokens, event.attempt_count) == (0, 0, 1)
            # Its connection is closed a moment after its record is written.
            await eventually(lambda: not _speaks_to(worker.pid, port))


def _speaks_to(pid: int, port: int) -> bool:
    connections = psutil.Process(pid).net_connections("tcp")
    return port in {getattr(each.raddr, "port", 0) for each in connections}


@pytest.mark.parametrize("how", LEAVING)
async def test_leaving_the_queue_is_never_dispatched(
    engine: ScriptedEngine, narrow: WorkerProcess, how: str
) -> None:
    """A caller that leaves while it waits for a connection is never sent to an engine."""
    before = len(engine.seen("quick"))
    async with (
        _asking(engine, narrow, "silence") as (first, _),
        calling(narrow.port) as queued,
        calling(narrow.port) as patient,
    ):
        await queued.ask("quick", chat_body(who="left"))
        await patient.ask("quick", chat_body(who="stayed"))
        await eventually(lambda: len(narrow.opens()) == 3)
        _leave(queued, how)
        narrow.wait_events(1)
        first.close()
        assert (await patient.read_answer()).status == 200
    names = [json.loads(talk.request.body)["who"] for talk in engine.seen("quick")[before:]]
    assert names == ["stayed"]
    left = narrow.wait_events(3)[0]
    assert (left.outcome, left.input_tokens, left.output_tokens) == ("caller_gone", 0, 0)


async def test_a_queue_of_those_who_left_does_not_fill(
    engine: ScriptedEngine, narrow: WorkerProcess
) -> None:
    """Callers that left the queue take no place in it from those who come."""
    async with _asking(engine, narrow, "silence") as (first, _):
        for number in range(1, 13):
            callers = [await StreamCaller.connect(narrow.port) for _ in range(100)]
            for caller in callers:
                await caller.ask("quick", chat_body())
            await eventually(lambda count=1 + number * 100: len(narrow.opens()) == count)
            for caller in callers:
                caller.close()
            narrow.wait_events(number * 100)
        async with calling(narrow.port) as patient:
            await patient.ask("quick", chat_body())
            await asyncio.sleep(0.05)
            first.close()
            assert (await patient.read_answer()).status == 200


async def test_a_waiting_line_survives_its_connection(
    engine: ScriptedEngine, narrow: WorkerProcess
) -> None:
    """When the only connection is lost, all who wait for it are served on the next ones."""
    async with _asking(engine, narrow, "silence") as (_, talk):
        waiting = [asyncio.create_task(ask(narrow.port, "quick", chat_body())) for _ in range(5)]
        await eventually(lambda: len(narrow.opens()) == 6)
        talk.reset()
        answers = await asyncio.wait_for(asyncio.gather(*waiting), 5)
    assert [answer.status for answer in answers] == [200] * 5


async def test_a_thousand_aborts_leak_nothing(
    engine: ScriptedEngine, worker: WorkerProcess
) -> None:
    """After 1,000 aborts no connection and no file is left open, and each has one record."""
    await ask(worker.port, "quick", chat_body())
    await asyncio.sleep(0.3)
    process = psutil.Process(worker.pid)
    base = process.num_fds()
    rounds = ["tokens", "silence", "half", "flood"]

    async def abort(number: int) -> None:
        caller = await StreamCaller.connect(worker.port)
        await caller.ask(rounds[number % 4], x_request_id=f"abort-{number}")
        if number % 4 in (0, 3):
            await caller.read_head()
        await asyncio.sleep(number % 7 * 0.002)
        getattr(caller, LEAVING[number % 3])()
        if number % 3 == 1:
            await asyncio.sleep(0.02)
            caller.close()

    for start in range(0, 1000, 50):
        await asyncio.gather(*(abort(number) for number in range(start, start + 50)))
    await eventually(lambda: process.num_fds() <= base)
    await eventually(lambda: engine.open_count <= 1)
    opened = [o for o in worker.opens() if o.request_id.startswith("abort-")]
    events = [e for e in worker.events() if e.request_id.startswith("abort-")]
    ids = [each.event_id for each in opened]
    assert sorted(ids) == sorted(set(ids)) == sorted(event.event_id for event in events)
    # What was sent before a reset may be lost with it, unless the answer had begun.
    unread = {n for n in range(1000) if LEAVING[n % 3] == "reset" and n % 4 in (1, 2)}
    names = {each.request_id for each in opened}
    assert {f"abort-{n}" for n in range(1000) if n not in unread} <= names
    assert len(ids) <= 1000
    assert {event.outcome for event in events} == {"caller_gone"}
