"""Anthropic's Messages and OpenAI's Responses through a real worker, to their usage events."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.fakes.emulator_process import running_emulator
from tests.fakes.http_rig import request
from tests.fakes.raw_http import ask as ask_raw
from tests.fakes.scripted_engine import (
    LAST_CHUNK,
    STREAM_HEAD,
    STREAM_HEAD_TO_END,
    ScriptedEngine,
    Talk,
    answer,
    chunk,
)
from tests.fakes.stream_caller import Answer, ask, calling
from tests.fakes.worker_process import (
    KEY,
    OTHER_KEY,
    WorkerProcess,
    make_snapshot,
    running_worker,
)

from penstock.contract.usage import UsageEvent, quantities
from penstock.gateway.limits import INSPECTED_FRAME_BYTES
from penstock.limits.prices import ATTO
from penstock.rating.rates import read_rates

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "serve-messages-and-responses.md"
MESSAGES, COUNT, RESPONSES = "/v1/messages", "/v1/messages/count_tokens", "/v1/responses"
QUESTIONS: dict[str, dict[str, Any]] = {
    MESSAGES: {"max_tokens": 50, "messages": [{"role": "user", "content": "hello there"}]},
    COUNT: {"messages": [{"role": "user", "content": "hello there"}]},
    RESPONSES: {"input": "hello there"},
}
BOTH = pytest.mark.parametrize("path", [MESSAGES, RESPONSES])
WORKED = [f"w{number}" for number in range(5)]


def _body(path: str, **members: object) -> bytes:
    return json.dumps({"model": "model-a"} | QUESTIONS[path] | members).encode()


def _event(payload: dict[str, Any]) -> bytes:
    return f"event: {payload['type']}\ndata: {json.dumps(payload)}\n\n".encode()


def _begin(path: str) -> bytes:
    if path == RESPONSES:
        response = {"id": "resp_1", "status": "in_progress", "error": None, "usage": None}
        return _event({"type": "response.created", "response": response})
    usage = {"input_tokens": 3, "cache_read_input_tokens": 40, "output_tokens": 1}
    return _event({"type": "message_start", "message": {"id": "msg_1", "usage": usage}})


def _token(path: str, text: str) -> bytes:
    if path == RESPONSES:
        return _event({"type": "response.output_text.delta", "delta": text})
    delta = {"type": "text_delta", "text": text}
    return _event({"type": "content_block_delta", "index": 0, "delta": delta})


def _end(path: str) -> bytes:
    if path == RESPONSES:
        usage = {"input_tokens": 43, "output_tokens": 9, "total_tokens": 52,
                 "input_tokens_details": {"cached_tokens": 40},
                 "output_tokens_details": {"reasoning_tokens": 4}}  # fmt: skip
        response = {"id": "resp_1", "status": "completed", "error": None, "usage": usage}
        return _event({"type": "response.completed", "response": response})
    last = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
    return _event(last | {"usage": {"output_tokens": 9}}) + _event({"type": "message_stop"})


def _stream(path: str) -> list[bytes]:
    return [_begin(path), *(_token(path, text) for text in WORKED), _end(path)]


def _failure(path: str) -> bytes:
    if path == RESPONSES:
        error = {"code": "server_error", "message": "boom at 10.0.0.7:8000"}
        response = {"id": "resp_1", "status": "failed", "error": error, "usage": None}
        return _event({"type": "response.failed", "response": response})
    error = {"type": "overloaded_error", "message": "boom at 10.0.0.7:8000"}
    return _event({"type": "error", "error": error})


async def _one(
    engine: ScriptedEngine, worker: WorkerProcess, path: str, *frames: bytes, **members: object
) -> tuple[Answer, UsageEvent]:
    """Ask for a stream that has these frames; return the answer and its only event."""

    async def script(talk: Talk) -> None:
        await talk.stream(*frames, pause_s=0.01)

    engine.script = script
    before = len(worker.events())
    found = await ask(worker.port, "", _body(path, stream=True, **members), path=path)
    (event,) = worker.wait_events(before + 1)[before:]
    return found, event


def _last_error(body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(body.rpartition(b"data: ")[2])
    assert body.rpartition(b"data: ")[0].endswith(b"event: error\n")
    return found


@pytest.mark.parametrize("path", QUESTIONS)
async def test_nobody_and_others_get_nothing(worker: WorkerProcess, path: str) -> None:
    """Every path needs a key, by either of its headers, and a key for that model."""
    answers = [
        ask_raw(worker.port, request(_body(path), *fields, path=path.encode(), key=None))
        for fields in ((), (b"x-api-key: nobody",), (b"x-api-key: " + OTHER_KEY.encode(),))
    ]
    codes = ["auth:key_missing", "auth:key_invalid", "request:model_not_found"]
    assert [each.code for each in answers] == codes
    assert [each.status for each in answers] == [401, 401, 404]
    for found in answers:
        told = json.loads(found.body)
        if path == RESPONSES:
            assert set(told) == {"error"}
        else:
            assert told["type"] == "error"
            assert told["request_id"] == found.header["x-request-id"]


@pytest.mark.parametrize("path", QUESTIONS)
async def test_only_what_is_asked_is_there(worker: WorkerProcess, path: str) -> None:
    """Nothing that a server would keep can be read, deleted or cancelled."""
    wrong = request(b"", path=path.encode(), method=b"GET")
    assert ask_raw(worker.port, wrong).status == 405
    for more in ("/resp_1", "/resp_1/cancel", "/batches"):
        found = ask_raw(worker.port, request(_body(path), path=path.encode() + more.encode()))
        assert found.status == 404


@BOTH
async def test_a_stream_passes_byte_for_byte(
    engine: ScriptedEngine, worker: WorkerProcess, path: str
) -> None:
    """And what the engine counted is booked, with the parts that a cache had."""
    found, event = await _one(engine, worker, path, *_stream(path))
    assert (found.status, found.body) == (200, b"".join(_stream(path)))
    assert (event.outcome, event.usage_source, event.is_stream) == ("ok", "engine", True)
    assert event.operation == path.removeprefix("/v1/")
    assert (event.input_tokens, event.cached_input_tokens, event.output_tokens) == (43, 40, 9)
    assert event.upstream_request_id in {"msg_1", "resp_1"}
    prices = {"input": 10, "cached_input": 1, "output": 100, "reasoning_output": 100}
    rates = read_rates({meter: {"price": str(price)} for meter, price in prices.items()})
    used = quantities(event)
    cost = sum(rate.amount(used.get(meter, 0)) for meter, rate in rates.items()) / ATTO
    assert cost == pytest.approx((3 * 10 + 40 * 1 + 9 * 100) / 1_000_000)


@BOTH
async def test_a_caller_that_leaves_pays_for_what_it_saw(
    engine: ScriptedEngine, worker: WorkerProcess, path: str
) -> None:
    """The engine's connection is closed, and what passed is booked once, with the input known."""
    left = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.send(STREAM_HEAD, *map(chunk, _stream(path)[:-1]), pause_s=0.001)
        await talk.gone()
        left.set()
        await talk.send(LAST_CHUNK)

    engine.script = script
    before = len(worker.events())
    async with calling(worker.port) as caller:
        await caller.ask("", _body(path, stream=True), path=path)
        await caller.read_head()
        seen = b""
        while WORKED[-1].encode() not in seen or not seen.endswith(b"\n\n"):
            seen += await caller.read_piece()
        caller.close()
        await asyncio.wait_for(left.wait(), 20)
    (event,) = worker.wait_events(before + 1)[before:]
    assert (event.outcome, event.usage_source) == ("caller_gone", "counted")
    assert event.output_tokens == len(WORKED)
    if path == MESSAGES:
        assert (event.input_tokens, event.cached_input_tokens) == (43, 40)


