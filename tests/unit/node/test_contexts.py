"""How many tokens requests may have, as lists of models say it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from tests.fakes.served_upstreams import ServedUpstreams

from penstock.contract.node import ContextLengths
from penstock.contract.snapshot import Endpoint, Upstream
from penstock.kit.clock import ManualClock
from penstock.kit.envelope import SecretBytes
from penstock.node import contexts
from penstock.node.contexts import AGAIN_S, PERIOD_S, Contexts, read_lengths

ONE, TWO = Endpoint("http", "10.0.0.1", 8000), Endpoint("http", "10.0.0.2", 8000)


class Servers:
    """Servers by host: what they list, or None when they do not answer."""

    def __init__(self, **lists: list[dict[str, Any]] | None) -> None:
        """See the class; `ONE` is `one`, `TWO` is `two`."""
        self.lists = lists
        self.seen: list[httpx.Request] = []

    def respond(self, request: httpx.Request) -> httpx.Response:
        """Answer."""
        self.seen.append(request)
        found = self.lists["one" if request.url.host == ONE.host else "two"]
        if found is None:
            message = "nobody there"
            raise httpx.ConnectError(message)
        return httpx.Response(200, json={"object": "list", "data": found})


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts, "_LOOK_S", 0.005)


@asynccontextmanager
async def _reading(
    servers: Servers, clock: ManualClock, catalog: ServedUpstreams
) -> AsyncIterator[list[ContextLengths]]:
    told: list[ContextLengths] = []
    reader = Contexts(
        catalog,
        clock,
        lambda name: SecretBytes(b"token-7") if name == "credential:c" else None,
        told.append,
        transport=httpx.MockTransport(servers.respond),
    )
    task = asyncio.create_task(reader.run())
    try:
        yield told
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("provider", "member"),
    [("vllm", "max_model_len"), ("sglang", "max_model_len"), ("dynamo", "context_window")],
)
async def test_each_kind_says_it_in_its_member(provider: str, member: str) -> None:
    """The adapter says where; of models that no deployment names nothing is told."""
    servers = Servers(one=[{"id": "m", member: 4096}, {"id": "other", member: 1}])
    catalog = ServedUpstreams(
        Upstream("gpu", provider, (ONE,), credential="credential:c"), models=("m",)
    )
    async with _reading(servers, ManualClock(), catalog) as told:
        await _until(lambda: told)
        assert told == [ContextLengths((("gpu", "m", 4096),))]
        assert servers.seen[0].url.path == "/v1/models"
        assert servers.seen[0].headers["authorization"] == "Bearer token-7"


async def test_the_least_of_all_endpoints_counts() -> None:
    """Who is not there yet is asked again soon, the others seldom; what is gone is forgotten."""
    servers = Servers(one=[{"id": "m", "max_model_len": 4096}], two=None)
    catalog, clock = (
        ServedUpstreams(Upstream("gpu", "vllm", (ONE, TWO)), models=("m",)),
        ManualClock(),
    )
    async with _reading(servers, clock, catalog) as told:
        await _until(lambda: told)
        assert told[-1].lengths == (("gpu", "m", 4096),)
        servers.lists["two"] = [{"id": "m", "max_model_len": 2048}]
        clock.advance(AGAIN_S + 1)
        await _until(lambda: len(told) > 1)
        assert told[-1].lengths == (("gpu", "m", 2048),)
        assert [each.url.host for each in servers.seen].count(ONE.host) == 1
        servers.lists["two"] = None
        clock.advance(PERIOD_S + 1)
        await _until(lambda: len(servers.seen) >= 5)
        assert told[-1].lengths == (("gpu", "m", 2048),)
        catalog.upstreams = [Upstream("gpu", "vllm", (ONE,))]
        catalog.version += 1
        await _until(lambda: told[-1].lengths == (("gpu", "m", 4096),))


async def test_who_comes_has_nobody_else_asked_again() -> None:
    """An endpoint that is found, or one of gRPC, makes no other's list be read again."""
    servers = Servers(one=[{"id": "m", "max_model_len": 7}], two=[{"id": "m", "max_model_len": 5}])
    catalog = ServedUpstreams(Upstream("gpu", "vllm", (ONE,)), models=("m",))
    by_grpc = Endpoint("grpc", ONE.host, 8001)
    async with _reading(servers, ManualClock(), catalog) as told:
        await _until(lambda: told)
        catalog.upstreams = [Upstream("gpu", "vllm", (ONE, by_grpc, TWO))]
        catalog.version += 1
        await _until(lambda: told[-1].lengths == (("gpu", "m", 5),))
        assert [each.url.host for each in servers.seen] == [ONE.host, TWO.host]


async def test_who_says_nothing_is_not_asked() -> None:
    """Kinds that list no length are not asked, nor anybody without the upstream's credential."""
    servers = Servers(one=[])
    catalog = ServedUpstreams(
        Upstream("a", "openai_compatible", (ONE,)),
        Upstream("b", "triton", (ONE,)),
        Upstream("c", "vllm", (ONE,), credential="credential:gone"),
        Upstream("d", "vllm", (TWO,)),
        models=("m",),
    )
    servers.lists["two"] = [{"id": "m", "max_model_len": 7}]
    async with _reading(servers, ManualClock(), catalog) as told:
        await _until(lambda: told)
        assert {each.url.host for each in servers.seen} == {TWO.host}


@pytest.mark.parametrize(
    ("content", "lengths"),
    [
        (b'{"data":[{"id":"m","n":true},{"id":1,"n":2},{"id":"z","n":0},7]}', {}),
        (b'{"data":[{"id":"m","n":9.5},{"id":"l","n":1' + b"0" * 30 + b"}]}", {}),
        (b'{"data":{}}', None),
        (b"[" * 5_000, None),
        (b"not json", None),
    ],
)
def test_odd_lists(content: bytes, lengths: dict[str, int] | None) -> None:
    """What is no list says nothing, and what is no length of a model is passed over."""
    assert read_lengths(content, "n") == lengths
