"""Connections to engines: kept, lent once at a time, never trusted when they should not be."""

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from tests.fakes.fake_agent import running_agent
from tests.fakes.ports import free_port
from tests.fakes.scripted_engine import (
    DONE,
    ROLE,
    STREAM_HEAD,
    EngineConnection,
    ScriptedEngine,
    Talk,
    answer,
    chat,
    chunk,
    counts,
    running_scripted_engine,
)
from tests.fakes.stream_caller import ask, calling, chat_body
from tests.fakes.worker_process import (
    WorkerProcess,
    eventually,
    make_snapshot,
    running_worker,
)

from penstock.contract import metrics
from penstock.contract.node import Stats
from penstock.gateway.limits import ENDPOINT_COOL_DOWN_S, STREAM_REST_S

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def _quick(talk: Talk) -> None:
    await talk.send(chat(counts(1, 2)))


async def _stream(talk: Talk) -> None:
    await talk.stream(ROLE, DONE)


async def _silence(talk: Talk) -> None:
    await talk.gone()


@pytest_asyncio.fixture(loop_scope="module")
async def engine() -> AsyncIterator[ScriptedEngine]:
    """Return an engine that answers at once."""
    async with running_scripted_engine(_quick) as running:
        running.scripts |= {"stream": _stream, "silence": _silence}
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def other() -> AsyncIterator[ScriptedEngine]:
    """Return another engine that answers at once."""
    async with running_scripted_engine(_quick) as running:
        yield running


@pytest.fixture
def worker(engine: ScriptedEngine, tmp_path: Path) -> Iterator[WorkerProcess]:
    """Return a worker in front of the engine."""
    with running_worker(tmp_path, [engine.port]) as running:
        yield running


async def test_a_lone_endpoint_that_refuses_is_503(tmp_path: Path) -> None:
    """When the only endpoint refuses connections, the caller is told to retry."""
    port = free_port()
    with running_worker(tmp_path, [port]) as worker:
        found = await ask(worker.port)
        assert (found.status, found.code) == (503, "upstream:connect_failed")
        assert found.header["retry-after"] == "1"
        assert str(port) not in found.body.decode(), "endpoints are nobody's business"
        (event,) = worker.wait_events(1)
        assert (event.outcome, event.attempt_count) == ("upstream_error", 1)
        assert (event.input_tokens, event.output_tokens) == (0, 0)


async def test_another_endpoint_serves_when_one_refuses(
    engine: ScriptedEngine, tmp_path: Path
) -> None:
    """A request goes to the next endpoint when connecting failed, and is sent once only."""
    with running_worker(tmp_path, [free_port(), engine.port]) as worker:
        answers = [await ask(worker.port, "", chat_body()) for _ in range(6)]
        assert [found.status for found in answers] == [200] * 6
        events = worker.wait_events(6)
    assert len(engine.requests) == 6
    tried_ns = [each.started_at_ns for event in events for each in event.earlier_attempts]
    assert events[0].attempt_count == 2
    assert {event.attempt_count for event in events} <= {1, 2}
    for one, next_one in itertools.pairwise(tried_ns):
        assert next_one - one >= ENDPOINT_COOL_DOWN_S * 0.99e9, "it is passed over"
    assert {event.outcome for event in events} == {"ok"}


async def test_an_endpoint_is_taken_up_again(
    engine: ScriptedEngine, other: ScriptedEngine, tmp_path: Path
) -> None:
    """An endpoint that refused is used again when it is the only one left that accepts."""
    with running_worker(tmp_path, [free_port(), engine.port, other.port]) as worker:
        await asyncio.gather(*(ask(worker.port, "", chat_body()) for _ in range(10)))
        await asyncio.sleep(0.05)
        assert engine.requests
        assert other.requests
        assert len(engine.requests) + len(other.requests) == 10


async def test_requests_go_where_fewest_are_under_way(
    engine: ScriptedEngine, other: ScriptedEngine, tmp_path: Path
) -> None:
    """Endpoints share what is in flight evenly."""
    engine.script = other.script = _silence
    with running_worker(tmp_path, [engine.port, other.port]) as worker:
        asking = [asyncio.create_task(ask(worker.port)) for _ in range(8)]
        await eventually(lambda: len(engine.requests) + len(other.requests) == 8)
        assert len(engine.requests) == len(other.requests) == 4
        for talk in engine.talks + other.talks:
            talk.close()
        await asyncio.gather(*asking)


