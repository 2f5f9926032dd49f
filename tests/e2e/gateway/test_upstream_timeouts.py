"""Engines that take too long: each phase has its bound, its code and its record."""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from tests.fakes import flawed_worker
from tests.fakes.scripted_engine import (
    CHAT,
    DONE,
    LAST_CHUNK,
    ROLE,
    STREAM_HEAD,
    ScriptedEngine,
    Talk,
    answer,
    chat,
    chunk,
    counts,
    hanging_port,
    token,
)
from tests.fakes.stream_caller import Answer, ask, calling, chat_body
from tests.fakes.worker_process import WorkerProcess, make_snapshot, running_worker

from penstock.contract.snapshot import Timeouts
from penstock.contract.usage import UsageEvent

pytestmark = pytest.mark.asyncio(loop_scope="module")

SHORT = Timeouts(
    connect_ms=300,
    first_byte_ms=400,
    first_byte_ms_per_1k_tokens=100,
    idle_ms=400,
    total_ms=1_500,
)
PATIENT = msgspec.structs.replace(SHORT, total_ms=60_000)
LONG_PROMPT = "word " * 40_000
"""Of some 50,000 tokens: 5 s more."""
CHUNKS = 60
"""Of some 150 KB each: more than all buffers between engine and caller hold."""
LATE_S = 5.0
"""How much later than its bound a time-out may be: sweeps, and a busy machine."""
TRIES = 25
"""A busy machine may be too late for one bound before it comes to the one that is meant, but not
each time."""


@pytest.fixture(scope="module")
def worker(
    engine: ScriptedEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WorkerProcess]:
    """Return a worker that waits for the engine only shortly."""
    snapshot = make_snapshot([engine.port], timeouts=SHORT)
    folder = tmp_path_factory.mktemp("worker")
    with running_worker(folder, [engine.port], snapshot=snapshot) as running:
        yield running


async def _ask_until(
    worker: WorkerProcess, is_meant: Callable[[Answer], bool], body: bytes | None = None
) -> tuple[Answer, UsageEvent, float]:
    """Ask up to `TRIES` times; return the answer that is meant, its event and what it took."""
    found: list[Answer] = []
    while len(found) < TRIES:
        before, started_s = len(worker.events()), time.monotonic()
        found.append(await ask(worker.port, "", body))
        took_s = time.monotonic() - started_s
        if is_meant(found[-1]):
            return found[-1], worker.wait_events(before + 1)[-1], took_s
    raise AssertionError(found)


def _ends_by(code: str, *, begins: bytes = b"") -> Callable[[Answer], bool]:
    def is_meant(found: Answer) -> bool:
        return b'"error"' in found.body and found.code == code and found.body.startswith(begins)

    return is_meant


@pytest.mark.parametrize("is_stream", [True, False])
async def test_an_engine_that_never_answers(
    engine: ScriptedEngine, worker: WorkerProcess, *, is_stream: bool
) -> None:
    """An engine that takes the request and never answers is given up with its own code."""

    async def script(talk: Talk) -> None:
        await talk.gone()

    engine.script = script
    is_meant = _ends_by("upstream:first_byte_timeout")
    found, event, took_s = await _ask_until(worker, is_meant, chat_body(stream=is_stream))
    assert SHORT.first_byte_ms / 1000 <= took_s < SHORT.first_byte_ms / 1000 + LATE_S
    assert found.status == 504
    assert found.header["x-penstock-error-source"] == "upstream"
    await engine.talks[-1].gone()
    assert (event.outcome, event.status, event.usage_source) == ("timeout", 504, "estimated")
    assert event.error_code == "err:gateway:upstream:first_byte_timeout"


async def test_an_engine_may_take_longer_for_a_long_prompt(
    engine: ScriptedEngine, worker: WorkerProcess
) -> None:
    """The time to the first byte grows with what there is to read, up to the total."""

    async def script(talk: Talk) -> None:
        await asyncio.sleep(2 * SHORT.first_byte_ms / 1000)
        await talk.send(chat(counts(50_000, 2)))

    engine.script = script
    body = chat_body(messages=[{"role": "user", "content": LONG_PROMPT}])
    await _ask_until(worker, lambda found: found.status == 200, body)

    async def silence(talk: Talk) -> None:
        await talk.gone()

    engine.script = silence
    found = await ask(worker.port, "", body)
    assert (found.status, found.code) == (504, "upstream:total_timeout")


async def test_an_engine_that_stalls_in_a_stream(
    engine: ScriptedEngine, worker: WorkerProcess
) -> None:
    """A stream that stalls ends with an error event, no `[DONE]` and no regular end."""

    async def script(talk: Talk) -> None:
        await talk.send(STREAM_HEAD, chunk(ROLE), chunk(token("a")), chunk(token("b")))
        await talk.gone()

    engine.script = script
    is_meant = _ends_by("upstream:idle_timeout", begins=ROLE + token("a") + token("b"))
    found, event, took_s = await _ask_until(worker, is_meant)
    assert SHORT.idle_ms / 1000 <= took_s < SHORT.idle_ms / 1000 + LATE_S
    assert not found.is_complete
    assert b"[DONE]" not in found.body
    await engine.talks[-1].gone()
    assert (event.outcome, event.status, event.usage_source) == ("timeout", 200, "counted")
    assert event.output_tokens == 2


