"""Slow callers: an engine is slowed to their pace, and little is held for them."""

import asyncio
import time

import psutil
import pytest
from tests.fakes.scripted_engine import (
    CHAT,
    DONE,
    LAST_CHUNK,
    STREAM_HEAD,
    ScriptedEngine,
    Talk,
    answer,
    chunk,
    counts,
    token,
    usage_frame,
)
from tests.fakes.stream_caller import ask, calling, chat_body, promptly
from tests.fakes.worker_process import WorkerProcess, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

FRAMES = b"".join(token(f"word {number}") for number in range(100_000, 100_900))
PIECES = 50_000_000 // len(FRAMES) + 1


async def _until_it_stalls(talk: Talk) -> int:
    """Wait until the engine could send nothing for a while; return what it had sent."""
    sent, since_s = -1, time.monotonic()
    while time.monotonic() - since_s < 0.4:
        if talk.connection.sent_bytes != sent:
            sent, since_s = talk.connection.sent_bytes, time.monotonic()
        await asyncio.sleep(0.02)
    return sent


async def test_a_caller_that_does_not_read_stops_the_engine(
    engine: ScriptedEngine, worker: WorkerProcess
) -> None:
    """A stream of 50 MB that nobody reads takes no memory, and is whole once it is read."""

    async def flood(talk: Talk) -> None:
        await talk.send(STREAM_HEAD)
        for _ in range(PIECES):
            await talk.send(chunk(FRAMES))
        await talk.send(chunk(usage_frame(counts(3, 4)) + DONE), LAST_CHUNK)

    async def trickle(talk: Talk) -> None:
        await talk.stream(*[FRAMES] * 20, DONE)

    engine.scripts |= {"flood": flood, "trickle": trickle}
    await ask(worker.port, "trickle")
    process = psutil.Process(worker.pid)
    before = process.memory_info().rss
    async with calling(worker.port, receive_bytes=65_536) as caller:
        await caller.ask("flood")
        await caller.read_head()
        (talk,) = engine.seen("flood")
        sent = await _until_it_stalls(talk)
        assert process.memory_info().rss - before < 1_500_000
        assert sent < 20_000_000, "the engine was not held up"
        body, is_complete = await caller.read_body()
    assert is_complete
    assert body == FRAMES * PIECES + DONE
    assert process.memory_info().rss - before < 1_500_000
    event = worker.wait_events(1)[-1]
    assert (event.outcome, event.output_tokens) == ("ok", 4)


async def test_a_stalled_stream_holds_nobody_up(
    engine: ScriptedEngine, worker: WorkerProcess
) -> None:
    """While a caller does not read its stream, other callers are served at once."""

    async def flood(talk: Talk) -> None:
        await talk.send(STREAM_HEAD)
        while True:
            await talk.send(chunk(FRAMES))

    async def quick(talk: Talk) -> None:
        await talk.stream(token("x"), DONE)

    engine.scripts |= {"endless": flood, "quick": quick}
    async with calling(worker.port, receive_bytes=65_536) as stalled:
        await stalled.ask("endless")
        await stalled.read_head()
        (talk,) = engine.seen("endless")
        await _until_it_stalls(talk)
        quick_asked = asyncio.create_task(ask(worker.port, "quick"))
        await promptly(worker.port, quick_asked.done)
        assert (await quick_asked).is_complete
    await promptly(worker.port, talk.connection.is_closed.is_set)


async def test_a_slow_caller_gets_all_of_a_large_plain_answer(
    engine: ScriptedEngine, worker: WorkerProcess
) -> None:
    """A plain answer of 8 MB comes whole to a slow caller, and its engine is free at once."""
    body = answer(CHAT | {"padding": "z" * 8_000_000, "usage": counts(1, 2)})

    async def script(talk: Talk) -> None:
        await talk.send(body)

    engine.scripts["large"] = script
    async with calling(worker.port, receive_bytes=65_536) as caller:
        await caller.ask("large", chat_body(), connection="close")
        await caller.read_head()
        (talk,) = engine.seen("large")
        await eventually(lambda: talk.connection.sent_bytes >= len(body))
        await asyncio.sleep(2.5)  # longer than an ended connection may linger
        found, is_complete = await caller.read_body()
    assert is_complete
    assert found == body.partition(b"\r\n\r\n")[2]