async def test_an_engine_that_hangs_up_at_once_costs_no_request(
    engine: ScriptedEngine, other: ScriptedEngine, tmp_path: Path
) -> None:
    """An endpoint that accepts and resets never makes a caller wait for its time-out."""
    engine.greet = EngineConnection.reset
    with running_worker(tmp_path, [engine.port, other.port]) as worker:
        started_s = time.monotonic()
        answers = [await ask(worker.port, "", chat_body()) for _ in range(12)]
        assert time.monotonic() - started_s < 60, "the time-out is 120 s"
        assert {found.status for found in answers} <= {200, 502}
        events = worker.wait_events(12)
    assert len(other.requests) + len(engine.requests) <= 12, "a request was sent twice"
    assert len(events) == 12


async def test_connections_are_used_again(engine: ScriptedEngine, worker: WorkerProcess) -> None:
    """Requests one after another share a connection, streams and plain answers alike."""
    made: list[int] = []
    while min(made, default=4) > 1:  # a busy machine may be late to lend one again, now and then
        assert len(made) < 5, made
        before = len(engine.connections)
        for script in ("", "stream", "", "stream"):
            await ask(worker.port, script, chat_body(stream=script == "stream"))
            await asyncio.sleep(STREAM_REST_S * 4)
        made.append(len(engine.connections) - before)
    assert len(engine.requests) == 4 * len(made)


async def test_a_connection_carries_one_request_at_a_time(
    engine: ScriptedEngine, worker: WorkerProcess
) -> None:
    """Nothing is pipelined to an engine: each request under way has its connection."""

    async def slow(talk: Talk) -> None:
        await eventually(lambda: len(engine.requests) == 20)
        await _quick(talk)

    engine.script = slow
    await asyncio.gather(*(ask(worker.port, "", chat_body()) for _ in range(20)))
    assert len(engine.connections) == 20


async def test_an_idle_connection_that_was_closed_is_not_used(
    engine: ScriptedEngine, worker: WorkerProcess
) -> None:
    """A connection that the engine closed while it was idle is replaced by a new one."""
    for how in (EngineConnection.reset, lambda c: c.transport.close()):
        assert (await ask(worker.port, "", chat_body())).status == 200
        how(engine.connections[-1])
        await eventually(engine.connections[-1].is_closed.is_set)
        async with calling(worker.port) as other:
            await other.see_that_it_lives()
        assert (await ask(worker.port, "", chat_body())).status == 200
    assert len(engine.requests) == 4
    assert {event.attempt_count for event in worker.wait_events(4)} == {1}


async def test_a_request_that_meets_a_closing_connection_is_not_sent_again(
    engine: ScriptedEngine, worker: WorkerProcess
) -> None:
    """When an engine closes at the moment of a request, the caller decides about sending again."""

    async def close_at_once(talk: Talk) -> None:
        talk.close()

    await ask(worker.port, "", chat_body())
    engine.script = close_at_once
    found = await ask(worker.port, "", chat_body())
    assert (found.status, found.code) == (502, "upstream:closed_early")
    assert len(engine.requests) == 2


@pytest.mark.parametrize(
    "field", ["connection: close", "Connection: Close", "connection: foo, close"]
)
async def test_an_engine_that_says_close_is_believed(
    engine: ScriptedEngine, worker: WorkerProcess, field: str
) -> None:
    """A connection whose answer said that it closes is closed, and never used again."""

    async def script(talk: Talk) -> None:
        await talk.send(answer({"usage": counts(1, 2)}, 200, field))

    engine.script = script
    for _ in range(3):
        assert (await ask(worker.port, "", chat_body())).status == 200
    assert len(engine.connections) == 3
    await eventually(lambda: engine.open_count == 0)


async def test_an_old_engine_is_spoken_to_once_a_connection(
    engine: ScriptedEngine, worker: WorkerProcess
) -> None:
    """An HTTP/1.0 answer ends its connection."""

    async def script(talk: Talk) -> None:
        await talk.send(b'HTTP/1.0 200 OK\r\n\r\n{"usage":{"prompt_tokens":1}}')
        talk.close()

    engine.script = script
    for _ in range(2):
        assert (await ask(worker.port, "", chat_body())).status == 200
    assert len(engine.connections) == 2