@BOTH
async def test_an_error_in_the_stream_is_told_and_paid_by_nobody(
    engine: ScriptedEngine, worker: WorkerProcess, path: str
) -> None:
    """In the caller's protocol, well formed, without the engine's addresses; nothing is booked."""
    found, event = await _one(engine, worker, path, *_stream(path)[:-1], _failure(path), _end(path))
    assert (found.status, found.is_complete) == (200, True)
    assert found.body.startswith(b"".join(_stream(path)[:-1]) + b"event: error\n")
    told = _last_error(found.body)
    assert told["type"] == "error"
    assert told["error"]["penstock_code"] == "err:gateway:upstream:failed"
    assert told["error"]["message"] == "boom at [address]"
    assert b"[DONE]" not in found.body
    assert (event.outcome, event.error_code) == ("upstream_error", "err:gateway:upstream:failed")
    assert (event.input_tokens, event.output_tokens) == (0, 0)


@BOTH
async def test_an_error_before_anything_has_a_status(
    engine: ScriptedEngine, worker: WorkerProcess, path: str
) -> None:
    """What fails before the caller saw anything is no stream."""
    found, event = await _one(engine, worker, path, _failure(path))
    assert found.status in {429, 502, 503}
    assert json.loads(found.body)["error"]["penstock_code"].startswith("err:gateway:upstream:")
    assert (event.outcome, event.input_tokens, event.output_tokens) == ("upstream_error", 0, 0)