async def test_an_engine_that_stalls_inside_a_frame(
    engine: ScriptedEngine, worker: WorkerProcess
) -> None:
    """The error event after half a frame is an event of its own."""

    async def script(talk: Talk) -> None:
        await talk.send(STREAM_HEAD, chunk(ROLE), chunk(token("a")[:-9]))
        await talk.gone()

    engine.script = script
    begins = ROLE + token("a")[:-9]
    found, *_ = await _ask_until(worker, _ends_by("upstream:idle_timeout", begins=begins))
    assert not found.is_complete
    assert found.body.startswith(begins + b"\n\ndata: ")


async def test_an_engine_that_stalls_in_a_plain_answer(
    engine: ScriptedEngine, worker: WorkerProcess
) -> None:
    """A plain answer that stalls is a 504, since nothing of it was sent on."""

    async def script(talk: Talk) -> None:
        await talk.send(answer(CHAT | {"usage": counts(1, 2)})[:-7])
        await talk.gone()

    engine.script = script
    found, *_ = await _ask_until(worker, _ends_by("upstream:idle_timeout"), chat_body())
    assert found.status == 504


@pytest.mark.parametrize("is_stream", [True, False])
async def test_an_engine_that_drips(
    engine: ScriptedEngine, worker: WorkerProcess, *, is_stream: bool
) -> None:
    """An answer that never stalls and never ends is bounded by the total."""

    async def script(talk: Talk) -> None:
        if is_stream:
            await talk.send(STREAM_HEAD)
        else:
            await talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n")
        while True:
            await talk.send(chunk(token("a")) if is_stream else b" ")
            await asyncio.sleep(0.05)

    engine.script = script
    is_meant = _ends_by("upstream:total_timeout", begins=token("a") * 11 if is_stream else b"")
    found, event, took_s = await _ask_until(worker, is_meant, chat_body(stream=is_stream))
    assert SHORT.total_ms / 1000 <= took_s < SHORT.total_ms / 1000 + LATE_S
    assert found.status == (200 if is_stream else 504)
    assert found.is_complete is not is_stream
    assert event.outcome == "timeout"
    assert (event.output_tokens > 10) is is_stream


async def test_a_callers_own_pause_is_no_stall(engine: ScriptedEngine, tmp_path: Path) -> None:
    """A caller that pauses longer than an engine may gets its whole stream all the same."""
    frames = token("word") * 1_000

    async def script(talk: Talk) -> None:
        await talk.send(STREAM_HEAD)
        for _ in range(CHUNKS):
            await talk.send(chunk(frames))
        await talk.send(chunk(DONE), LAST_CHUNK)

    engine.script = script
    snapshot = make_snapshot([engine.port], timeouts=PATIENT)
    with running_worker(tmp_path, [engine.port], snapshot=snapshot) as worker:
        for _ in range(TRIES):
            async with calling(worker.port, receive_bytes=65_536) as caller:
                await caller.ask()
                await caller.read_head()
                await asyncio.sleep(SHORT.idle_ms / 1000 + 0.5)
                body, is_complete = await caller.read_body()
            if is_complete:
                break
    assert is_complete
    assert len(body) == len(frames) * CHUNKS + len(DONE)


async def test_an_endpoint_that_never_accepts(tmp_path_factory: pytest.TempPathFactory) -> None:
    """An endpoint that does not accept in time is given up with its own code."""
    async with hanging_port() as port:
        snapshot = make_snapshot([port], timeouts=PATIENT)
        folder = tmp_path_factory.mktemp("hanging")
        with running_worker(folder, [port], snapshot=snapshot) as worker:
            started_s = time.monotonic()
            found = await ask(worker.port)
            assert time.monotonic() - started_s < SHORT.connect_ms / 1000 + LATE_S
            assert (found.status, found.code) == (504, "upstream:connect_timeout")
            (event,) = worker.wait_events(1)
            assert (event.outcome, event.status) == ("timeout", 504)
            assert (event.input_tokens, event.output_tokens) == (0, 0), "nothing was sent"


async def test_a_connection_serves_on_after_a_time_out(
    engine: ScriptedEngine, worker: WorkerProcess
) -> None:
    """After a 504 the caller's connection takes the next request."""

    async def silence(talk: Talk) -> None:
        await talk.gone()

    async def quick(talk: Talk) -> None:
        await talk.send(chat(counts(1, 2)))

    engine.scripts |= {"silence": silence, "quick": quick}
    async with calling(worker.port) as caller:
        await caller.ask("silence", chat_body())
        assert (await caller.read_answer()).status == 504
        for _ in range(TRIES):
            await caller.ask("quick", chat_body())
            if (found := await caller.read_answer()).status == 200:
                break
        assert found.status == 200


async def test_one_connections_bug_ends_no_deadlines(
    engine: ScriptedEngine, tmp_path: Path
) -> None:
    """While some connections cannot be looked at, requests on all others have their bounds."""

    async def script(talk: Talk) -> None:
        await talk.gone()

    engine.script = script
    snapshot = make_snapshot([engine.port], timeouts=PATIENT)
    program = [flawed_worker.__file__]
    with running_worker(tmp_path, [engine.port], snapshot=snapshot, program=program) as flawed:
        for _ in range(3):
            async with asyncio.timeout(20):
                found = await ask(flawed.port, "", chat_body(stream=True))
            assert (found.status, found.code) == (504, "upstream:first_byte_timeout")
        assert len(flawed.wait_events(3)) == 3
        assert "sweep failed" in flawed.log.read_text()
