"""A real Triton behind a real worker: what the emulator plays is what it does."""

import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import httpx
import msgspec
import pytest
from tests.fakes.engine_wheels import engine_python
from tests.fakes.grpc_caller import (
    Caller,
    calling,
    fields_of,
    named,
    raw,
    tensor,
    text,
    text_request,
    told,
)
from tests.fakes.http_rig import get, request
from tests.fakes.ports import free_port
from tests.fakes.raw_http import Answer, ask
from tests.fakes.worker_process import (
    PEPPER,
    WorkerProcess,
    make_snapshot,
    running_worker,
)

from penstock.access.rules import create_key, key_mac
from penstock.contract.snapshot import Alias, Choice, Deployment, Endpoint, Key, Route
from penstock.engines.load import REPORT, REPORT_FORMAT, Figures, read_metrics
from penstock.engines.triton import TRITON

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(900)]

PACKAGES = ("nvidia-pytriton==0.7.0",)
SYSTEM_PYTHON = Path("/usr/bin/python3.11")
"""Triton loads the interpreter that made its environment, and knows where the system's is."""
MODELS = Path(__file__).with_name("triton_models.py")
START_TIMEOUT_S = 120
ALL_KEY, URGENT_KEY = create_key(), create_key()
MODELS_BY_ALIAS = {"text": "writer", "numbers": "adder", "story-writer": "teller"}
GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "serve-triton.md"


class Server(NamedTuple):
    """A running Triton: its ports, and what it tells of itself."""

    http: int
    grpc: int
    metrics: int
    log: Path

    def list_levels(self) -> dict[str, int]:
        """Return the levels of priority of all requests, by their ids, as it logged them."""
        log = self.log.read_text(errors="replace")
        found = re.findall(r"request id: ([\w-]+), model: .*?priority: (\d+), timeout", log)
        return {name: int(level) for name, level in found}

    def count_cancellations(self) -> int:
        """Return how many requests it was told to cancel, and cancels."""
        return self.log.read_text(errors="replace").count("Issuing cancellation for")


@pytest.fixture(scope="module")
def python() -> Path:
    """Return a Python that has Triton and its client."""
    base = SYSTEM_PYTHON if SYSTEM_PYTHON.exists() else Path(sys.executable)
    return engine_python("triton", PACKAGES, base=base)


