"""How endpoints are asked whether they can be asked, and what is made of what they say."""

import asyncio
import contextlib
import gzip
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
from tests.fakes.served_upstreams import ServedUpstreams

from penstock.contract.node import NotReady
from penstock.contract.snapshot import Endpoint, Upstream
from penstock.engines.registry import ENGINES
from penstock.kit.clock import ManualClock
from penstock.node import health
from penstock.node.engine_clients import EngineClients
from penstock.node.health import BELIEVED_S, NO_AFTER, Health, judge, list_places

ONE, TWO = Endpoint("http", "10.0.0.1", 8000), Endpoint("http", "10.0.0.2", 8000, "/two")


class Servers:
    """All servers: what they answer, by host, and what they were asked."""

    def __init__(self) -> None:
        """All is well."""
        self.answers: dict[str, httpx.Response | httpx.ConnectError | None] = {}
        self.asked: Counter[str] = Counter()
        self.at_once: Counter[str] = Counter()
        self.most_at_once = 0

    async def respond(self, request: httpx.Request) -> httpx.Response:
        """Answer; for ever when there is None."""
        host = request.url.host
        assert request.method == "GET"
        assert "authorization" not in request.headers
        self.asked[str(request.url)] += 1
        self.at_once[host] += 1
        self.most_at_once = max(self.most_at_once, self.at_once[host])
        try:
            answer = self.answers.get(host, httpx.Response(200))
            await asyncio.sleep(3600 if answer is None else 0.001)
        finally:
            self.at_once[host] -= 1
        if isinstance(answer, httpx.ConnectError):
            raise answer
        assert answer is not None
        return httpx.Response(answer.status_code, content=answer.content)


@asynccontextmanager
async def asking(
    catalog: ServedUpstreams, servers: Servers, clock: ManualClock
) -> AsyncIterator[tuple[Health, list[NotReady]]]:
    """Ask as fast as it goes."""
    told: list[NotReady] = []
    asker = Health(
        catalog,
        clock,
        told.append,
        random=lambda: 0.0,
        transport=httpx.MockTransport(servers.respond),
    )
    task = asyncio.create_task(asker.run())
    try:
        yield asker, told
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PERIOD_S", 0.004)
    monkeypatch.setattr(health, "AGAIN_S", 0.004)
    monkeypatch.setattr(health, "DEADLINE_S", 20.0)
    monkeypatch.setattr(health, "_LOOK_S", 0.005)


async def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.005)


def test_no_kind_is_asked_where_reading_changes_something() -> None:
    """No kind is asked at a path that takes from other readers, or makes it work."""
    for engine in ENGINES.values():
        asked = {engine.health_path, engine.ready_path, engine.models_path} - {None}
        assert asked.isdisjoint(engine.never_polled)
        assert not any("generate" in path for path in asked if path)


@pytest.mark.parametrize(
    ("provider", "paths"),
    [
        ("vllm", ("/health",)),
        ("sglang", ("/ready",)),
        ("trtllm", ("/health",)),
        ("triton", ("/v2/models/a%2Fb/ready", "/v2/models/c/ready")),
        ("dynamo", ("/v1/models/a%2Fb/ready", "/v1/models/c/ready")),
        ("nim", ("/v1/health/ready",)),
        ("llama_cpp", ("/health",)),
        ("openai_compatible", None),
        ("somebody", None),
    ],
)
def test_each_kind_is_asked_in_its_way(provider: str, paths: tuple[str, ...] | None) -> None:
    """The adapter says where; a company's service is asked nothing at all."""
    catalog = ServedUpstreams(Upstream("gpu", provider, (ONE, TWO)), models=("c", "a/b", "c"))
    places = list(list_places(catalog))
    assert [place.endpoint for place in places] == ([] if paths is None else [ONE, TWO])
    assert {place.paths for place in places} == (set() if paths is None else {paths})


@pytest.mark.parametrize(
    ("status", "body", "of_server", "of_model"),
    [
        (200, b"", True, True),
        (200, b'{"ready": true}', True, True),
        (200, b'{"model":"m","ready": false}', False, False),
        (503, b"", False, False),
        (500, b"", False, False),
        (404, b"", None, False),
        (400, b"", None, False),
        (401, b"", None, None),
        (302, b"", None, None),
        (429, b"", None, None),
    ],
)
def test_answers_say_yes_no_or_nothing(
    status: int,
    body: bytes,
    of_server: bool | None,  # noqa: FBT001 - a table
    of_model: bool | None,  # noqa: FBT001
) -> None:
    """A wish for a key, or a path that is not there, says nothing about a server."""
    assert judge(status, body, is_about_model=False) is of_server
    assert judge(status, body, is_about_model=True) is of_model


