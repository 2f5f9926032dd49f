"""What streams consume that hold other things than text: calls of tools, thoughts, choices."""

import asyncio
import json
from typing import Any

import pytest
from tests.fakes.scripted_engine import (
    DONE,
    LAST_CHUNK,
    ROLE,
    STREAM_HEAD,
    ScriptedEngine,
    Talk,
    chunk,
    counts,
    usage_frame,
)
from tests.fakes.stream_caller import ask, calling, chat_body
from tests.fakes.worker_process import WorkerProcess

pytestmark = pytest.mark.asyncio(loop_scope="module")

COUNT = 12


def _frame(delta: dict[str, Any], index: int = 0, **members: object) -> bytes:
    choice = {"index": index, "delta": delta, "finish_reason": None} | members
    return b"data: %b\n\n" % json.dumps({"id": "c1", "choices": [choice]}).encode()


def _call(number: int) -> bytes:
    function = {"arguments": f'"{number}"'} if number else {"name": "find", "arguments": ""}
    return _frame({"tool_calls": [{"index": 0, "id": "t1", "function": function}]})


LOGPROB = {"content": [{"token": "a", "logprob": -0.1, "top_logprobs": []}]}
STREAMS: dict[str, list[bytes]] = {
    "tools": [_call(number) for number in range(COUNT)],
    "thoughts": [_frame({"reasoning_content": "hm"}) for _ in range(COUNT)],
    "thoughts by their other name": [_frame({"reasoning": "hm"}) for _ in range(COUNT)],
    "choices": [_frame({"content": "a"}, index=number % 3) for number in range(COUNT)],
    "logprobs": [_frame({"content": "a"}, logprobs=LOGPROB) for _ in range(COUNT)],
    "nothing to show": [_frame({"content": ""}) for _ in range(COUNT)],
}
EACH = pytest.mark.parametrize("name", STREAMS)


@EACH
async def test_what_the_engine_counted_is_booked(
    engine: ScriptedEngine, worker: WorkerProcess, name: str
) -> None:
    """Whatever the chunks hold, its last figures are the record's, and the caller gets them all."""
    details = {"completion_tokens_details": {"reasoning_tokens": 5}}
    end = usage_frame(counts(9, 77) | details)

    async def script(talk: Talk) -> None:
        await talk.stream(ROLE, *STREAMS[name], end, DONE)

    engine.script = script
    before = len(worker.events())
    answer = await ask(worker.port, "", chat_body(stream=True, n=3, logprobs=True))
    assert answer.body == ROLE + b"".join(STREAMS[name]) + DONE
    (event,) = worker.wait_events(before + 1)[before:]
    assert (event.outcome, event.usage_source) == ("ok", "engine")
    assert (event.input_tokens, event.output_tokens) == (9, 77)
    assert event.reasoning_output_tokens == 5


@EACH
async def test_what_nobody_counted_is_counted_by_chunks(
    engine: ScriptedEngine, worker: WorkerProcess, name: str
) -> None:
    """An engine that says no figures is paid for each chunk, whatever it holds."""

    async def script(talk: Talk) -> None:
        await talk.stream(ROLE, *STREAMS[name], DONE)

    engine.script = script
    before = len(worker.events())
    await ask(worker.port, "", chat_body(stream=True))
    (event,) = worker.wait_events(before + 1)[before:]
    assert (event.outcome, event.usage_source) == ("ok", "counted")
    assert COUNT <= event.output_tokens <= COUNT + 1


@EACH
async def test_a_caller_that_leaves_pays_for_what_it_saw(
    engine: ScriptedEngine, worker: WorkerProcess, name: str
) -> None:
    """After so many chunks no less is booked than they were, once."""
    left = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.send(STREAM_HEAD, *map(chunk, (ROLE, *STREAMS[name])), pause_s=0.001)
        await talk.gone()
        left.set()
        await talk.send(LAST_CHUNK)

    engine.script = script
    before = len(worker.events())
    async with calling(worker.port) as caller:
        await caller.ask("", chat_body(stream=True))
        await caller.read_head()
        seen = b""
        while seen.count(b"data: ") < COUNT + 1 or not seen.endswith(b"\n\n"):
            seen += await caller.read_piece()
        caller.close()
        await asyncio.wait_for(left.wait(), 20)
    (event,) = worker.wait_events(before + 1)[before:]
    assert (event.outcome, event.usage_source) == ("caller_gone", "counted")
    assert COUNT <= event.output_tokens <= COUNT + 1
