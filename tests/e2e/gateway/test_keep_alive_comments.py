"""Comments in streams whose engine is silent for long: what they change, and what they do not."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from tests.fakes.scripted_engine import (
    CHAT,
    DONE,
    LAST_CHUNK,
    ROLE,
    STREAM_HEAD,
    ScriptedEngine,
    Talk,
    answer,
    chunk,
    counts,
    running_scripted_engine,
    token,
    usage_frame,
)
from tests.fakes.stream_caller import Answer, StreamCaller, ask, calling, chat_body
from tests.fakes.worker_process import WorkerProcess, running_worker

from penstock.gateway.limits import SWEEP_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

COMMENT = b": keep-alive\n\n"
INTERVAL_S = 0.1
LONG_S = INTERVAL_S + 4 * SWEEP_S
"""Of silence in which nothing must be said: else it is said at the second sweep."""
ANSWER = [ROLE, token("a"), token("b")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engines() -> AsyncIterator[tuple[ScriptedEngine, ScriptedEngine]]:
    """Return two engines of one upstream."""
    async with running_scripted_engine() as one, running_scripted_engine() as other:
        yield one, other


@pytest.fixture(scope="module")
def worker(
    engines: tuple[ScriptedEngine, ScriptedEngine], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WorkerProcess]:
    """Return a worker that breaks silences."""
    ports = [engine.port for engine in engines]
    folder = tmp_path_factory.mktemp("worker")
    with running_worker(folder, ports, stream_keep_alive_s=INTERVAL_S) as running:
        yield running


class Silence:
    """Lasts until the caller was told that its request is worked on."""

    def __init__(self) -> None:
        """Begin."""
        self._is_over = asyncio.Event()
        self.ended_at_ns = 0

    async def end(self) -> None:
        """Wait for its end."""
        await self._is_over.wait()

    async def answer_of(self, caller: StreamCaller) -> Answer:
        """End it with the first comment that comes; return all that the caller got."""
        assert await caller.read_head() == 200
        before = b""
        while not before.endswith(COMMENT):
            before += await caller.read_piece()
        self.ended_at_ns = time.time_ns()
        self._is_over.set()
        rest, is_complete = await caller.read_body()
        return Answer(caller.status, caller.header, before + rest, is_complete)


def _answer_late(engines: tuple[ScriptedEngine, ScriptedEngine], *late: bytes) -> Silence:
    silence = Silence()

    async def script(talk: Talk) -> None:
        await silence.end()
        await talk.send(*late)

    for engine in engines:
        engine.script = script
    return silence


async def test_a_long_prefill_is_bridged(
    engines: tuple[ScriptedEngine, ScriptedEngine], worker: WorkerProcess
) -> None:
    """Comments come before the answer, which is the same and counted the same."""
    stream = (*ANSWER, usage_frame(counts(7, 2)), DONE)
    before = len(worker.events())
    async with calling(worker.port) as caller:
        for _ in range(2):  # the connection is as good as before
            silence = _answer_late(engines, STREAM_HEAD, *map(chunk, stream), LAST_CHUNK)
            await caller.ask()
            found = await silence.answer_of(caller)
            assert found.is_complete
            assert found.header["content-type"] == "text/event-stream"
            assert found.body.startswith(COMMENT)
            assert found.body.replace(COMMENT, b"") == b"".join(ANSWER) + DONE
    event = worker.wait_events(before + 2)[-1]
    assert (event.outcome, event.usage_source, event.output_tokens) == ("ok", "engine", 2)
    assert event.first_byte_at_ns is not None
    assert event.first_byte_at_ns >= silence.ended_at_ns, "a comment is no byte of the answer"


async def test_a_silence_between_tokens_is_bridged_between_frames_only(
    engines: tuple[ScriptedEngine, ScriptedEngine], worker: WorkerProcess
) -> None:
    """A comment stands between two events, and never inside of one."""
    half, silence = len(ANSWER[1]) // 2, Silence()

    async def script(talk: Talk) -> None:
        await talk.send(STREAM_HEAD, chunk(ROLE))
        await silence.end()
        await talk.send(chunk(ANSWER[1][:half]))
        await asyncio.sleep(LONG_S)
        await talk.send(chunk(ANSWER[1][half:]), chunk(DONE), LAST_CHUNK)

    for engine in engines:
        engine.script = script
    async with calling(worker.port) as caller:
        await caller.ask(body=chat_body(stream=True, stream_options={"include_usage": True}))
        found = await silence.answer_of(caller)
    assert found.is_complete
    head, _, rest = found.body.partition(COMMENT)
    assert head == ROLE
    assert rest.replace(COMMENT, b"") == ANSWER[1] + DONE
    assert ANSWER[1] in rest


async def test_who_asks_for_a_whole_answer_gets_no_comment(
    engines: tuple[ScriptedEngine, ScriptedEngine], worker: WorkerProcess
) -> None:
    """An answer that is no stream comes as it is, however late."""

    async def script(talk: Talk) -> None:
        await asyncio.sleep(LONG_S)
        await talk.send(answer(CHAT | {"usage": counts(7, 2)}))

    for engine in engines:
        engine.script = script
    found = await ask(worker.port, body=chat_body())
    assert (found.status, found.header["content-type"]) == (200, "application/json")
    assert found.body.startswith(b"{")


@pytest.mark.parametrize(
    ("late", "code"),
    [
        (answer({"error": {"message": "No."}}, 400), "request:refused_by_engine"),
        (answer({"error": {"message": "Ouch."}}, 500), "upstream:failed"),
        (answer({"error": {"message": "Ouch.", "code": 500}}), "upstream:failed"),
        (answer(CHAT), "upstream:bad_answer"),
        (STREAM_HEAD + chunk(b'data: {"error": {"message": "Ouch."}}\n\n'), "upstream:failed"),
    ],
    ids=["status 400", "status 500", "error under 200", "no stream", "error event"],
)
async def test_an_error_behind_a_comment_is_an_event(
    engines: tuple[ScriptedEngine, ScriptedEngine], worker: WorkerProcess, late: bytes, code: str
) -> None:
    """What an engine says too late for a status ends the stream well formed, and is not paid."""
    silence = _answer_late(engines, late)
    before = len(worker.events())
    async with calling(worker.port) as caller:
        await caller.ask()
        found = await silence.answer_of(caller)
        assert found.is_complete
        assert found.body.replace(COMMENT, b"").startswith(b'data: {"error"')
        assert found.body.endswith(DONE)
        assert found.code == code
    event = worker.wait_events(before + 1)[-1]
    assert event.error_code == f"err:gateway:{code}"
    assert (event.status, event.input_tokens, event.output_tokens) == (200, 0, 0)


async def test_no_room_behind_a_comment_is_tried_elsewhere(
    engines: tuple[ScriptedEngine, ScriptedEngine], worker: WorkerProcess
) -> None:
    """An engine that has no room after all is given up for another, comments or not."""
    asked: list[int] = []
    silence = Silence()

    async def script(talk: Talk) -> None:
        asked.append(talk.engine.port)
        if len(asked) == 1:
            await silence.end()
            await talk.send(answer({"error": {"message": "Busy."}}, 503))
        else:
            await talk.stream(*ANSWER, DONE)

    for engine in engines:
        engine.script = script
    before = len(worker.events())
    async with calling(worker.port) as caller:
        await caller.ask()
        found = await silence.answer_of(caller)
    assert found.body.startswith(COMMENT)
    assert found.body.replace(COMMENT, b"") == b"".join(ANSWER) + DONE
    assert len(set(asked)) == len(asked) == 2
    event = worker.wait_events(before + 1)[-1]
    assert (event.outcome, event.attempt_count) == ("ok", 2)


@pytest.mark.parametrize("is_given_up", [True, False], ids=["answer given up", "answer begun"])
async def test_a_comment_is_in_a_stream_whatever_an_engine_began(
    engines: tuple[ScriptedEngine, ScriptedEngine], worker: WorkerProcess, *, is_given_up: bool
) -> None:
    """What the head of a plain answer said before the silence is no part of the stream's head."""
    asked: list[int] = []
    silence = Silence()
    plain = answer({"error": {"message": "Busy."}}, 503)

    async def script(talk: Talk) -> None:
        asked.append(talk.engine.port)
        if is_given_up and len(asked) == 1:
            await talk.send(plain)
            return
        if not is_given_up:
            await talk.send(plain[:-1])
        await silence.end()
        if is_given_up:
            await talk.stream(*ANSWER, DONE)
        else:
            await talk.send(plain[-1:])

    for engine in engines:
        engine.script = script
    async with calling(worker.port) as caller:
        await caller.ask()
        found = await silence.answer_of(caller)
    assert found.header["content-type"] == "text/event-stream"
    assert found.body.startswith(COMMENT)
    assert found.body.endswith(DONE)


async def test_a_caller_that_leaves_in_the_silence_is_noticed(
    engines: tuple[ScriptedEngine, ScriptedEngine], worker: WorkerProcess
) -> None:
    """Behind comments a caller is as gone as before: the engine's connection is closed."""

    async def script(talk: Talk) -> None:
        await talk.gone()

    for engine in engines:
        engine.script = script
    before = len(worker.events())
    async with calling(worker.port) as caller:
        await caller.ask()
        assert await caller.read_head() == 200
        assert await caller.read_piece() == COMMENT
    event = worker.wait_events(before + 1)[-1]
    assert (event.outcome, event.first_byte_at_ns) == ("caller_gone", None)