@pytest.fixture(scope="module")
def triton(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start Triton with its models, once."""
    ports = [free_port() for _ in range(3)]
    folder = tmp_path_factory.mktemp("triton")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [python, MODELS, *map(str, ports)],
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
        )
    try:
        _wait_ready(ports[0], process, folder / "log")
        yield Server(ports[0], ports[1], ports[2], folder / "log")
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def _wait_ready(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    give_up_at_s = time.monotonic() + START_TIMEOUT_S
    url = f"http://127.0.0.1:{port}/v2/models/adder/ready"
    while True:
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        is_late = process.poll() is not None or time.monotonic() > give_up_at_s
        assert not is_late, log.read_text(errors="replace")[-2000:]
        time.sleep(0.1)


@pytest.fixture(scope="module")
def worker(triton: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """Return a worker in front of it, with an alias for each model."""
    plain = make_snapshot([triton.http])
    upstream = msgspec.structs.replace(
        plain.upstreams[0],
        provider="triton",
        endpoints=(*plain.upstreams[0].endpoints, Endpoint("grpc", "127.0.0.1", triton.grpc)),
    )
    snapshot = msgspec.structs.replace(
        plain,
        keys=(
            *plain.keys,
            Key("all", key_mac(PEPPER, ALL_KEY.encode()), "org-a", "project-a"),
            Key(
                "urgent",
                key_mac(PEPPER, URGENT_KEY.encode()),
                "org-a",
                "project-a",
                scopes=("inference", "inference:priority"),
            ),
        ),
        upstreams=(upstream,),
        deployments=tuple(Deployment(name, "engine", name) for name in MODELS_BY_ALIAS.values()),
        routes=tuple(Route(name, (Choice(name),)) for name in MODELS_BY_ALIAS.values()),
        aliases=tuple(Alias(alias, name) for alias, name in MODELS_BY_ALIAS.items()),
    )
    folder = tmp_path_factory.mktemp("worker")
    with running_worker(folder, [], snapshot=snapshot, grpc_port=free_port()) as running:
        yield running


def _post(worker: WorkerProcess, path: bytes, body: object, *fields: bytes) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ask(worker.port, request(content, *fields, path=path, key=ALL_KEY))


def _refusal(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.header["x-penstock-error-code"].removeprefix("err:gateway:")


def test_its_metrics_say_how_many_wait(triton: Server) -> None:
    """Also without TensorRT-LLM's backend, in which case heads of answers say nothing."""
    load = TRITON.load
    assert load is not None
    page = httpx.get(f"http://127.0.0.1:{triton.metrics}{load.path}").content
    assert read_metrics(load, page) == Figures(None, 0.0, None)
    question = {"text_input": "x", "max_tokens": 2}
    head = {REPORT_FORMAT: "text"}
    url = f"http://127.0.0.1:{triton.http}/v2/models/writer/generate"
    answer = httpx.post(url, json=question, headers=head)
    assert answer.status_code == 200, answer.text
    assert REPORT not in answer.headers


def test_models_tell_of_themselves_by_their_alias(worker: WorkerProcess) -> None:
    """Metadata and readiness are the server's; a version that is not there is told of."""
    found = json.loads(ask(worker.port, get(b"/v2/models/numbers", key=ALL_KEY)).body)
    assert (found["name"], found["inputs"][0]["name"]) == ("numbers", "a")
    ready = ask(worker.port, get(b"/v2/models/numbers/versions/1/ready", key=ALL_KEY))
    assert (ready.status, ready.body) == (200, b"")
    assert ask(worker.port, get(b"/v2/models/numbers/versions/7/ready", key=ALL_KEY)).status == 400
    missing = ask(worker.port, get(b"/v2/models/numbers/versions/7", key=ALL_KEY))
    assert _refusal(missing) == (404, "request:model_version_not_found")


def test_numbers_go_through_as_json_and_as_bytes(worker: WorkerProcess) -> None:
    """The tensor's bytes come back as the model made them."""
    tensor: dict[str, Any] = {"name": "a", "shape": [1, 2], "datatype": "FP32"}
    plain = _post(worker, b"/v2/models/numbers/infer", {"inputs": [tensor | {"data": [1, 2.5]}]})
    assert json.loads(plain.body)["outputs"][0]["data"] == [2.0, 3.5]
    body = {
        "inputs": [tensor | {"parameters": {"binary_data_size": 8}}],
        "outputs": [{"name": "b", "parameters": {"binary_data": True}}],
    }
    head = json.dumps(body).encode()
    length = b"Inference-Header-Content-Length: %d" % len(head)
    sent = head + struct.pack("<2f", 1, 2.5)
    answer = _post(worker, b"/v2/models/numbers/infer", sent, length)
    size = int(answer.header["inference-header-content-length"])
    assert struct.unpack("<2f", answer.body[size:]) == (2.0, 3.5)


def test_urgent_requests_to_infer_have_a_level(triton: Server, worker: WorkerProcess) -> None:
    """Triton takes the parameter of a key that may go first, and sees none of others."""
    tensor = {"name": "a", "shape": [1, 1], "datatype": "FP32", "data": [1]}
    wanted = {"first": (URGENT_KEY, 1), "last": (URGENT_KEY, 3), "unsaid": (URGENT_KEY, 0)}
    for name, (key, level) in (wanted | {"other": (ALL_KEY, 1)}).items():
        body = {"id": name, "inputs": [tensor], "parameters": {"priority": level}}
        path = b"/v2/models/numbers/infer"
        assert (
            ask(worker.port, request(json.dumps(body).encode(), path=path, key=key)).status == 200
        )
    _wait(lambda: triton.list_levels().keys() >= {*wanted, "other"})
    levels = triton.list_levels()
    assert [levels[name] for name in (*wanted, "other")] == [1, 3, 2, 2]


def test_mistakes_in_tensors_are_the_callers(worker: WorkerProcess) -> None:
    """Wrong type, wrong shape and an operation that the model does not do are 400."""
    path = b"/v2/models/numbers/infer"
    for shape, datatype in (([1, 2], "INT32"), ([1, 3], "FP32"), ([2], "FP32")):
        tensor = {"name": "a", "shape": shape, "datatype": datatype, "data": [1, 2]}
        answer = _post(worker, path, {"inputs": [tensor]})
        assert _refusal(answer) == (400, "request:refused_by_engine"), answer.body
    text = {"name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["x"]}
    answer = _post(worker, b"/v2/models/text/infer", {"inputs": [text]})
    assert _refusal(answer) == (400, "request:refused_by_engine")


def test_a_model_that_answers_many_times_is_streamed_and_counted(worker: WorkerProcess) -> None:
    """By what its outputs tell; asked for one answer it fails, and nobody pays."""
    answer = _post(
        worker, b"/v2/models/text/generate_stream", {"text_input": "tell", "max_tokens": 4}
    )
    assert answer.body.count(b"data: ") == 4
    event = worker.events()[-1]
    assert (event.usage_source, event.input_tokens, event.output_tokens) == ("engine", 4, 4)
    failed = _post(worker, b"/v2/models/text/generate", {"text_input": "tell", "max_tokens": 4})
    assert _refusal(failed) == (502, "upstream:failed")
    event = worker.events()[-1]
    assert (event.outcome, event.input_tokens, event.output_tokens) == ("upstream_error", 0, 0)


def test_parameters_of_generate_are_read_as_what_stands_beside_them(
    triton: Server, worker: WorkerProcess
) -> None:
    """Triton makes inputs of them, so they are judged as such before it gets them."""
    body = {"text_input": "tell", "parameters": {"max_tokens": 2}}
    url = f"http://127.0.0.1:{triton.http}/v2/models/writer/generate_stream"
    assert httpx.post(url, json=body).text.count("data: ") == 2
    path = b"/v2/models/text/generate_stream"
    assert _post(worker, path, body).body.count(b"data: ") == 2
    body["parameters"] = {"max_tokens": 10**9}
    assert _refusal(_post(worker, path, body)) == (400, "request:member_invalid")


def test_openais_operations_are_translated(worker: WorkerProcess) -> None:
    """The text model is asked as OpenAI's are, and answers so."""
    body = {"model": "text", "prompt": "tell", "max_tokens": 1}
    said = json.loads(_post(worker, b"/v1/completions", body).body)
    assert said["choices"][0]["text"] == "word0 "
    assert said["usage"] == {"prompt_tokens": 4, "completion_tokens": 1, "total_tokens": 5}
    chat = {
        "model": "text",
        "messages": [{"role": "user", "content": "tell"}],
        "max_tokens": 3,
        "stream": True,
        "temperature": 0.5,
    }
    stream = _post(worker, b"/v1/chat/completions", chat)
    assert stream.body.endswith(b"data: [DONE]\n\n")
    assert stream.body.count(b'"content":"word') == 3
    assert worker.events()[-1].output_tokens == 3


@pytest.fixture
def caller(worker: WorkerProcess) -> Iterator[Caller]:
    """Return a caller by gRPC."""
    with calling(worker.settings.grpc_port or 0, ALL_KEY) as found:
        yield found


def test_grpc_numbers_and_names(caller: Caller, worker: WorkerProcess) -> None:
    """Tensors come back as the model made them, metadata under the alias."""
    content = struct.pack("<2f", 1, 2.5)
    message = named("numbers") + tensor("a", "FP32", [1, 2]) + raw(content)
    answer = caller.unary("ModelInfer", message)
    assert (6, struct.pack("<2f", 2.0, 3.5)) in fields_of(answer.result())
    event = worker.events()[-1]
    assert (event.operation, event.outcome, event.served_model) == ("oip_infer", "ok", "adder")
    metadata = fields_of(caller.unary("ModelMetadata", named("numbers")).result())
    assert (metadata[0], (2, b"1") in metadata) == ((1, b"numbers"), True)
    assert fields_of(caller.unary("ModelReady", named("numbers", "1")).result()) == [(1, 1)]


def test_grpc_mistakes_are_the_callers(caller: Caller) -> None:
    """Wrong type, wrong shape, an unknown version, and one answer of a model that gives many."""
    content = raw(struct.pack("<2f", 1, 2.5))
    wrong = {
        named("numbers") + tensor("a", "INT32", [1, 2]) + content: "request:refused_by_engine",
        named("numbers") + tensor("a", "FP32", [2]) + content: "request:refused_by_engine",
        text_request("text"): "request:refused_by_engine",
        named("numbers", "7") + tensor("a", "FP32", [1, 2]) + content: (
            "request:model_version_not_found"
        ),
    }
    for message, code in wrong.items():
        call = caller.unary("ModelInfer", message)
        assert told(call)["x-penstock-error-code"] == f"err:gateway:{code}", call.details()


def test_grpc_streams_are_counted_message_by_message(caller: Caller, worker: WorkerProcess) -> None:
    """By what the outputs tell; an error of Triton's ends only the answer to its message."""
    count = len(worker.events())
    wrong = named("text") + tensor("text_input", "INT32", [1]) + raw(bytes(4))
    messages = [text_request("text", tokens=4), wrong, text_request("text", tokens=2)]
    stream = caller.stream(messages)
    kinds = [fields_of(message)[0][0] for message in stream]
    assert stream.code() is grpc.StatusCode.OK
    assert kinds == [2] * 4 + [1] + [2] * 2
    events = worker.wait_events(count + 3)[count:]
    assert [(event.outcome, event.output_tokens) for event in events] == [
        ("ok", 4),
        ("upstream_error", 0),
        ("ok", 2),
    ]
    assert {event.input_tokens for event in events if event.outcome == "ok"} == {16}
    assert events[0].usage_source == "engine"


def test_grpc_cancellation_reaches_triton(
    caller: Caller, worker: WorkerProcess, triton: Server
) -> None:
    """Of a stream, and of a call whose time is over; what was seen is paid for."""
    count, before = len(worker.events()), triton.count_cancellations()
    slow = named("text") + tensor("text_input", "BYTES", [1]) + tensor("max_tokens", "INT32", [1])
    stream = caller.stream([slow + text("slow") + raw(struct.pack("<i", 20))])
    next(stream)
    stream.cancel()
    event = worker.wait_events(count + 1, timeout_s=30)[-1]
    assert event.outcome == "caller_gone"
    assert 1 <= event.output_tokens < 20
    _wait(lambda: triton.count_cancellations() == before + 1)
    slow = named("numbers") + tensor("a", "FP32", [1, 1]) + raw(struct.pack("<f", 1e6))
    late = caller.unary("ModelInfer", slow, timeout_s=3)
    assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    _wait(lambda: triton.count_cancellations() == before + 2)


def _wait(condition: Callable[[], bool]) -> None:
    give_up_at_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up_at_s
        time.sleep(0.1)


def test_the_guides_client_is_served(python: Path, worker: WorkerProcess) -> None:
    """Triton's own client does what the guide shows."""
    (shown,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    program = shown.replace("8001", str(worker.settings.grpc_port)).replace("ps_live_...", ALL_KEY)
    done = subprocess.run(
        [python, "-c", program], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.stdout.strip(), done.returncode) == ("b'Once upon a time'", 0), done.stderr[-2000:]
