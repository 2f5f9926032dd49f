"""What operators have the emulator do, asked as the agent asks engines."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.fakes.served_upstreams import ServedUpstreams
from tests.unit.emulator.peer import MODEL, chat_body, connect, on_uvloop, request_bytes, start

from penstock.contract.operations import Claim, Outcome
from penstock.contract.snapshot import Endpoint, Upstream
from penstock.emulator.kinds import Kind
from penstock.emulator.settings import EmulatorSettings
from penstock.engines.registry import ENGINES
from penstock.node.operator import Operator

ARGUMENTS = {"lora_name": "legal", "lora_path": "/adapters/legal", "model": MODEL}


class _NoControl:
    async def post(self, path: str, content: bytes) -> bytes:
        raise AssertionError(path + content.hex())


class Operated:
    """An emulator, an agent that operates it, and a caller."""

    def __init__(self, provider: str, port: int) -> None:
        """Ask the emulator on that port as one of that provider."""
        self.provider, self.port = provider, port
        upstream = Upstream("gpu", provider, (Endpoint("http", "127.0.0.1", port),))
        self._operator = Operator(_NoControl(), "node-1", ServedUpstreams(upstream), lambda _: None)

    async def do(self, name: str, **arguments: str) -> Outcome:
        """Have the emulator do something, and return what it said."""
        report = await self._operator.perform(Claim("o", "gpu", name, arguments, None))
        (outcome,) = report.outcomes
        return outcome

    async def ask(self, model: str) -> int:
        """Return the status of a request."""
        async with connect(self.port) as peer:
            peer.send(request_bytes(chat_body(model=model)))
            return (await peer.read_answer()).status

    async def get(self, path: str) -> bytes:
        """Return the body of an answer."""
        async with connect(self.port) as peer:
            peer.send(request_bytes(b"", path, method="GET"))
            return (await peer.read_answer()).body


@asynccontextmanager
async def operated(provider: str, kind: Kind, **settings: int) -> AsyncIterator[Operated]:
    """Run an emulator of a kind, with an agent that takes it for one of a provider."""
    async with await start(EmulatorSettings(kind=kind, **settings)) as server:  # type: ignore[arg-type]  # numbers alone
        yield Operated(provider, server.port)


@pytest.mark.parametrize("kind", ["vllm", "sglang", "triton"])
@on_uvloop
async def test_each_operation_is_done(kind: Kind) -> None:
    """Whatever an operator can tell a kind of server, the emulator of that kind does."""
    async with operated(kind, kind) as engine:
        for operation in ENGINES[kind].operations:
            arguments = {name: ARGUMENTS[name] for name in operation.required}
            assert (await engine.do(operation.name, **arguments)).status == 200, operation


@on_uvloop
async def test_it_says_that_it_sleeps() -> None:
    """It sleeps from when it is told until it is woken up."""
    async with operated("emulator", "openai_compatible") as engine:
        for name, is_sleeping in (("sleep", b"true"), ("wake_up", b"false")):
            await engine.do(name)
            assert await engine.get("/is_sleeping") == b'{"is_sleeping":%b}' % is_sleeping


@on_uvloop
async def test_adapters_as_vllm_has_them() -> None:
    """An adapter is listed under its model and answers while it is loaded, up to a number."""
    async with operated("vllm", "vllm", adapter_limit=1) as engine:
        assert await engine.ask("legal") == 404
        assert (await engine.do("load_lora_adapter", lora_name="legal", lora_path="/l")).status
        assert await engine.ask("legal") == 200
        listed = await engine.get("/v1/models")
        assert b'"root":"/l","parent":"%b"' % MODEL.encode() in listed
        assert b'max_lora="1"' in await engine.get("/metrics")
        again = await engine.do("load_lora_adapter", lora_name="legal", lora_path="/l")
        assert (again.status, "already been loaded" in again.text) == (400, True)
        full = await engine.do("load_lora_adapter", lora_name="other", lora_path="/o")
        assert (full.status, "No free adapter slots" in full.text) == (500, True)
        assert (await engine.do("unload_lora_adapter", lora_name="legal")).status == 200
        assert (await engine.do("unload_lora_adapter", lora_name="legal")).status == 404
        assert await engine.ask("legal") == 404


@on_uvloop
async def test_adapters_as_sglang_has_them() -> None:
    """Requests name the model and the adapter; one that is not loaded is 400 in its words."""
    async with operated("sglang", "sglang", adapter_limit=1) as engine:
        assert await engine.ask(f"{MODEL}:legal") == 400
        assert (await engine.do("load_lora_adapter", lora_name="legal", lora_path="/l")).status
        assert await engine.ask(f"{MODEL}:legal") == 200
        full = await engine.do("load_lora_adapter", lora_name="other", lora_path="/o")
        assert (full.status, "Maximum number of loaded" in full.text) == (400, True)


@on_uvloop
async def test_models_of_tritons_repository_come_and_go() -> None:
    """A model that is unloaded is said to be so, is not ready and answers nothing."""
    ready = f"/v2/models/{MODEL}/ready"
    async with operated("triton", "triton") as engine:
        assert b'"READY"' in (await engine.do("list_repository")).text.encode()
        assert (await engine.do("unload_model", model=MODEL)).status == 200
        assert b"UNAVAILABLE" in (await engine.do("list_repository")).text.encode()
        assert b"not ready" in await engine.get(ready)
        assert (await engine.do("load_model", model="other")).status == 400
        assert (await engine.do("load_model", model=MODEL)).status == 200
        assert await engine.get(ready) == b""
