"""OpenAI's operations in front of a text model of Triton, through a real worker."""

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import openai
import pytest
from tests.fakes.emulator_process import running_emulator
from tests.fakes.http_rig import request
from tests.fakes.raw_http import Answer, ask
from tests.fakes.worker_process import KEY, WorkerProcess, make_snapshot, running_worker

CHAT: dict[str, Any] = {
    "model": "model-a",
    "messages": [{"role": "user", "content": "once upon a time"}],
}
PATH = b"/v1/chat/completions"


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """Return a worker in front of the emulator as Triton."""
    with running_emulator("served-model", options=("--kind", "triton")) as url:
        port = int(url.rpartition(":")[2])
        plain = make_snapshot([port])
        upstream = msgspec.structs.replace(plain.upstreams[0], provider="triton")
        snapshot = msgspec.structs.replace(plain, upstreams=(upstream,))
        folder = tmp_path_factory.mktemp("worker")
        with running_worker(folder, [port], snapshot=snapshot) as running:
            yield running


@pytest.fixture(scope="module")
def client(worker: WorkerProcess) -> Iterator[openai.OpenAI]:
    """Return OpenAI's own client of it."""
    with openai.OpenAI(api_key=KEY, base_url=f"{worker.url}/v1", max_retries=0) as made:
        yield made


def _post(worker: WorkerProcess, body: object, *fields: bytes, path: bytes = PATH) -> Answer:
    return ask(worker.port, request(json.dumps(body).encode(), *fields, path=path))


def test_chats_and_completions_are_answered_as_openai_does(
    worker: WorkerProcess, client: openai.OpenAI
) -> None:
    """By its own client, with the usage that the model's outputs tell."""
    said = client.chat.completions.create(**CHAT, max_tokens=3)
    assert said.choices[0].message.content == "the water runs"
    assert (said.choices[0].finish_reason, said.model) == ("length", "model-a")
    assert said.usage is not None
    prompt = "user: once upon a time\nassistant:"
    assert (said.usage.prompt_tokens, said.usage.completion_tokens) == (-(-len(prompt) // 4), 3)
    text = client.completions.create(model="model-a", prompt="once", stop=["x"], temperature=0.5)
    assert (text.object, text.choices[0].finish_reason) == ("text_completion", "stop")
    event = worker.events()[-1]
    assert (event.operation, event.usage_source) == ("completions", "engine")
    assert (event.input_tokens, event.output_tokens) == (1, 32)


@pytest.mark.parametrize("place", ["beside", "in a message"])
def test_what_is_nested_deeply_is_answered_or_refused(worker: WorkerProcess, place: str) -> None:
    """What is admitted can be put to the engine, however deep: no depth is left alone."""
    statuses = []
    for depth in range(850, 1000):
        further = b',"further":' + b"[" * depth + b"]" * depth
        message = b'{"role":"user","content":"x"'
        message += further * (place != "beside") + b"}"
        body = b'{"model":"model-a","messages":[%b]%b}' % (message, further * (place == "beside"))
        statuses.append(ask(worker.port, request(body, path=PATH)).status)
    assert set(statuses) == {200, 400}
    assert statuses == sorted(statuses)


def test_streams_have_openais_shape_and_end(worker: WorkerProcess, client: openai.OpenAI) -> None:
    """Chunks as the events come, usage only where it was asked for, `[DONE]` at the end."""
    stream = client.chat.completions.create(
        **CHAT, max_tokens=3, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "the water runs"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3
    answer = _post(worker, CHAT | {"stream": True})
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert b'"usage"' not in answer.body
    event = worker.events()[-1]
    assert (event.usage_source, event.output_tokens, event.is_stream) == ("engine", 32, True)


@pytest.mark.parametrize(
    ("param", "body"),
    [
        ("n", {"n": 2}),
        ("stop", {"stop": [5]}),
        ("tools", {"tools": [{"type": "function"}]}),
        ("response_format", {"response_format": {"type": "json_object"}}),
        ("messages", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
    ],
)
def test_what_cannot_be_put_to_the_model_is_refused(
    worker: WorkerProcess, param: str, body: dict[str, Any]
) -> None:
    """Rather than left out, and before anything is sent."""
    count = len(worker.opens())
    answer = _post(worker, CHAT | body)
    assert (answer.status, answer.code) == (400, "request:operation_unsupported")
    assert answer.error["param"] == param
    assert len(worker.opens()) == count


def test_other_operations_and_lists_of_prompts_are_refused(worker: WorkerProcess) -> None:
    """A text model has no embeddings, and one answer for one text."""
    assert _post(worker, {"model": "model-a", "input": "x"}, path=b"/v1/embeddings").status == 400
    prompts = {"model": "model-a", "prompt": ["x", "y"]}
    assert _post(worker, prompts, path=b"/v1/completions").error["param"] == "prompt"


def test_errors_of_the_model_have_openais_shape(worker: WorkerProcess) -> None:
    """Before the first event as an answer, later as an event, and never with a false end."""
    broken = b"x-emulator-fault: error_in_200"
    for stream in (False, True):
        answer = _post(worker, CHAT | {"stream": stream}, broken)
        assert (answer.status, answer.code) == (502, "upstream:failed")
    late = (broken, b"x-emulator-fault-after: 2", b"x-emulator-itl-ms: 500")
    answer = _post(worker, CHAT | {"stream": True}, *late)
    *_, error, end, _ = answer.body.split(b"\n\n")
    assert json.loads(error[6:])["error"]["message"] == "emulated engine failure"
    assert end == b"data: [DONE]"
    assert b'"finish_reason":"' not in answer.body
    event = worker.events()[-1]
    assert (event.outcome, event.input_tokens, event.output_tokens) == ("upstream_error", 0, 0)
    busy = _post(worker, CHAT, b"x-emulator-fault: status")
    assert (busy.status, busy.code) == (429, "upstream:overloaded")


def test_a_stream_that_breaks_off_is_not_ended_as_if_whole(worker: WorkerProcess) -> None:
    """The caller is told, and pays for what it got."""
    cut = (b"x-emulator-fault: disconnect", b"x-emulator-fault-after: 2")
    body = json.dumps(CHAT | {"stream": True}).encode()
    fields = (*cut, b"x-emulator-itl-ms: 500")
    answer = ask(worker.port, request(body, *fields, path=PATH, version=b"1.0"))
    assert b"[DONE]" not in answer.body
    assert b'"finish_reason":"' not in answer.body
    assert b"err:gateway:upstream:closed_early" in answer.body
    event = worker.events()[-1]
    assert (event.outcome, event.output_tokens) == ("upstream_error", 2)
