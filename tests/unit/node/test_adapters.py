"""LoRA adapters as the agent sees and loads them, at emulated engines without a network."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from tests.fakes.served_upstreams import ServedUpstreams

from penstock.contract.node import LoadedAdapters, UsedAdapters, WantAdapter
from penstock.contract.snapshot import Deployment, Endpoint, Upstream
from penstock.emulator.kinds import Kind
from penstock.emulator.service import Service
from penstock.emulator.settings import EmulatorSettings
from penstock.emulator.statistics import Statistics
from penstock.engines.adapters import is_full, is_loaded
from penstock.kit.clock import ManualClock
from penstock.kit.envelope import SecretBytes
from penstock.node import adapters
from penstock.node.adapters import FAILED_S, PERIOD_S, RESIDES_S, Adapters

ONE, TWO = Endpoint("http", "10.0.0.1", 8000), Endpoint("http", "10.0.0.2", 8000)
CANARY = "canary-token-78"
PATIENCE_S = 20.0


class Engines:
    """Emulated engines by host, and what they were told to load and unload."""

    def __init__(self, **settings: Any) -> None:
        """Run two of the same settings."""
        made = EmulatorSettings(**settings)
        self.services = {each.host: Service(made, Statistics(keep=10)) for each in (ONE, TWO)}
        self.told: list[tuple[str, str, bytes]] = []
        self.away: set[str] = set()
        self.refusal: httpx.Response | None = None
        self.lists_wait: asyncio.Event | None = None
        """Holds up lists of what is there that were asked for already."""
        self.lists_waiting = 0

    async def respond(self, request: httpx.Request) -> httpx.Response:
        """Answer."""
        host, path = request.url.host, request.url.path
        await asyncio.sleep(0)
        if host in self.away:
            message = "nobody there"
            raise httpx.ConnectError(message)
        if request.method == "POST":
            self.told.append((host, path.rpartition("/")[2].partition("_")[0], request.content))
            if self.refusal is not None:
                return self.refusal
        service = self.services[host]
        script = service.answer(request.method.encode(), path.encode(), (), request.content).script
        status = int(script.head.split()[1])
        content = b"".join(script.steps())
        if request.method == "GET" and self.lists_wait is not None:
            self.lists_waiting += 1
            await self.lists_wait.wait()
            self.lists_waiting -= 1
        return httpx.Response(status, content=content)


class Node:
    """What the agent has of adapters, and what workers were told."""

    def __init__(self, engines: Engines, kind: Kind) -> None:
        """See `running`."""
        self.clock = ManualClock()
        self.told: list[LoadedAdapters] = []
        self.states: dict[tuple[str, str], bool] = {}
        catalog = ServedUpstreams(Upstream("gpu", kind, (ONE, TWO)))
        catalog.deployments = [Deployment("base", "gpu", "emulated-70b")] + [
            Deployment(name, "gpu", name, adapter_of="emulated-70b", adapter_path=path)
            for name, path in {"house": None, "a": "/a", "b": "/b", "c": "/c"}.items()
        ]
        self.catalog = catalog
        self.adapters = Adapters(
            catalog,
            self.clock,
            {"credential:c": SecretBytes(CANARY.encode())}.get,
            self.told.append,
            states=lambda: self.states,
            random=lambda: 0.5,
            transport=httpx.MockTransport(engines.respond),
        )

    def loaded(self) -> dict[str, tuple[str, ...]]:
        """Return what workers know, by host."""
        found = self.told[-1].endpoints if self.told else ()
        return {url.removeprefix("http://")[: len(ONE.host)]: there for _, url, there in found}

    async def want(self, *names: str) -> None:
        """Ask for adapters, and wait until each is there or is said to fail."""
        for name in names:
            self.adapters.hear(WantAdapter("gpu", name))
        await self.until(lambda: all(self._is_settled(name) for name in names))

    def _is_settled(self, name: str) -> bool:
        is_there = any(name in there for there in self.loaded().values())
        return is_there or ("gpu", name) in self.told[-1].failing

    async def until(self, is_so: Any) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(PATIENCE_S):
            while not is_so():  # noqa: ASYNC110 - nobody would tell
                await asyncio.sleep(0.005)

    def use(self, host: str, *names: str) -> None:
        """Have a worker say that it used adapters, a moment later."""
        for name in names:
            self.clock.advance(RESIDES_S)
            self.adapters.hear(UsedAdapters((("gpu", f"http://{host}:8000", name),)))
        self.clock.advance(RESIDES_S)


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "_LOOK_S", 0.005)


@asynccontextmanager
async def running(engines: Engines, kind: Kind = "vllm") -> AsyncIterator[Node]:
    """Run it until it has read what both engines have."""
    node = Node(engines, kind)
    task = asyncio.create_task(node.adapters.run())
    try:
        await node.until(lambda: len(node.loaded()) == 2 - len(engines.away))
        yield node
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_one_load_serves_all_who_want_it() -> None:
    """Wanted many times over, an adapter is loaded once, where the fewest are, from its path."""
    engines = Engines(kind="vllm")
    engines.services[ONE.host].answer(
        b"POST", b"/v1/load_lora_adapter", (), b'{"lora_name":"house","lora_path":"/h"}'
    )
    async with running(engines) as node:
        assert node.loaded() == {ONE.host: ("house",), TWO.host: ()}
        await node.want(*["a"] * 20)
        assert engines.told == [(TWO.host, "load", b'{"lora_name":"a","lora_path":"/a"}')]
        await node.want("a")
        assert len(engines.told) == 1


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
async def test_what_was_used_longest_ago_makes_room(kind: Kind) -> None:
    """A full engine lets go of the adapter that was used longest ago, never of others' adapters."""
    engines = Engines(kind=kind, adapter_limit=3, adapters="house")
    engines.away.add(TWO.host)
    async with running(engines, kind) as node:
        await node.want("a")
        await node.want("b")
        node.use(ONE.host, "b", "a")
        await node.want("c")
        assert [told[1] for told in engines.told] == ["load", "load", "load", "unload", "load"]
        assert node.loaded()[ONE.host] == ("a", "c", "house")
        seen = [message.endpoints[0][2] for message in node.told]
        assert ("a", "house") in seen, "workers are told before it is unloaded"