@BOTH
async def test_a_stream_that_breaks_off_does_not_end_well(
    engine: ScriptedEngine, worker: WorkerProcess, path: str
) -> None:
    """The caller is told by an event, and by the connection."""

    async def script(talk: Talk) -> None:
        await talk.send(STREAM_HEAD, *map(chunk, _stream(path)[:3]), pause_s=0.01)
        talk.close()

    engine.script = script
    before = len(worker.events())
    found = await ask(worker.port, "", _body(path, stream=True), path=path)
    assert not found.is_complete
    assert _last_error(found.body)["error"]["penstock_code"].endswith("closed_early")
    (event,) = worker.wait_events(before + 1)[before:]
    assert event.outcome == "upstream_error"


async def test_a_long_response_ends_well_with_the_engines_connection(
    engine: ScriptedEngine, worker: WorkerProcess
) -> None:
    """Without length and chunks its last event tells that all is there, however long it is."""
    text = "x" * (2 * INSPECTED_FRAME_BYTES)
    usage = {"input_tokens": 43, "output_tokens": 9}
    last = {"type": "response.completed", "response": {"output": [text], "usage": usage}}
    content = b"event: response.completed\ndata: " + json.dumps(last).encode() + b"\n\n"

    async def script(talk: Talk) -> None:
        await talk.send(STREAM_HEAD_TO_END, *_stream(RESPONSES)[:-1], content)
        talk.close()

    engine.script = script
    before = len(worker.events())
    found = await ask(worker.port, "", _body(RESPONSES, stream=True), path=RESPONSES)
    assert found.is_complete
    assert found.body.endswith(content)
    (event,) = worker.wait_events(before + 1)[before:]
    assert (event.outcome, event.usage_source) == ("ok", "engine")
    assert (event.input_tokens, event.output_tokens) == (43, 9)


@BOTH
async def test_an_engine_without_room_is_told_in_the_callers_words(
    engine: ScriptedEngine, worker: WorkerProcess, path: str
) -> None:
    """Anthropic's own overload, and vLLM's, are a 429 with Retry-After."""

    async def script(talk: Talk) -> None:
        error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
        await talk.send(answer(error, 529))

    engine.script = script
    found = await ask(worker.port, "", _body(path), path=path)
    assert (found.status, found.code) == (429, "upstream:overloaded")
    assert "retry-after" in found.header
    if path == MESSAGES:
        assert found.error["type"] == "overloaded_error"


SHAPES: dict[str, Any] = {
    "vllm": {"error": {"message": "boom", "type": "BadRequestError", "param": None, "code": 400}},
    "sglang": {"object": "error", "message": "boom", "type": "BadRequest", "code": 400},
    "trtllm": {"error": "boom"},
    "dynamo": {"message": "boom", "type": "Bad Request", "code": 400},
    "fastapi": {"detail": "boom"},
    "anthropic": {"type": "error", "error": {"type": "invalid_request_error", "message": "boom"}},
}


@BOTH
@pytest.mark.parametrize("shape", SHAPES)
async def test_errors_of_all_shapes_have_the_callers(
    engine: ScriptedEngine, worker: WorkerProcess, path: str, shape: str
) -> None:
    """Whatever an engine's error looks like, its words are kept in the shape of the protocol."""

    async def script(talk: Talk) -> None:
        await talk.send(answer(SHAPES[shape], 400))

    engine.script = script
    found = await ask(worker.port, "", _body(path), path=path)
    assert (found.status, found.code) == (400, "request:refused_by_engine")
    assert (found.error["message"], found.error["type"]) == ("boom", "invalid_request_error")
    assert (json.loads(found.body).get("type") == "error") is (path == MESSAGES)


@BOTH
@pytest.mark.parametrize("size", [0, 1])
async def test_an_error_under_200_is_one(
    engine: ScriptedEngine, worker: WorkerProcess, path: str, size: int
) -> None:
    """An error object in a plain answer fails the request, whatever usage stands beside it."""
    usage = {"input_tokens": 3, "output_tokens": 4}
    error = {"message": "boom", "code": "server_error"} if size else {"message": "boom"}

    async def script(talk: Talk) -> None:
        await talk.send(answer({"type": "error", "error": error, "usage": usage}))

    engine.script = script
    before = len(worker.events())
    found = await ask(worker.port, "", _body(path), path=path)
    assert (found.status, found.code) == (502, "upstream:failed")
    (event,) = worker.wait_events(before + 1)[before:]
    assert (event.outcome, event.input_tokens, event.output_tokens) == ("upstream_error", 0, 0)


