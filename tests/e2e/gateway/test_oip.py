"""The Open Inference Protocol through a real worker, in front of an emulated Triton."""

import json
import re
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.fakes.emulator_process import running_emulator
from tests.fakes.http_rig import get, request
from tests.fakes.raw_http import Answer, RawConnection, ask
from tests.fakes.worker_process import (
    KEY,
    OTHER_KEY,
    WorkerProcess,
    make_snapshot,
    running_worker,
)

from penstock.contract.usage import UsageEvent

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "serve-triton.md"
MODEL = b"/v2/models/model-a"
TEXT = {"text_input": "once upon a time", "max_tokens": 3}
COUNTED = {"return_num_input_tokens": True, "return_num_output_tokens": True}


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """Return a worker in front of the emulator."""
    with running_emulator("served-model") as url:
        port = int(url.rpartition(":")[2])
        plain = make_snapshot([port])
        upstream = msgspec.structs.replace(plain.upstreams[0], provider="triton")
        snapshot = msgspec.structs.replace(plain, upstreams=(upstream,))
        folder = tmp_path_factory.mktemp("worker")
        with running_worker(folder, [port], snapshot=snapshot) as running:
            yield running


def _post(worker: WorkerProcess, path: bytes, body: object, *fields: bytes) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ask(worker.port, request(content, *fields, path=path))


def _last(worker: WorkerProcess) -> UsageEvent:
    return worker.events()[-1]


def _error(answer: Answer) -> tuple[int, str, str]:
    """Return status, our code and the words of an error in this protocol's shape."""
    (words,) = json.loads(answer.body).values()
    assert isinstance(words, str)
    code = answer.header["x-penstock-error-code"].removeprefix("err:gateway:")
    return answer.status, code, words


def test_nobody_and_others_get_nothing(worker: WorkerProcess) -> None:
    """Every path that tells of a model needs a key, and a key for that model."""
    for path in (b"/v2", MODEL, MODEL + b"/ready"):
        assert _error(ask(worker.port, get(path)))[:2] == (401, "auth:key_missing")
    for verb in (b"/infer", b"/generate", b"/generate_stream"):
        anonymous = ask(worker.port, request(b"{}", path=MODEL + verb, key=None))
        assert _error(anonymous)[:2] == (401, "auth:key_missing")
        theirs = ask(worker.port, request(b"{}", path=MODEL + verb, key=OTHER_KEY))
        assert _error(theirs)[:2] == (404, "request:model_not_found")
    theirs = ask(worker.port, get(MODEL, key=OTHER_KEY))
    assert _error(theirs)[:2] == (404, "request:model_not_found")


def test_server_and_model_tell_of_themselves(worker: WorkerProcess) -> None:
    """The server is we; the model is the engine's, by its version if one is named."""
    for path in (b"/v2/health/live", b"/v2/health/ready"):
        assert ask(worker.port, get(path)).status == 200
    assert json.loads(ask(worker.port, get(b"/v2", key=KEY)).body)["name"] == "penstock"
    for path in (MODEL, MODEL + b"/versions/1"):
        answer = ask(worker.port, get(path, key=KEY))
        assert answer.status == 200
        assert {each["name"] for each in json.loads(answer.body)["inputs"]} == {
            "text_input",
            "max_tokens",
        }
        assert json.loads(answer.body)["name"] == "model-a"
    ready = ask(worker.port, get(MODEL + b"/ready", key=KEY))
    assert (ready.status, ready.body) == (200, b"")
    assert (_last(worker).operation, _last(worker).input_tokens) == ("oip_model_ready", 0)


def test_what_is_no_version_or_for_operators_is_refused(worker: WorkerProcess) -> None:
    """In the protocol's own shape."""
    answers = [
        ask(worker.port, get(MODEL + b"/versions/9", key=KEY)),
        _post(worker, MODEL + b"/versions/9/generate", TEXT),
    ]
    for answer in answers:
        assert _error(answer)[:2] == (404, "request:model_version_not_found")
    load = _post(worker, b"/v2/repository/models/served-model/load", {})
    assert _error(load)[:2] == (403, "request:admin_path")
    assert _error(ask(worker.port, get(MODEL + b"/infer", key=KEY)))[0] == 405


def test_text_is_generated_and_metered(worker: WorkerProcess) -> None:
    """By the counts of the answer where it has them, else by its size, and flagged."""
    answer = _post(worker, MODEL + b"/generate", TEXT | COUNTED)
    assert json.loads(answer.body)["text_output"] == "the water runs"
    event = _last(worker)
    assert (event.operation, event.usage_source) == ("oip_generate", "engine")
    assert (event.input_tokens, event.output_tokens) == (4, 3)
    _post(worker, MODEL + b"/generate", TEXT)
    event = _last(worker)
    assert (event.usage_source, event.flags) == ("estimated", ("usage_missing",))
    assert event.output_tokens == len('"the water runs"') // 4