async def test_an_adapter_stays_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was just loaded is not unloaded for another until it had its time."""
    monkeypatch.setattr(adapters, "RESIDES_S", 0.2)
    engines = Engines(kind="vllm", adapter_limit=1)
    engines.away.add(TWO.host)
    async with running(engines) as node:
        await node.want("a")
        began_s = asyncio.get_running_loop().time()
        await node.want("b")
        assert asyncio.get_running_loop().time() - began_s >= 0.2
        assert [told[1] for told in engines.told] == ["load", "load", "unload", "load"]


async def test_what_cannot_be_loaded_is_said_and_tried_again_later() -> None:
    """All engines are tried; then nobody is for a while; then they are again."""
    engines = Engines(kind="vllm")
    engines.refusal = httpx.Response(404, text="No adapter found for /a")
    async with running(engines) as node:
        await node.want("a")
        assert node.told[-1].failing == (("gpu", "a"),)
        assert sorted(told[0] for told in engines.told) == [ONE.host, TWO.host]
        node.adapters.hear(WantAdapter("gpu", "a"))
        await node.want("a")
        assert len(engines.told) == 2
        (family,) = node.adapters.families()
        assert family.values == {("gpu", "failed"): 2.0}
        engines.refusal = None
        node.clock.advance(FAILED_S)
        await node.until(lambda: not node.told[-1].failing)
        await node.want("a")
        assert len(engines.told) == 3


async def test_a_credential_that_is_repeated_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What a server says of a load is logged, but for the token that it was shown."""
    engines = Engines(kind="vllm")
    engines.refusal = httpx.Response(403, text=f"Who is {CANARY}?")
    async with running(engines) as node:
        node.catalog.upstreams = [Upstream("gpu", "vllm", (ONE,), credential="credential:c")]
        node.catalog.version += 1
        await node.until(lambda: len(node.loaded()) == 1)
        await node.want("a")
    assert "Who is [redacted]?" in caplog.text
    assert CANARY not in caplog.text


async def test_only_what_a_deployment_names_is_loaded() -> None:
    """Nobody has an adapter loaded that has no path, or of which no deployment knows."""
    engines = Engines(kind="vllm")
    async with running(engines) as node:
        for upstream, name in (("gpu", "house"), ("gpu", "x"), ("x", "a"), ("gpu", "emulated-70b")):
            node.adapters.hear(WantAdapter(upstream, name))
        node.adapters.hear(UsedAdapters((("x", "http://x", "a"),)))
        await node.want("a")
        assert {told[2] for told in engines.told} == {b'{"lora_name":"a","lora_path":"/a"}'}


async def test_nothing_is_loaded_where_nothing_can_be_asked() -> None:
    """An endpoint that is away, or said that it is not ready, is passed over."""
    engines = Engines(kind="vllm")
    engines.away.add(ONE.host)
    async with running(engines) as node:
        await node.want("a")
        node.states["gpu", TWO.url] = False
        await node.want("b")
        assert node.told[-1].failing == (("gpu", "b"),)
        assert [told[0] for told in engines.told] == [TWO.host]


async def test_what_changes_elsewhere_is_seen() -> None:
    """Adapters that others load or unload are known after the next look; so is who is away."""
    engines = Engines(kind="vllm", adapters="a")
    async with running(engines) as node:
        engines.services[ONE.host].answer(
            b"POST", b"/v1/unload_lora_adapter", (), b'{"lora_name":"a"}'
        )
        node.clock.advance(PERIOD_S)
        await node.until(lambda: node.loaded() == {ONE.host: (), TWO.host: ("a",)})
        node.catalog.deployments = []
        node.catalog.version += 1
        await node.until(lambda: node.told[-1] == LoadedAdapters(()))
        assert not node.adapters.messages()


def test_words_are_known() -> None:
    """What servers say of adapters is told apart."""
    assert is_full("Cannot load: Maximum number of loaded LoRA adapters is 4.")
    assert is_full("No free lora slots")
    assert not is_full("No adapter found for /a")
    assert is_loaded("The lora adapter 'a' has already been loaded.")
    assert not is_loaded("cannot be loaded")


async def test_what_was_said_before_a_change_does_not_undo_it() -> None:
    """A list that was asked for before an adapter was loaded comes too late to count."""
    engines = Engines(kind="vllm")
    engines.away.add(TWO.host)
    async with running(engines) as node:
        held = engines.lists_wait = asyncio.Event()
        node.clock.advance(adapters.PERIOD_S)
        await node.until(lambda: engines.lists_waiting)
        engines.lists_wait = None
        await node.want("a")
        held.set()
        await node.until(lambda: not engines.lists_waiting)
        for _ in range(10):
            await asyncio.sleep(0)
        assert node.loaded()[ONE.host] == ("a",)