async def test_what_the_engine_gets(engine: ScriptedEngine, worker: WorkerProcess) -> None:
    """Its own model, nothing to keep, pseudonyms, and neither the caller's key nor its headers."""
    received: list[Talk] = []

    async def script(talk: Talk) -> None:
        received.append(talk)
        await talk.send(answer({"id": "x", "usage": {"input_tokens": 3, "output_tokens": 4}}))

    engine.script = script
    body = _body(RESPONSES, store=True, user="u", rid="r", prompt_cache_key="talk")
    await ask(worker.port, "", body, path="/responses")
    sent = received[-1].request
    assert sent.target == RESPONSES
    assert sent.members["model"] == "served-model"
    assert sent.members["store"] is False
    assert "rid" not in sent.members
    body = _body(MESSAGES, metadata={"user_id": "u"})
    fields = {"x_api_key": KEY, "anthropic_version": "2023-06-01", "anthropic_beta": "files"}
    await ask(worker.port, "", body, path=MESSAGES + "?beta=true", **fields)
    sent = received[-1].request
    assert sent.target == MESSAGES
    assert sent.members["metadata"]["user_id"] != "u"
    assert not {"x-api-key", "anthropic-beta", "anthropic-version"}.intersection(sent.header)
    assert KEY not in str(sent.header)


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """Return a worker in front of the emulator."""
    options = ["--output-tokens", "8", "--cached-tokens", "2"]
    with running_emulator("served-model", options=options) as url:
        folder: Path = tmp_path_factory.mktemp("emulated")
        with running_worker(folder, [int(url.rpartition(":")[2])]) as running:
            yield running


@BOTH
@pytest.mark.parametrize("kind", ["openai_compatible", "vllm", "sglang"])
@pytest.mark.parametrize("is_stream", [False, True])
async def test_whatever_the_engine_tells_where_its_figures_are_booked(
    emulated: WorkerProcess, path: str, kind: str, *, is_stream: bool
) -> None:
    """Input at the beginning or at the end, in streams and plain answers."""
    before = len(emulated.events())
    body = _body(path, stream=is_stream)
    found = await ask(emulated.port, "", body, path=path, x_emulator_kind=kind)
    assert found.status == 200
    (event,) = emulated.wait_events(before + 1)[before:]
    assert (event.outcome, event.usage_source, event.flags) == ("ok", "engine", ())
    assert (event.input_tokens, event.cached_input_tokens, event.output_tokens) == (3, 2, 8)


@BOTH
@pytest.mark.parametrize("habit", ["negative", "text", "huge", "missing", "null", "fraction",
                                   "flag", "nested", "parts"])  # fmt: skip
@pytest.mark.parametrize("is_stream", [False, True])
async def test_what_engines_lie_is_not_booked(
    emulated: WorkerProcess, path: str, habit: str, *, is_stream: bool
) -> None:
    """Senseless figures are flagged; never less than nothing, nor absurdly much, is booked."""
    before = len(emulated.events())
    body = _body(path, stream=is_stream)
    fields = {"x_emulator_usage": habit, "x_emulator_cached_tokens": "-1"}
    await ask(emulated.port, "", body, path=path, **fields)
    (event,) = emulated.wait_events(before + 1)[before:]
    assert event.outcome == "ok"
    assert event.flags
    assert 0 <= event.input_tokens < 1_000
    assert 0 <= event.output_tokens < 1_000
    assert (event.cached_input_tokens or 0) <= event.input_tokens


@BOTH
@pytest.mark.parametrize("fault", ["error_in_200", "disconnect", "truncate", "status", "html",
                                   "empty", "malformed", "slow"])  # fmt: skip
@pytest.mark.parametrize("is_stream", [False, True])
async def test_every_fault_ends_in_one_event(
    emulated: WorkerProcess, path: str, fault: str, *, is_stream: bool
) -> None:
    """Whatever an engine does, there is one event, and only what ended well counts as that."""
    before = len(emulated.events())
    fields = {"x_emulator_fault": fault, "x_emulator_fault_after": "4", "x_emulator_drip_ms": "0",
              "x_emulator_drip_bytes": "7"}  # fmt: skip
    found = await ask(emulated.port, "", _body(path, stream=is_stream), path=path, **fields)
    (event,) = emulated.wait_events(before + 1)[before:]
    assert len(emulated.events()) == before + 1
    ends_well = fault == "slow" or (fault == "malformed" and is_stream)
    assert (event.outcome == "ok") is ends_well
    if ends_well:
        assert (event.input_tokens, event.output_tokens) == (3, 8)
    else:
        assert event.error_code is not None
        assert event.error_code.removeprefix("err:gateway:") in found.body.decode()


