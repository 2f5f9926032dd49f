"""The local LLM: real text of a real model on llama.cpp."""

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import msgspec
import pytest
from tests.fakes.ports import free_port

pytestmark = pytest.mark.engine

START_TIMEOUT_S = 60
STORY = [{"role": "user", "content": "Tell me a very long story about a river."}]
GREETING = [{"role": "user", "content": "Say hello."}]


@contextmanager
def _running(port: int) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "penstock.emulator.local_llm", "--port", str(port)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            _wait_ready(port)
            yield process
        finally:
            process.kill()


def _wait_ready(port: int) -> None:
    give_up_at_s = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                return
        except httpx.TransportError:
            assert time.monotonic() < give_up_at_s, "the local LLM did not start"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def llm() -> Iterator[httpx.Client]:
    """Start the local LLM once; yield a client of it."""
    port = free_port()
    # After a stream the engine closes the connection without having said so.
    limits = httpx.Limits(max_keepalive_connections=0)
    url = f"http://127.0.0.1:{port}"
    with _running(port), httpx.Client(base_url=url, timeout=60, limits=limits) as client:
        yield client


def _chat(messages: object, max_tokens: int, **others: object) -> dict[str, object]:
    return {"model": "smollm2", "messages": messages, "max_tokens": max_tokens, **others}


def _events(llm: httpx.Client, body: dict[str, object]) -> list[Any]:
    with llm.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    return [msgspec.json.decode(line) for line in lines[:-1]]


def _processing(llm: httpx.Client) -> float:
    for line in llm.get("/metrics").text.splitlines():
        if line.startswith("llamacpp:requests_processing "):
            return float(line.split()[1])
    return -1.0


def test_the_model_is_listed_under_its_alias(llm: httpx.Client) -> None:
    """The list of models has `smollm2` and nothing else."""
    models = llm.get("/v1/models").json()
    assert [model["id"] for model in models["data"]] == ["smollm2"]
    assert models["data"][0]["meta"]["n_ctx"] == 2048


def test_a_chat_streams_real_text_with_usage(llm: httpx.Client) -> None:
    """A stream has text in several chunks and, asked for, the usage in its last."""
    body = _chat(GREETING, 8, stream=True, stream_options={"include_usage": True})
    *events, last = _events(llm, body)
    texts = [event["choices"][0]["delta"].get("content") for event in events]
    assert len([text for text in texts if text]) > 1
    assert last["choices"] == []
    usage = last["usage"]
    assert 1 <= usage["completion_tokens"] <= 8
    assert usage["prompt_tokens"] > 5
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert not any("usage" in event for event in events)


def test_a_stream_has_no_usage_unless_asked(llm: httpx.Client) -> None:
    """Without `include_usage` no chunk has usage."""
    assert not any("usage" in event for event in _events(llm, _chat(GREETING, 4, stream=True)))


def test_a_plain_chat_has_usage(llm: httpx.Client) -> None:
    """A plain answer has text, usage and the alias as its model."""
    answer = llm.post("/v1/chat/completions", json=_chat(GREETING, 4)).json()
    assert answer["choices"][0]["message"]["content"]
    assert answer["usage"]["completion_tokens"] <= 4
    assert answer["model"] == "smollm2"


def test_a_stream_that_is_left_stops(llm: httpx.Client) -> None:
    """When a caller leaves its stream, the engine stops writing it soon, long before its end."""
    body = _chat(STORY, 1500, stream=True, ignore_eos=True)
    # Its gauge is told between two tokens: now and then not before it has written all of them.
    for _ in range(3):
        with llm.stream("POST", "/v1/chat/completions", json=body) as answer:
            next(answer.iter_raw())
            give_up_at_s = time.monotonic() + 10
            while not (is_seen := _processing(llm) == 1) and time.monotonic() < give_up_at_s:
                time.sleep(0.05)  # each question holds up the engine's writing
            if is_seen:
                break
    assert is_seen
    _wait_processing(llm, 0, 3)


def _wait_processing(llm: httpx.Client, count: int, seconds: float) -> None:
    give_up_at_s = time.monotonic() + seconds
    while (seen := _processing(llm)) != count:
        assert time.monotonic() < give_up_at_s, f"{seen} requests are processed, not {count}"
        time.sleep(0.05)  # each question holds up the engine's writing


def test_too_long_a_prompt_is_refused(llm: httpx.Client) -> None:
    """A prompt over the context is 400, also for a stream."""
    messages = [{"role": "user", "content": "word " * 3000}]
    for is_stream in (False, True):
        answer = llm.post("/v1/chat/completions", json=_chat(messages, 4, stream=is_stream))
        assert answer.status_code == 400
        assert answer.json()["error"]["type"] == "exceed_context_size_error"


def test_sigterm_ends_it_at_once_and_quietly() -> None:
    """SIGTERM ends it with status 0 long before a stream that is on its way would end."""
    port = free_port()
    with _running(port) as process:
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        body = _chat(STORY, 1500, stream=True, ignore_eos=True)
        with httpx.stream("POST", url, json=body, timeout=60) as answer:
            texts = answer.iter_raw()
            said = next(texts)
            process.send_signal(signal.SIGTERM)
            out, error = process.communicate(timeout=60)
            with contextlib.suppress(httpx.TransportError):  # its connection is cut
                for text in texts:
                    said += text
        assert said.count(b"data: ") < 750
        assert b"[DONE]" not in said
        assert (process.returncode, out, error) == (0, "", "")


def test_a_taken_port_ends_it_with_status_1() -> None:
    """A port that is taken is an error, not a server that nobody can reach."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [sys.executable, "-m", "penstock.emulator.local_llm"]
        ended = subprocess.run(
            [*command, "--port", str(taken.getsockname()[1])],
            capture_output=True,
            text=True,
            check=False,
            timeout=START_TIMEOUT_S,
        )
    assert ended.returncode == 1
    assert "local LLM" in ended.stderr


def test_messages_and_responses_are_spoken(llm: httpx.Client) -> None:
    """What the gateway relies on: where which figures are, and what is input."""
    # What begins with a letter of several tokens has no `message_start` there.
    asked = _chat(GREETING, 4, temperature=0)
    plain = llm.post("/v1/messages", json=asked).json()
    usage = plain["usage"]
    whole = usage["input_tokens"] + usage["cache_read_input_tokens"]
    assert llm.post("/v1/messages/count_tokens", json=asked).json() == {"input_tokens": whole}
    text = llm.post("/v1/messages", json=asked | {"stream": True}).text
    events = [line[6:] for line in text.splitlines() if line.startswith("data: {")]
    begun, last = msgspec.json.decode(events[0]), msgspec.json.decode(events[-2])
    usage = begun["message"]["usage"]
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == whole
    assert usage["cache_read_input_tokens"] > 0
    assert last["usage"] == {"output_tokens": text.count('"text_delta"')}
    question = {"model": "smollm2", "input": "Say hello.", "max_output_tokens": 4, "store": False}
    response = llm.post("/v1/responses", json=question).json()
    assert response["status"] == "completed"
    assert response["usage"]["input_tokens"] == whole
    details = response["usage"]["input_tokens_details"]
    assert 0 < details["cached_tokens"] < whole
    longer = llm.post("/v1/responses", json=question | {"n_predict": 9}).json()
    assert longer["usage"]["output_tokens"] > 4, "another protocol's member is heeded: ours goes"
