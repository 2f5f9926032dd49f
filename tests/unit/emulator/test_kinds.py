"""The emulator as each kind of model server: errors, lack of room, health, metrics."""

from contextlib import AsyncExitStack
from typing import get_args

import pytest
from tests.unit.emulator.peer import (
    MODEL,
    ask,
    chat_body,
    connect,
    on_uvloop,
    request_bytes,
    start,
)

from penstock.emulator.kinds import Kind, busy_answer, error_object
from penstock.emulator.settings import EmulatorSettings
from penstock.emulator.wire import encode_json
from penstock.engines.registry import ENGINES
from penstock.gateway.dialects.errors import REFUSED_BY_ENGINE
from penstock.gateway.errors import FAILED, OVERLOADED, UNAVAILABLE
from penstock.gateway.failure import error_in_answer, status_failure

KINDS: tuple[Kind, ...] = get_args(Kind)
EACH = pytest.mark.parametrize("kind", KINDS)


@EACH
def test_the_gateway_reads_every_shape(kind: Kind) -> None:
    """Whatever shape an error has, its words are found, and what it means."""
    for status, error in ((400, REFUSED_BY_ENGINE), (500, FAILED)):
        body = encode_json(error_object(kind, status, "its words"))
        failure = status_failure(status, body, None)
        assert (failure.error, failure.detail) == (error, "its words")
        assert error_in_answer(body).detail == "its words"


@EACH
def test_the_gateway_knows_who_has_no_room(kind: Kind) -> None:
    """A kind of server that says that it is busy is told from one that is just not there."""
    status, words = busy_answer(kind)
    failure = status_failure(status, encode_json(error_object(kind, status, words)), b"3")
    says_so = kind not in ("openai_compatible", "trtllm")
    assert failure.error is (OVERLOADED if says_so else UNAVAILABLE)
    assert failure.retry_after_s == 3
    assert status in ENGINES[kind].overloaded_statuses


@EACH
@on_uvloop
async def test_a_server_without_room_says_so_in_its_way(kind: Kind) -> None:
    """The fault `status` is the answer of a server of that kind whose queue is full."""
    settings = EmulatorSettings(kind=kind, fault="status")
    answer = await ask(settings, chat_body())
    status, words = busy_answer(kind)
    assert answer.status == status
    assert answer.json() == error_object(kind, status, words)
    assert answer.headers["retry-after"] == "1"


@EACH
@on_uvloop
async def test_health_and_load_are_where_that_kind_has_them(kind: Kind) -> None:
    """Every path that is known of a kind answers, and its metrics name what runs and waits."""
    engine, settings = ENGINES[kind], EmulatorSettings(kind=kind)
    ready = (engine.ready_path or "/health").replace("{model}", MODEL)
    for path in ("/health", engine.health_path or "/health", ready):
        assert (await ask(settings, b"", path, method="GET")).status == 200
    assert (await ask(settings, b"", "/v1/models/other/ready", method="GET")).status == 404
    if engine.load is None:
        assert (await ask(settings, b"", "/metrics", method="GET")).status == 404
        return
    answer = await ask(settings, b"", engine.load.path, method="GET")
    lines = answer.body.decode().splitlines()
    assert f"{engine.load.running} 0" in lines
    assert f"{engine.load.waiting} 0" in lines


@pytest.mark.parametrize(
    ("kind", "form", "report"),
    [
        (
            "vllm",
            "TEXT",
            b"TEXT named_metrics.kv_cache_usage_perc=1.0, named_metrics.num_requests_waiting=3.0",
        ),
        (
            "vllm",
            "json",
            b'JSON {"named_metrics": {"kv_cache_usage_perc": 1.0, "num_requests_waiting": 3.0}}',
        ),
        ("triton", "text", b"TEXT named_metrics.kv_cache_utilization=1.0"),
        ("triton", "TEXT", None),
        ("vllm", "binary", None),
        ("sglang", "text", None),
    ],
)
@on_uvloop
async def test_a_batch_is_full_when_so_many_are_on_their_way(
    kind: Kind, form: str, report: bytes | None
) -> None:
    """Further ones wait, by its metrics and by what its kind says in the heads of plain answers."""
    settings, load = EmulatorSettings(kind=kind, batch=2), ENGINES[kind].load
    assert load is not None
    slow = {"x-emulator-ttft-ms": "3600000"}
    async with await start(settings) as server, AsyncExitStack() as stack:
        for _ in range(5):
            peer = await stack.enter_async_context(connect(server.port))
            peer.send(request_bytes(chat_body(stream=True), headers=slow))
        peer = await stack.enter_async_context(connect(server.port))
        while True:
            peer.send(request_bytes(b"", load.path, method="GET"))
            lines = (await peer.read_answer()).body.decode().splitlines()
            if f"{load.waiting} 3" in lines:
                break
        assert f"{load.running} 2" in lines
        assert f"{load.cache_use} 1.0" in lines
        peer.send(request_bytes(chat_body(), headers={"endpoint-load-metrics-format": form}))
        answer = await peer.read_answer()
        assert answer.json()["choices"]
        found = answer.headers.get("endpoint-load-metrics")
        assert found == (None if report is None else report.decode())
        peer.send(request_bytes(chat_body()))
        assert "endpoint-load-metrics" not in (await peer.read_answer()).headers


@on_uvloop
async def test_what_was_read_is_gone_for_others() -> None:
    """TensorRT-LLM's `/metrics` tells each step to one reader only."""
    settings = EmulatorSettings(kind="trtllm")
    async with await start(settings) as server, connect(server.port) as peer:
        for count in (2, 0, 1):
            for _ in range(count):
                peer.send(request_bytes(chat_body()))
                assert (await peer.read_answer()).status == 200
            peer.send(request_bytes(b"", "/metrics", method="GET"))
            assert len((await peer.read_answer()).json()) == count


@on_uvloop
async def test_dynamo_answers_one_choice_whatever_was_asked_for() -> None:
    """Of three choices one comes, with its tokens in the usage."""
    settings = EmulatorSettings(kind="dynamo", output_tokens=4)
    answer = (await ask(settings, chat_body(n=3))).json()
    assert len(answer["choices"]) == 1
    assert answer["usage"]["completion_tokens"] == 4


@on_uvloop
async def test_trtllm_always_says_what_was_cached() -> None:
    """Its usage has the details of the input even where nothing was cached."""
    answer = (await ask(EmulatorSettings(kind="trtllm"), chat_body())).json()
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
