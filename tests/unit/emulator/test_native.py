"""Anthropic's Messages and OpenAI's Responses as the emulator plays them."""

from typing import Any

import msgspec
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from tests.unit.emulator.peer import MODEL, Answer, ask, on_uvloop

from penstock.emulator.settings import EmulatorSettings

MESSAGES, COUNT, RESPONSES = "/v1/messages", "/v1/messages/count_tokens", "/v1/responses"
BODIES: dict[str, dict[str, Any]] = {
    MESSAGES: {
        "max_tokens": 100,
        "system": [{"type": "text", "text": "four"}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "four"}]}],
    },
    RESPONSES: {
        "instructions": "four",
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "four"}]}],
    },
}
BOTH = pytest.mark.parametrize("path", BODIES)
TEXT = "the water runs"


async def _ask(path: str, settings: EmulatorSettings, **members: object) -> Answer:
    body = msgspec.json.encode({"model": MODEL} | BODIES[path] | members)
    return await ask(settings, body, path=path)


def _names(answer: Answer) -> list[str]:
    lines = answer.body.decode().splitlines()
    return [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]


@BOTH
@on_uvloop
async def test_what_is_said_is_what_the_sdks_read(path: str) -> None:
    """Whole answers and every event are of the types that the official SDKs have."""
    settings = EmulatorSettings(output_tokens=3, cached_tokens=1)
    plain, stream = await _ask(path, settings), await _ask(path, settings, stream=True)
    events = stream.events()
    assert _names(stream) == [event["type"] for event in events]
    if path == MESSAGES:
        message = Message.model_validate(plain.json(), strict=True)
        assert message.usage.cache_read_input_tokens == 1
        assert (message.usage.input_tokens, message.usage.output_tokens) == (1, 3)
        reader: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
        assert events[-2]["usage"] == {"output_tokens": 3}
    else:
        response = Response.model_validate(plain.json())
        assert response.output_text == TEXT
        assert response.usage is not None
        assert (response.usage.input_tokens, response.usage.output_tokens) == (2, 3)
        reader = TypeAdapter(ResponseStreamEvent)
        assert events[-1]["response"] == plain.json()
    assert all(reader.validate_python(event) for event in events)


@BOTH
@on_uvloop
async def test_the_callers_most_is_kept(path: str) -> None:
    """A smaller maximum cuts the output, and the answer says so."""
    name = "max_tokens" if path == MESSAGES else "max_output_tokens"
    told = (await _ask(path, EmulatorSettings(), **{name: 2})).json()
    assert told["usage"]["output_tokens"] == 2
    why = told["stop_reason"] if path == MESSAGES else told["incomplete_details"]["reason"]
    assert why == name
    assert (await _ask(path, EmulatorSettings(), **{name: 0})).status == 400


@on_uvloop
async def test_tokens_of_a_question_are_counted() -> None:
    """As the answer to it says them."""
    body = {"model": MODEL, "messages": BODIES[MESSAGES]["messages"]}
    counted = await ask(EmulatorSettings(), msgspec.json.encode(body), path=COUNT)
    assert counted.json() == {"input_tokens": 1}


@BOTH
@pytest.mark.parametrize("kind", ["openai_compatible", "vllm"])
@on_uvloop
async def test_an_error_under_200_ends_a_stream(path: str, kind: str) -> None:
    """By an event of the protocol, the last one."""
    settings = msgspec.convert(
        {"kind": kind, "fault": "error_in_200", "fault_after": 4}, EmulatorSettings
    )
    stream = await _ask(path, settings, stream=True)
    names = _names(stream)
    assert (len(names), stream.is_complete) == (5, True)
    fails = path == RESPONSES and kind == "openai_compatible"
    assert names[-1] == ("response.failed" if fails else "error")


@on_uvloop
async def test_errors_of_messages_are_anthropics() -> None:
    """A server without room says so in the words of the protocol."""
    settings = EmulatorSettings(fault="status", status=529)
    answer = await _ask(MESSAGES, settings)
    assert answer.status == 529
    assert (answer.json()["type"], answer.json()["error"]["type"]) == ("error", "api_error")