async def test_tokens_of_a_question_are_counted_and_cost_nothing(emulated: WorkerProcess) -> None:
    """The engine's number is told; a request is counted, and no tokens."""
    before = len(emulated.events())
    found = await ask(emulated.port, "", _body(COUNT), path=COUNT)
    assert json.loads(found.body) == {"input_tokens": 3}
    (event,) = emulated.wait_events(before + 1)[before:]
    assert (event.operation, event.outcome) == ("count_tokens", "ok")
    assert (event.input_tokens, event.output_tokens) == (0, 0)


async def test_the_questions_of_the_page_are_answered(emulated: WorkerProcess) -> None:
    """Each `curl` of the how-to page brings an answer of the model."""
    page = PAGE.read_text("utf-8").replace("ps_live_...", KEY).replace('"coder"', '"model-a"')
    page = page.replace("http://127.0.0.1:8080", emulated.url)
    (questions,) = re.findall(r"^```sh\n(curl.*?)^```$", page, re.MULTILINE | re.DOTALL)
    before = len(emulated.events())
    curl = await asyncio.create_subprocess_exec(
        "sh", "-ec", questions, stdout=asyncio.subprocess.PIPE
    )
    told, _ = await asyncio.wait_for(curl.communicate(), 60)
    assert curl.returncode == 0
    assert b"penstock_code" not in told
    events = emulated.wait_events(before + 4)[before:]
    operations = [event.operation for event in events]
    assert operations == ["messages", "messages", "count_tokens", "responses"]


async def test_a_company_is_asked_as_it_wants(
    engine: ScriptedEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its key is in a field of its own, and its version is named; a chat is not for it."""
    received: list[Talk] = []

    async def script(talk: Talk) -> None:
        received.append(talk)
        usage = {"input_tokens": 3, "output_tokens": 4}
        error = {"type": "error", "error": {"message": "your key is canary-key"}}
        whole = {"id": "msg_1", "type": "message", "usage": usage}
        await talk.send(answer(whole) if len(received) == 1 else answer(error, 400))

    engine.script = script
    monkeypatch.setenv("COMPANY_KEY", "canary-key")
    plain = make_snapshot([engine.port])
    upstream = msgspec.structs.replace(
        plain.upstreams[0], provider="anthropic", credential="env:COMPANY_KEY"
    )
    snapshot = msgspec.structs.replace(plain, upstreams=(upstream,))
    with running_worker(tmp_path, [engine.port], snapshot=snapshot) as worker:
        found = await ask(worker.port, "", _body(MESSAGES), path=MESSAGES)
        assert found.status == 200
        failed = await ask(worker.port, "", _body(MESSAGES), path=MESSAGES)
        chat = json.dumps({"model": "model-a", "messages": [{"role": "user", "content": "x"}]})
        refused = await ask(worker.port, "", chat.encode())
        response = await ask(worker.port, "", _body(RESPONSES), path=RESPONSES)
    header = received[0].request.header
    assert header["x-api-key"] == "canary-key"
    assert header["anthropic-version"] == "2023-06-01"
    assert "authorization" not in header
    assert (failed.status, failed.code) == (400, "request:refused_by_engine")
    assert b"canary-key" not in failed.body
    assert (refused.status, refused.code) == (400, "request:operation_unsupported")
    assert (response.status, response.code) == (400, "request:operation_unsupported")
    assert len(received) == 2


@BOTH
async def test_a_silent_stream_that_fails_ends_in_the_callers_words(
    engine: ScriptedEngine, tmp_path: Path, path: str
) -> None:
    """A stream that was begun by a comment ends well formed, with the protocol's own event."""
    until = asyncio.Event()

    async def script(talk: Talk) -> None:
        await until.wait()
        await talk.send(answer({"type": "error", "error": {"message": "boom"}}, 500))

    engine.script = script
    body = _body(path, stream=True)
    with running_worker(tmp_path, [engine.port], stream_keep_alive_s=0.1) as worker:
        async with calling(worker.port) as caller:
            await caller.ask("", body, path=path)
            await caller.read_head()
            assert await caller.read_piece() == b": keep-alive\n\n"
            until.set()
            seen, is_complete = await caller.read_body()
        (event,) = worker.wait_events(1)
    assert is_complete
    assert _last_error(seen.removeprefix(b": keep-alive\n\n"))["error"]["message"] == "boom"
    assert (event.outcome, event.output_tokens) == ("upstream_error", 0)