def test_a_stream_passes_as_it_is_without_an_end_of_ours(worker: WorkerProcess) -> None:
    """Each event is a token, or tells how many it is."""
    answer = _post(worker, MODEL + b"/generate_stream", TEXT)
    assert answer.header["content-type"].startswith("text/event-stream")
    assert answer.body.count(b"data: ") == 3
    assert b"[DONE]" not in answer.body
    event = _last(worker)
    assert (event.usage_source, event.output_tokens, event.is_stream) == ("counted", 3, True)
    _post(worker, MODEL + b"/generate_stream", TEXT | COUNTED)
    event = _last(worker)
    assert (event.usage_source, event.input_tokens, event.output_tokens) == ("engine", 4, 3)


def test_a_caller_that_leaves_a_stream_pays_for_what_it_saw(worker: WorkerProcess) -> None:
    """The engine is let go of, and the record says who left."""
    body = json.dumps(TEXT | COUNTED | {"max_tokens": 1000}).encode()
    count = len(worker.events())
    with RawConnection(worker.port) as caller:
        slow = (b"x-emulator-itl-ms: 20", b"x-emulator-output-tokens: 1000")
        caller.send(request(body, *slow, path=MODEL + b"/generate_stream"))
        assert caller.socket.recv(4096)
    event = worker.wait_events(count + 1, timeout_s=20)[-1]
    assert (event.outcome, event.usage_source) == ("caller_gone", "engine")
    assert 1 <= event.output_tokens < 1000


def test_tensors_come_back_byte_for_byte(worker: WorkerProcess) -> None:
    """Binary ones with the length of their JSON, others as JSON."""
    tail = struct.pack("<3f", 1.5, -2, float("inf"))
    tensor: dict[str, Any] = {"name": "a", "shape": [3], "datatype": "FP32"}
    head = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": 12}}]}).encode()
    length = b"Inference-Header-Content-Length: %d" % len(head)
    answer = _post(worker, MODEL + b"/infer", head + tail, length)
    size = int(answer.header["inference-header-content-length"])
    assert answer.header["content-type"] == "application/octet-stream"
    assert json.loads(answer.body[:size])["outputs"][0]["name"] == "a"
    assert answer.body[size:] == tail
    assert (_last(worker).input_tokens, _last(worker).output_tokens) == (0, 0)
    plain = _post(worker, MODEL + b"/infer", {"id": "7", "inputs": [tensor | {"data": [1, 2, 3]}]})
    found = json.loads(plain.body)
    assert (found["id"], found["outputs"][0]["data"]) == ("7", [1, 2, 3])


def test_an_engines_refusal_and_its_errors_keep_their_words(worker: WorkerProcess) -> None:
    """What is wrong with tensors is the caller's; an error under 200 is the engine's."""
    wrong = {"inputs": [{"name": "a", "shape": [1], "datatype": "INT8", "data": [1]}]}
    status, code, words = _error(_post(worker, MODEL + b"/infer", wrong))
    assert (status, code) == (400, "request:refused_by_engine")
    assert "data-type" in words
    broken = b"x-emulator-fault: error_in_200"
    for verb in (b"/generate", b"/generate_stream", b"/infer"):
        body = TEXT if verb != b"/infer" else {"inputs": [_text()]}
        answer = _post(worker, MODEL + verb, body, broken)
        assert _error(answer)[:2] == (502, "upstream:failed")
        assert _last(worker).outcome == "upstream_error"
    late = (broken, b"x-emulator-fault-after: 2", b"x-emulator-itl-ms: 500")
    answer = _post(worker, MODEL + b"/generate_stream", TEXT, *late)
    assert answer.body.endswith(b'data: {"error":"emulated engine failure"}\n\n')
    assert _last(worker).outcome == "upstream_error"
    busy = _post(worker, MODEL + b"/generate", TEXT, b"x-emulator-fault: status")
    assert _error(busy)[:2] == (429, "upstream:overloaded")


def test_text_through_infer_is_counted(worker: WorkerProcess) -> None:
    """Its outputs say how many tokens there were."""
    answer = _post(worker, MODEL + b"/infer", {"inputs": [_text()]})
    assert answer.status == 200
    event = _last(worker)
    assert (event.usage_source, event.input_tokens, event.output_tokens) == ("engine", 7, 32)


def _text() -> dict[str, Any]:
    return {"name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["once"]}


def test_the_questions_of_the_page_are_answered(worker: WorkerProcess) -> None:
    """Every `curl` of the how-to page brings an answer of the model, and no error."""
    page = PAGE.read_text("utf-8").replace("ps_live_...", KEY).replace("story-writer", "model-a")
    page = page.replace("http://127.0.0.1:8080", worker.url)
    blocks = re.findall(r"^```sh\n(curl.*?)^```$", page, re.MULTILINE | re.DOTALL)
    done = subprocess.run(
        ["sh", "-ec", "".join(blocks)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.count("text_output") >= 4
    assert done.stdout.endswith("data: [DONE]\n\n")
    assert "error" not in done.stdout