@pytest.mark.parametrize(
    "answer", [httpx.Response(503), httpx.ConnectError("away"), None], ids=["no", "away", "silent"]
)
async def test_one_that_says_no_is_told_of_until_it_says_yes(
    answer: httpx.Response | httpx.ConnectError | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers hear of an endpoint after two Noes, and again when it is back; of others nothing."""
    if answer is None:
        monkeypatch.setattr(health, "DEADLINE_S", 0.3)
    servers, clock = Servers(), ManualClock()
    servers.answers[TWO.host] = answer
    catalog = ServedUpstreams(Upstream("gpu", "vllm", (ONE, TWO)))
    async with asking(catalog, servers, clock) as (asker, told):
        await _until(lambda: told and told[-1].endpoints)
        assert told[-1] == NotReady((("gpu", "http://10.0.0.2:8000/two"),), BELIEVED_S)
        assert servers.asked["http://10.0.0.2:8000/two/health"] >= NO_AFTER
        assert asker.states()["gpu", ONE.url]
        servers.answers.clear()
        await _until(lambda: not told[-1].endpoints)
        assert servers.most_at_once == 1


async def test_one_no_is_no_finding() -> None:
    """Of a server that says No now and then nothing is told."""
    servers = Servers()
    catalog = ServedUpstreams(Upstream("gpu", "vllm", (ONE,)))
    flips = [httpx.Response(503), httpx.Response(200)]

    async def respond(request: httpx.Request) -> httpx.Response:
        servers.answers[ONE.host] = flips[servers.asked.total() % 2]
        return await Servers.respond(servers, request)

    told: list[NotReady] = []
    asker = Health(
        catalog,
        ManualClock(),
        told.append,
        random=lambda: 0.0,
        transport=httpx.MockTransport(respond),
    )
    task = asyncio.create_task(asker.run())
    await _until(lambda: servers.asked.total() > 6)
    task.cancel()
    assert not any(message.endpoints for message in told)


async def test_what_was_seen_long_ago_says_nothing() -> None:
    """When a server stops to say anything, what it said last is forgotten."""
    servers, clock = Servers(), ManualClock()
    servers.answers[ONE.host] = httpx.Response(503)
    async with asking(ServedUpstreams(Upstream("gpu", "vllm", (ONE,))), servers, clock) as (
        asker,
        told,
    ):
        await _until(lambda: told and told[-1].endpoints)
        servers.answers[ONE.host] = httpx.Response(401)
        count = servers.asked.total()
        await _until(lambda: servers.asked.total() > count + 1)
        clock.advance(BELIEVED_S + 1)
        assert asker.states() == {}
        await _until(lambda: not told[-1].endpoints)


async def test_a_server_is_ready_when_one_of_its_models_is() -> None:
    """Only when none can be asked it is passed over; who is gone is asked no more."""
    servers, clock = Servers(), ManualClock()
    servers.answers[ONE.host] = httpx.Response(404)
    catalog = ServedUpstreams(Upstream("gpu", "dynamo", (ONE, TWO)), models=("a", "b"))
    async with asking(catalog, servers, clock) as (asker, told):
        await _until(lambda: told and told[-1].endpoints)
        assert asker.states() == {("gpu", ONE.url): False, ("gpu", TWO.url): True}
        catalog.upstreams = [Upstream("gpu", "dynamo", (TWO,))]
        catalog.version = 2
        await _until(lambda: list(asker.states()) == [("gpu", TWO.url)])
        assert not asker.message().endpoints


async def test_what_is_compressed_is_not_unfolded() -> None:
    """Engines are asked for plain answers; one that is compressed all the same is not read."""
    asked: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        bomb = gzip.compress(bytes(1024 * 1024))
        return httpx.Response(200, content=bomb, headers={"content-encoding": "gzip"})

    clients = EngineClients(20.0, httpx.MockTransport(respond))
    with pytest.raises(httpx.HTTPError):
        await clients.ask("GET", ONE, "/health", None, most_bytes=9)
    await clients.close()
    assert [each.headers["accept-encoding"] for each in asked] == ["identity"]


async def test_an_endpoint_that_was_found_is_asked_by_its_name() -> None:
    """`Host` and the name that its certificate must have are those it was found under."""
    asked: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200)

    clients = EngineClients(1.0, httpx.MockTransport(respond))
    found = Endpoint("http", "10.0.0.1", 8000, server_name="gpu.example")
    assert await clients.ask("GET", found, "/health", None, most_bytes=9) == (200, b"")
    await clients.close()
    [request] = asked
    assert str(request.url) == "http://10.0.0.1:8000/health"
    assert request.headers["host"] == "gpu.example:8000"
    assert request.extensions["sni_hostname"] == "gpu.example"


async def test_a_bug_in_asking_ends_all_of_it() -> None:
    """It is raised where the agent sees it, and no endpoint is left unasked in silence."""

    def respond(_request: httpx.Request) -> httpx.Response:
        message = "a bug"
        raise RuntimeError(message)

    catalog = ServedUpstreams(Upstream("gpu", "vllm", (ONE, TWO)))
    asker = Health(
        catalog,
        ManualClock(),
        lambda _: None,
        random=lambda: 0.0,
        transport=httpx.MockTransport(respond),
    )
    with pytest.raises(RuntimeError, match="a bug"):
        await asyncio.wait_for(asker.run(), 20)