async def test_an_engine_that_speaks_unasked_is_cut_off(
    engine: ScriptedEngine, worker: WorkerProcess
) -> None:
    """What comes on an idle connection is nobody's answer, and the connection goes."""
    await ask(worker.port, "", chat_body())
    await engine.connections[0].send(answer({"choices": ["somebody else's"]}))
    await asyncio.wait_for(engine.connections[0].is_closed.wait(), 20)
    found = await ask(worker.port, "", chat_body())
    assert b"somebody else's" not in found.body
    assert found.status == 200


@pytest.mark.parametrize("cut_at", [3, 20, 60, None])
async def test_an_engine_that_says_too_much_poisons_nothing(
    engine: ScriptedEngine, worker: WorkerProcess, cut_at: int | None
) -> None:
    """What follows an answer in the same packet never becomes the answer to another request."""
    stray = answer({"choices": ["somebody else's"], "usage": counts(500, 500)})[:cut_at]

    async def script(talk: Talk) -> None:
        await talk.send(chat(counts(1, 2)) + stray)

    engine.script = script
    for _ in range(3):
        found = await ask(worker.port, "", chat_body())
        assert found.status == 200
        assert b"somebody else's" not in found.body
    events = worker.wait_events(3)
    assert {event.output_tokens for event in events} == {2}
    assert len(engine.connections) == 3, "such a connection is not lent again"


async def test_trailers_say_nothing(engine: ScriptedEngine, worker: WorkerProcess) -> None:
    """Fields behind a chunked body do not change what its head said."""

    async def script(talk: Talk) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
        body = b'{"usage":{"prompt_tokens":1}}'
        await talk.send(
            head + b"transfer-encoding: chunked\r\n\r\n" + chunk(body),
            b"0\r\ncontent-encoding: gzip\r\ncontent-type: text/html\r\n\r\n",
        )

    engine.script = script
    for _ in range(2):
        found = await ask(worker.port, "", chat_body())
        assert (found.status, found.header["content-type"]) == (200, "application/json")
    assert len(engine.connections) == 1


async def test_connections_beyond_the_bound_wait(engine: ScriptedEngine, tmp_path: Path) -> None:
    """No more connections are made than allowed; the others wait for their turn and are served."""
    running = itertools.count(1)
    most = 0

    async def script(talk: Talk) -> None:
        nonlocal most
        next(running)
        most = max(most, engine.open_count)
        await asyncio.sleep(0.01)
        await _quick(talk)

    engine.script = script
    snapshot = make_snapshot([engine.port], max_connections=3)
    with running_worker(tmp_path, [engine.port], snapshot=snapshot) as worker:
        answers = await asyncio.gather(*(ask(worker.port, "", chat_body()) for _ in range(40)))
    assert [found.status for found in answers] == [200] * 40
    assert most == len(engine.connections) == 3


async def test_who_waits_for_a_connection_is_in_the_metrics(tmp_path: Path) -> None:
    """Requests under way are told apart from those of them that wait for their turn."""
    async with running_scripted_engine(_silence) as engine:
        snapshot = make_snapshot([engine.port], max_connections=2)
        with (
            running_agent() as agent,
            running_worker(
                tmp_path, [engine.port], snapshot=snapshot, agent_socket=str(agent.path)
            ) as worker,
        ):

            def told() -> dict[str, float]:
                samples = (each.samples for each in agent.received if isinstance(each, Stats))
                return {sample.name: sample.value for found in samples for sample in found}

            async with AsyncExitStack() as stack:
                for _ in range(5):
                    caller = await stack.enter_async_context(calling(worker.port))
                    await caller.ask("", chat_body())
                await eventually(lambda: told().get(metrics.UPSTREAM_WAITING.name) == 3, 20)
                assert told()[metrics.UPSTREAM_IN_FLIGHT.name] == 5
                assert told()[metrics.UPSTREAM_CONNECTIONS.name] == 2
                assert told()[metrics.MODEL_IN_FLIGHT.name] == 5
            await eventually(lambda: told()[metrics.UPSTREAM_WAITING.name] == 0, 20)
            await eventually(lambda: told()[metrics.MODEL_IN_FLIGHT.name] == 0, 20)


