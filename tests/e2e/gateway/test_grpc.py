"""The Open Inference Protocol over gRPC through a real worker, in front of an emulated Triton."""

import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import httpx
import msgspec
import pytest
from tests.fakes.emulator_process import running_emulator
from tests.fakes.grpc_caller import (
    HEALTH,
    Caller,
    calling,
    fields_of,
    named,
    raw,
    tensor,
    text_request,
    told,
)
from tests.fakes.ports import free_port
from tests.fakes.worker_process import (
    KEY,
    OTHER_KEY,
    WorkerProcess,
    make_snapshot,
    running_worker,
)

from penstock.contract.snapshot import Endpoint, Snapshot
from penstock.contract.usage import UsageEvent
from penstock.gateway.limits import GRPC_WATCHES
from penstock.kit.protobuf import length_field

MODEL = "model-a"


@pytest.fixture(scope="module")
def engine() -> Iterator[tuple[str, int]]:
    """Return an emulated Triton: its URL, and its port for gRPC."""
    port = free_port()
    with running_emulator("served-model", options=("--grpc-port", str(port))) as url:
        yield url, port


@pytest.fixture(scope="module")
def worker(
    engine: tuple[str, int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WorkerProcess]:
    """Return a worker in front of it."""
    snapshot = _snapshot(*engine)
    folder = tmp_path_factory.mktemp("worker")
    with running_worker(folder, [], snapshot=snapshot, grpc_port=free_port()) as running:
        yield running


def _snapshot(url: str, grpc_port: int) -> Snapshot:
    plain = make_snapshot([int(url.rpartition(":")[2])])
    upstream = msgspec.structs.replace(
        plain.upstreams[0],
        provider="triton",
        endpoints=(*plain.upstreams[0].endpoints, Endpoint("grpc", "127.0.0.1", grpc_port)),
    )
    return msgspec.structs.replace(plain, upstreams=(upstream,))


@pytest.fixture
def caller(worker: WorkerProcess) -> Iterator[Caller]:
    """Return a caller with a key."""
    assert worker.settings.grpc_port is not None
    with calling(worker.settings.grpc_port, KEY) as found:
        yield found


def _last(worker: WorkerProcess) -> UsageEvent:
    return worker.events()[-1]


def _refusal(call: Any) -> tuple[str, str]:
    """Return status and our code of a call that was refused."""
    code = told(call)["x-penstock-error-code"].removeprefix("err:gateway:")
    return call.code().name, code


def _stats(engine: tuple[str, int]) -> Any:
    return httpx.get(engine[0] + "/emulator/stats").json()


def test_text_is_inferred_and_metered(caller: Caller, worker: WorkerProcess) -> None:
    """The answer is the engine's, the record has its counts."""
    call = caller.unary("ModelInfer", text_request(MODEL, request_id="7"), ("x-request-id", "mine"))
    assert call.code() is grpc.StatusCode.OK, call.details()
    answer = fields_of(call.result())
    assert (3, b"7") in answer
    assert struct.pack("<I", 14) + b"the water runs" in [content for _, content in answer]
    assert dict(call.initial_metadata())["x-request-id"] == "mine"
    event = _last(worker)
    assert (event.operation, event.outcome, event.request_id) == ("oip_infer", "ok", "mine")
    assert (event.usage_source, event.input_tokens, event.output_tokens) == ("engine", 7, 3)
    assert (event.model, event.served_model, event.status) == (MODEL, "served-model", 200)


def test_nobody_and_others_get_nothing(worker: WorkerProcess) -> None:
    """Every call that tells of a model needs a key, and a key for that model."""
    calls = {
        "ModelInfer": text_request(MODEL),
        "ModelMetadata": named(MODEL),
        "ModelReady": named(MODEL),
    }
    port = worker.settings.grpc_port or 0
    count = len(worker.opens())
    with calling(port, None) as nobody, calling(port, OTHER_KEY) as other:
        for method, message in calls.items():
            call = nobody.unary(method, message)
            assert _refusal(call) == ("UNAUTHENTICATED", "auth:key_missing")
            call = other.unary(method, message)
            assert _refusal(call) == ("NOT_FOUND", "request:model_not_found")
            call = other.unary(method, message.replace(b"model-a", b"no-such"))
            assert _refusal(call) == ("NOT_FOUND", "request:model_not_found")
        assert _refusal(nobody.unary("ServerMetadata", b""))[0] == "UNAUTHENTICATED"
        stream = other.stream([text_request(MODEL)])
        assert list_codes(stream) == "NOT_FOUND"
        assert list_codes(nobody.stream([text_request(MODEL)])) == "UNAUTHENTICATED"
    assert len(worker.opens()) == count


def list_codes(stream: Any) -> str:
    """Return how a stream ends, which answers nothing before."""
    with pytest.raises(grpc.RpcError):
        next(stream)
    name: str = stream.code().name
    return name


def test_server_and_model_tell_of_themselves(caller: Caller, worker: WorkerProcess) -> None:
    """The server is we, the model the engine's by its alias; its health is asked without a key."""
    assert fields_of(caller.unary("ServerLive", b"").result()) == [(1, 1)]
    assert fields_of(caller.unary("ServerReady", b"").result()) == [(1, 1)]
    assert (1, b"penstock") in fields_of(caller.unary("ServerMetadata", b"").result())
    found = fields_of(caller.unary("ModelMetadata", named(MODEL, "1")).result())
    assert (found[0], (2, b"1") in found) == ((1, b"model-a"), True)
    assert fields_of(caller.unary("ModelReady", named(MODEL)).result()) == [(1, 1)]
    assert (_last(worker).operation, _last(worker).input_tokens) == ("oip_model_ready", 0)
    missing = caller.unary("ModelInfer", text_request(MODEL) + length_field(2, b"9"))
    assert _refusal(missing) == ("NOT_FOUND", "request:model_version_not_found")
    with calling(worker.settings.grpc_port or 0, None) as nobody:
        assert fields_of(nobody.unary(HEALTH + "Check", b"").result()) == [(1, 1)]
        service = length_field(1, b"inference.GRPCInferenceService")
        assert fields_of(nobody.unary(HEALTH + "Check", service).result()) == [(1, 1)]
        unknown = nobody.unary(HEALTH + "Check", length_field(1, b"other"))
        assert unknown.code() is grpc.StatusCode.NOT_FOUND


def test_so_many_watch_a_server(worker: WorkerProcess) -> None:
    """Watchers need no key, and stay when their question has ended; one too many is refused."""
    with calling(worker.settings.grpc_port or 0, None) as nobody:
        watches = []
        for _ in range(GRPC_WATCHES):
            watches.append(nobody.stream([b""], method=HEALTH + "Watch"))
            assert fields_of(next(watches[-1])) == [(1, 1)]
        refused = nobody.stream([b""], method=HEALTH + "Watch")
        assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for watch in watches:
            watch.cancel()


def test_calls_of_operators_and_unknown_ones_are_refused(caller: Caller) -> None:
    """Whoever calls through a gateway operates nothing."""
    for method in ("RepositoryModelLoad", "RepositoryIndex", "ModelConfig", "LogSettings"):
        assert _refusal(caller.unary(method, b"")) == ("PERMISSION_DENIED", "request:admin_path")
    assert caller.unary("NoSuch", b"").code() is grpc.StatusCode.UNIMPLEMENTED
    assert caller.unary("/other.Service/Call", b"").code() is grpc.StatusCode.UNIMPLEMENTED


def test_tensors_come_back_byte_for_byte(caller: Caller, worker: WorkerProcess) -> None:
    """Raw or not, large ones through all windows; numbers are no tokens."""
    content = struct.pack("<3f", 1.5, -2, float("inf"))
    answer = caller.unary("ModelInfer", named(MODEL) + tensor("a", "FP32", [3]) + raw(content))
    assert (6, content) in fields_of(answer.result())
    assert (_last(worker).input_tokens, _last(worker).output_tokens) == (0, 0)
    packed = length_field(2, b"\x01\x02\x03")  # int_contents
    answer = caller.unary("ModelInfer", named(MODEL) + tensor("a", "INT32", [3], packed))
    assert (5, tensor("a", "INT32", [3], packed)[2:]) in fields_of(answer.result())
    large = bytes(range(256)) * 4 * 3_000
    answer = caller.unary(
        "ModelInfer", named(MODEL) + tensor("a", "FP32", [len(large) // 4]) + raw(large)
    )
    assert (6, large) in fields_of(answer.result())


def test_mistakes_in_messages_are_the_callers(caller: Caller) -> None:
    """What would reach others' memory, or is no message, never reaches an engine."""
    head = named(MODEL)
    shared = tensor("a", "FP32", [1])
    entry = length_field(1, b"shared_memory_region") + length_field(2, length_field(3, b"x"))
    shared = length_field(5, shared[2:] + length_field(4, entry))
    for message in (
        b"\xff",
        head + b"\x2a\x7f",
        head + head + tensor("a", "FP32", [1]) + raw(bytes(4)),
        head,
        head + tensor("a", "FP32", [2]) + raw(bytes(4)),
        head + tensor("a", "FP32", [1]) + raw(bytes(4)) * 2,
        head + tensor("a", "NONE", [1]) + raw(bytes(4)),
        head + tensor("stop", "BOOL", [1]) + raw(b"\1"),
        head + shared,
        head + tensor("a", "BYTES", [1]) * 2_000,
    ):
        call = caller.unary("ModelInfer", message)
        assert call.code() is grpc.StatusCode.INVALID_ARGUMENT, message[:40]
    too_many = head + tensor("max_tokens", "INT32", [1]) + raw(struct.pack("<i", 10**9))
    assert _refusal(caller.unary("ModelInfer", too_many))[1] == "request:member_invalid"
    wrong = caller.unary("ModelInfer", head + tensor("a", "INT8", [1]) + raw(b"\1"))
    assert _refusal(wrong) == ("INVALID_ARGUMENT", "request:refused_by_engine")
    assert "data-type" in wrong.details()


def test_an_engine_without_room_and_a_broken_one_are_told_apart(
    caller: Caller, worker: WorkerProcess
) -> None:
    """What may be tried again says when."""
    busy = caller.unary("ModelInfer", text_request(MODEL), ("x-emulator-fault", "status"))
    assert _refusal(busy) == ("RESOURCE_EXHAUSTED", "upstream:overloaded")
    assert int(told(busy)["grpc-retry-pushback-ms"]) >= 1_000
    broken = caller.unary("ModelInfer", text_request(MODEL), ("x-emulator-fault", "error_in_200"))
    assert _refusal(broken) == ("INTERNAL", "upstream:failed")
    assert _last(worker).outcome == "upstream_error"


def test_a_stream_answers_message_by_message(caller: Caller, worker: WorkerProcess) -> None:
    """Each request is recorded by itself; an error of the engine's ends only its own answer."""
    count = len(worker.events())
    stream = caller.stream([text_request(MODEL, tokens=3), text_request(MODEL, tokens=2)])
    answers = [fields_of(message) for message in stream]
    assert [number for answer in answers for number, _ in answer] == [2] * 5
    assert stream.code() is grpc.StatusCode.OK
    events = worker.wait_events(count + 2)[count:]
    assert [event.output_tokens for event in events] == [3, 2]
    assert {(event.operation, event.is_stream, event.outcome) for event in events} == {
        ("oip_stream_infer", True, "ok")
    }
    faults = (("x-emulator-fault", "error_in_200"), ("x-emulator-fault-after", "1"))
    stream = caller.stream([text_request(MODEL)] * 2, *faults)
    kinds = [fields_of(message)[0][0] for message in stream]
    assert kinds == [2, 1, 2, 1]
    assert [event.outcome for event in worker.wait_events(count + 4)[-2:]] == ["upstream_error"] * 2


def test_a_caller_that_cancels_stops_the_engine(
    caller: Caller, worker: WorkerProcess, engine: tuple[str, int]
) -> None:
    """At once, and pays for what it saw; a call whose time is over, too."""
    slow = ("x-emulator-itl-ms", "500")
    before, count = _stats(engine)["aborted_count"], len(worker.events())
    stream = caller.stream([text_request(MODEL, tokens=32)], slow)
    next(stream)
    stream.cancel()
    event = worker.wait_events(count + 1, timeout_s=20)[-1]
    assert event.outcome == "caller_gone"
    assert 1 <= event.output_tokens < 32
    _wait(lambda: _stats(engine)["aborted_count"] == before + 1)
    give_up_at_s = time.monotonic() + 60
    while _stats(engine)["aborted_count"] < before + 2:  # its time may be over on its way
        assert time.monotonic() < give_up_at_s
        late = caller.unary(
            "ModelInfer", text_request(MODEL), ("x-emulator-ttft-ms", "20000"), timeout_s=0.5
        )
        assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        time.sleep(0.05)
    events = worker.wait_events(len(worker.opens()))[count + 1 :]
    assert {event.outcome for event in events} <= {"caller_gone", "timeout"}
    _wait(lambda: _stats(engine)["active_count"] == 0)


def _wait(condition: Any) -> None:
    give_up_at_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up_at_s
        time.sleep(0.02)


def test_an_alias_without_an_address_of_grpc_says_so(
    engine: tuple[str, int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Such a model is asked by HTTP; one that is not the caller's stays unknown."""
    plain = make_snapshot([int(engine[0].rpartition(":")[2])])
    upstream = msgspec.structs.replace(plain.upstreams[0], provider="triton")
    snapshot = msgspec.structs.replace(plain, upstreams=(upstream,))
    folder = tmp_path_factory.mktemp("plain")
    port = free_port()
    with (
        running_worker(folder, [], snapshot=snapshot, grpc_port=port),
        calling(port, KEY) as caller,
    ):
        call = caller.unary("ModelInfer", text_request(MODEL))
        assert _refusal(call) == ("FAILED_PRECONDITION", "request:grpc_unsupported")


def test_what_the_engine_was_asked_is_recorded_and_an_end_of_it_told(tmp_path: Path) -> None:
    """Each id that it saw has one event; when it dies in a stream, and after, callers hear it."""
    port = free_port()
    with ExitStack() as engine:
        url = engine.enter_context(
            running_emulator("served-model", options=("--grpc-port", str(port)))
        )
        snapshot = _snapshot(url, port)
        with (
            running_worker(tmp_path, [], snapshot=snapshot, grpc_port=free_port()) as worker,
            calling(worker.settings.grpc_port or 0, KEY) as caller,
        ):
            for _ in range(5):
                assert caller.unary("ModelInfer", text_request(MODEL)).code().name == "OK"
            assert len(list(caller.stream([text_request(MODEL)] * 3))) == 9
            seen = httpx.get(url + "/emulator/stats").json()["request_ids"]
            assert sorted(seen) == sorted(event.request_id for event in worker.wait_events(8))
            slow = ("x-emulator-itl-ms", "1000")
            stream = caller.stream([text_request(MODEL, tokens=32)], slow)
            next(stream)
            engine.close()
            with pytest.raises(grpc.RpcError):
                list(stream)
            event = worker.wait_events(9, timeout_s=20)[-1]
            assert event.outcome == "upstream_error"
            gone = caller.unary("ModelInfer", text_request(MODEL))
            assert _refusal(gone) == ("UNAVAILABLE", "upstream:connect_failed")
