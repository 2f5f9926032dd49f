"""How calls of gRPC end early: by limits, budgets, their length, their callers, and the worker."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import msgspec
import pytest
from tests.fakes.emulator_process import running_emulator
from tests.fakes.fake_agent import running_agent
from tests.fakes.grpc_caller import Caller, calling, named, raw, tensor, text, text_request, told
from tests.fakes.limits_agent import LimitsAgent
from tests.fakes.ports import free_port
from tests.fakes.worker_process import KEY, WorkerProcess, make_snapshot, running_worker

from penstock.contract.limits import Limit, Metric, OwnerLimits
from penstock.contract.money import NANO, PRICE_SCALE, Budget, Price
from penstock.contract.node import ContextLengths, Stats
from penstock.contract.snapshot import Endpoint, Snapshot
from penstock.contract.snapshot_store import (
    budgets_record,
    limits_record,
    owner_name,
    prices_record,
)
from penstock.gateway.limits import H2_STREAMS

MODEL = "model-a"
TOKEN = NANO // 1_000_000
PRICE = Price("EUR", 0, PRICE_SCALE, PRICE_SCALE, PRICE_SCALE)
FAILING = (("x-emulator-fault", "error_in_200"),)


class Engine:
    """An emulated Triton.

    Args:
        url: Where it speaks HTTP.
        port: Where it speaks gRPC.
    """

    def __init__(self, url: str, port: int) -> None:
        """See the class."""
        plain = make_snapshot([int(url.rpartition(":")[2])])
        upstream = msgspec.structs.replace(
            plain.upstreams[0],
            provider="triton",
            endpoints=(*plain.upstreams[0].endpoints, Endpoint("grpc", "127.0.0.1", port)),
        )
        self.snapshot: Snapshot = msgspec.structs.replace(plain, upstreams=(upstream,))
        self._url = url

    def count(self, name: str) -> int:
        """Return a figure of its own."""
        found: int = httpx.get(self._url + "/emulator/stats").json()[name]
        return found


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """Return an engine for all."""
    port = free_port()
    with running_emulator("served-model", options=("--grpc-port", str(port))) as url:
        yield Engine(url, port)


@contextmanager
def _serving(
    folder: Path, engine: Engine, **options: Any
) -> Iterator[tuple[WorkerProcess, Caller]]:
    port = free_port()
    with (
        running_worker(folder, [], snapshot=engine.snapshot, grpc_port=port, **options) as worker,
        calling(port, KEY) as caller,
    ):
        yield worker, caller


def _wait(condition: Callable[[], bool]) -> None:
    give_up_at_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up_at_s
        time.sleep(0.01)


def _ask(caller: Caller, *fields: tuple[str, str], message: bytes = b"") -> Any:
    """Ask, and again when the agent took too long on a busy machine, as callers do."""
    while True:
        call = caller.unary("ModelInfer", message or text_request(MODEL), *fields)
        if told(call).get("x-penstock-error-code") != "err:gateway:limits:unavailable":
            return call


def _refusal(call: Any) -> tuple[str, str]:
    code = told(call)["x-penstock-error-code"].removeprefix("err:gateway:")
    return call.code().name, code


def test_limits_budgets_and_lengths_refuse(tmp_path: Path, engine: Engine) -> None:
    """What waiting helps against says when; a spent budget does not; neither asks the engine."""
    books = LimitsAgent(
        lambda: time.monotonic_ns() // 1_000_000, base_ms=10**12, budgets={"b": 10**6 * TOKEN}
    )
    lengths = ContextLengths((("engine", "served-model", 100),))
    records = [
        limits_record(
            owner_name("key", "org-a", "key-a"),
            OwnerLimits(limits=(Limit("r1", Metric.REQUESTS, 4, window_s=3_600),)),
        ),
        budgets_record(owner_name("organization", "org-a"), (Budget("b", "EUR"),)),
        prices_record(MODEL, (PRICE,)),
    ]
    with (
        running_agent(books.clock, lengths, answer=books.answer) as agent,
        _serving(tmp_path, engine, fed=dict(records), agent_socket=str(agent.path)) as (
            worker,
            caller,
        ),
    ):
        agent.wait(Stats)
        served = _ask(caller)
        assert served.code() is grpc.StatusCode.OK, served.details()
        refused = _refusal(_ask(caller, *FAILING, message=_long_request()))
        assert refused == ("INVALID_ARGUMENT", "request:context_length_exceeded")
        assert _refusal(_ask(caller, *FAILING)) == ("INTERNAL", "upstream:failed")
        asked = engine.count("request_count")
        books.budgets["b"] = 0
        spent = _ask(caller, message=text_request(MODEL, tokens=10**5))
        assert _refusal(spent) == ("RESOURCE_EXHAUSTED", "limits:quota_exhausted")
        assert "grpc-retry-pushback-ms" not in told(spent)
        books.budgets["b"] = 10**6 * TOKEN
        while (call := _ask(caller)).code() is grpc.StatusCode.OK:
            assert engine.count("request_count") <= asked + 8  # a window may begin meanwhile
        assert _refusal(call) == ("RESOURCE_EXHAUSTED", "limits:rate_exceeded")
        assert int(told(call)["grpc-retry-pushback-ms"]) >= 1_000
        assert {event.outcome for event in worker.events()} <= {"ok", "refused", "upstream_error"}


def _long_request() -> bytes:
    return (
        named(MODEL)
        + tensor("text_input", "BYTES", [1])
        + tensor("max_tokens", "INT32", [1])
        + text("word " * 200)
        + raw((3).to_bytes(4, "little"))
    )


@pytest.mark.parametrize("is_stream", [True, False], ids=["in a stream", "before an answer"])
def test_cancellation_reaches_the_engine_soon(
    tmp_path: Path, engine: Engine, *, is_stream: bool
) -> None:
    """Without a sweep or a time-out between: at once, on a quiet machine within 100 ms."""
    with _serving(tmp_path, engine) as (_, caller):
        taken_s = []
        for _ in range(3):
            aborted = engine.count("aborted_count") + 1
            if is_stream:
                slowly = ("x-emulator-itl-ms", "200")
                call = caller.stream([text_request(MODEL, tokens=32)], slowly)
                next(call)
            else:
                slowly = ("x-emulator-ttft-ms", "30000")
                call = caller.begin("ModelInfer", text_request(MODEL), slowly)
                _wait(lambda: engine.count("active_count") == 1)
            began_s = time.monotonic()
            call.cancel()
            while engine.count("aborted_count") < aborted:
                assert time.monotonic() < began_s + 60
            taken_s.append(time.monotonic() - began_s)
        assert min(taken_s) < 1, taken_s


def test_who_leaves_the_queue_is_never_dispatched(tmp_path: Path, engine: Engine) -> None:
    """A call that is cancelled while it waits for room at its engine never gets there."""
    plain = engine.snapshot.upstreams[0]
    narrow = msgspec.structs.replace(plain, max_connections=1)
    snapshot = msgspec.structs.replace(engine.snapshot, upstreams=(narrow,))
    port, slowly = free_port(), ("x-emulator-ttft-ms", "60000")
    with (
        running_worker(tmp_path, [], snapshot=snapshot, grpc_port=port) as worker,
        calling(port, KEY) as first,
        calling(port, KEY) as second,
    ):
        before = engine.count("request_count")
        calls = [first.begin("ModelInfer", text_request(MODEL), slowly) for _ in range(H2_STREAMS)]
        _wait(lambda: engine.count("active_count") == H2_STREAMS)
        queued = second.begin("ModelInfer", text_request(MODEL))
        _wait(lambda: len(worker.opens()) == H2_STREAMS + 1)
        queued.cancel()
        event = worker.wait_events(1, timeout_s=60)[0]
        assert (event.outcome, event.input_tokens, event.output_tokens) == ("caller_gone", 0, 0)
        for call in calls:
            call.cancel()
        _wait(lambda: engine.count("active_count") == 0)
        assert engine.count("request_count") == before + H2_STREAMS


def test_a_call_under_way_is_finished_before_the_worker_ends(
    tmp_path: Path, engine: Engine
) -> None:
    """After SIGTERM its answer comes whole, and the worker ends with it."""
    with _serving(tmp_path, engine, drain_grace_s=60.0) as (worker, caller):
        count = engine.count("request_count")
        future = caller.begin("ModelInfer", text_request(MODEL), ("x-emulator-ttft-ms", "1000"))
        _wait(lambda: engine.count("request_count") == count + 1)
        os.kill(worker.pid, signal.SIGTERM)
        assert future.exception() is None
        assert worker.process.wait(30) == 0
        assert [event.outcome for event in worker.events()] == ["ok"]


def test_calls_are_told_when_the_grace_is_over(tmp_path: Path, engine: Engine) -> None:
    """Unary or stream, they end with a status of ours, not with a broken connection."""
    with _serving(tmp_path, engine, drain_grace_s=0.2) as (worker, caller):
        unary = caller.begin("ModelInfer", text_request(MODEL), ("x-emulator-ttft-ms", "30000"))
        stream = caller.stream([text_request(MODEL, tokens=9)], ("x-emulator-itl-ms", "30000"))
        next(stream)
        _wait(lambda: engine.count("active_count") == 2)
        os.kill(worker.pid, signal.SIGTERM)
        unary.exception()
        with pytest.raises(grpc.RpcError):
            next(stream)
        for call in (unary, stream):
            assert _refusal(call) == ("UNAVAILABLE", "internal:interrupted")
        assert worker.process.wait(30) == 0
        assert [event.outcome for event in worker.events()] == ["interrupted"] * 2