async def test_a_waiting_line_ends_when_the_engine_is_gone(tmp_path: Path) -> None:
    """When the only connection is lost and no other can be made, all who wait are told at once."""
    async with running_scripted_engine(_silence) as engine:
        snapshot = make_snapshot([engine.port], max_connections=1)
        folder = tmp_path / "narrow"
        with running_worker(folder, [engine.port], snapshot=snapshot) as worker:
            asking = [asyncio.create_task(ask(worker.port)) for _ in range(5)]
            await eventually(lambda: len(worker.opens()) == 5 and len(engine.requests) == 1)
            engine.stop_listening()
            engine.talks[0].close()
            answers = await asyncio.wait_for(asyncio.gather(*asking), 30)
    codes = sorted(found.code for found in answers)
    assert codes == ["upstream:closed_early", *["upstream:connect_failed"] * 4]


async def test_a_fallback_never_splices_two_answers(
    engine: ScriptedEngine, other: ScriptedEngine, tmp_path: Path
) -> None:
    """Once a request was sent, no other endpoint is tried, before or after the first token."""

    async def before(talk: Talk) -> None:
        talk.reset()

    async def after(talk: Talk) -> None:
        await talk.send(STREAM_HEAD, chunk(ROLE))
        await asyncio.sleep(0.02)
        talk.reset()

    with running_worker(tmp_path, [engine.port, other.port]) as worker:
        for script in (before, after):
            engine.script = other.script = script
            found = await ask(worker.port)
            assert found.code == "upstream:closed_early"
        events = worker.wait_events(2)
    assert len(engine.requests) + len(other.requests) == 2
    assert {event.attempt_count for event in events} == {1}


async def test_what_the_engine_gets(engine: ScriptedEngine, worker: WorkerProcess) -> None:
    """The engine gets its own path, the request id, and of the caller's header only the allowed."""
    async with calling(worker.port) as caller:
        await caller.ask(
            "stream",
            x_request_id="my-id",
            traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            cookie="secret=1",
            x_emulator_custom="yes",
            accept_encoding="gzip",
        )
        await caller.read_answer()
    header = engine.requests[0].header
    assert engine.requests[0].target == "/v1/chat/completions"
    assert header["x-request-id"] == "my-id"
    assert header["traceparent"].startswith("00-0af7")
    assert header["x-emulator-custom"] == "yes"
    assert header["accept-encoding"] == "identity"
    assert header["content-type"] == "application/json"
    assert not header.keys() & {"authorization", "cookie", "transfer-encoding"}


async def test_a_stream_may_end_without_its_formal_end(
    engine: ScriptedEngine, worker: WorkerProcess
) -> None:
    """A stream whose `[DONE]` and usage came is whole, even if the engine then hangs up."""

    async def script(talk: Talk) -> None:
        usage = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n'
        await talk.send(STREAM_HEAD, chunk(ROLE + usage + DONE))
        talk.close()

    engine.script = script
    found = await ask(worker.port)
    assert (found.body, found.is_complete) == (ROLE + DONE, True)
    (event,) = worker.wait_events(1)
    assert (event.outcome, event.usage_source, event.output_tokens) == ("ok", "engine", 4)


def _keep_alive_s(port: int) -> list[float]:
    """Return in how many seconds the kernel probes each connection to this port."""
    ticks = os.sysconf("SC_CLK_TCK")
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        kind, _, when = fields[5].partition(":")
        if int(fields[2].rpartition(":")[2], 16) == port and fields[3] == "01":
            found.append(int(when, 16) / ticks if kind == "02" else float("inf"))
    return found


async def test_a_vanished_engine_is_noticed(engine: ScriptedEngine, worker: WorkerProcess) -> None:
    """Silent connections, idle or waited on, are probed by the kernel within 15 s."""
    asking = asyncio.create_task(ask(worker.port, "silence"))
    await eventually(lambda: len(engine.requests) == 1)
    assert (await ask(worker.port, "", chat_body())).status == 200

    def are_probed() -> bool:  # once nothing is unacknowledged any more
        probes = _keep_alive_s(engine.port)
        return len(probes) == 2 and all(0 < seconds <= 16 for seconds in probes)

    await eventually(are_probed)
    engine.talks[0].close()
    await asking
