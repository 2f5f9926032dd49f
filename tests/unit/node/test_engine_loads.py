"""How engines are asked how busy they are, and what workers hear of it."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import httpx
import pytest
from tests.fakes.served_upstreams import ServedUpstreams

from penstock.catalog.rules import parse_endpoints
from penstock.contract.node import EngineLoads
from penstock.contract.snapshot import Endpoint, Upstream
from penstock.engines.registry import ENGINES
from penstock.node.engine_loads import BELIEVED_PERIODS, EngineLoadsReader, list_pages

ONE, TWO = Endpoint("http", "10.0.0.1", 8000), Endpoint("http", "10.0.0.2", 8000, weight=3)
PERIOD_S = 0.004
BUSY = b"vllm:num_requests_running 6\nvllm:num_requests_waiting 2\nvllm:kv_cache_usage_perc 0.5\n"


class Servers:
    """All servers: their pages by host, and what they were asked."""

    def __init__(self) -> None:
        """None has a page."""
        self.pages: dict[str, bytes] = {}
        self.silent: set[str] = set()
        """Hosts that take a question and never answer."""
        self.states: dict[tuple[str, str], bool] = {}
        self.asked: Counter[str] = Counter()
        self.at_once: Counter[str] = Counter()
        self.most_at_once = 0

    async def respond(self, request: httpx.Request) -> httpx.Response:
        """Answer with a page, or that there is none."""
        url = str(request.url)
        assert "authorization" not in request.headers
        self.asked[url] += 1
        self.at_once[url] += 1
        self.most_at_once = max(self.most_at_once, self.at_once[url])
        try:
            await asyncio.sleep(3600 if request.url.host in self.silent else 0.001)
        finally:
            self.at_once[url] -= 1
        page = self.pages.get(request.url.host)
        return httpx.Response(404) if page is None else httpx.Response(200, content=page)


@asynccontextmanager
async def reading(
    catalog: ServedUpstreams, servers: Servers, period_s: float = PERIOD_S
) -> AsyncIterator[tuple[EngineLoadsReader, list[EngineLoads]]]:
    """Read as fast as it goes."""
    told: list[EngineLoads] = []

    def states() -> Mapping[tuple[str, str], bool]:
        return servers.states

    reader = EngineLoadsReader(
        catalog,
        told.append,
        period_s=period_s,
        states=states,
        random=lambda: 0.5,
        transport=httpx.MockTransport(servers.respond),
    )
    task = asyncio.create_task(reader.run())
    try:
        yield reader, told
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.005)


def _asked(provider: str, *endpoints: Endpoint) -> dict[str, list[str]]:
    """Return what is asked, and whose load each tells."""
    catalog = ServedUpstreams(Upstream("gpu", provider, endpoints))
    return {
        page.endpoint.url + page.load.path: [url for _, url in names]
        for page, names in list_pages(catalog).items()
    }


def test_each_kind_is_asked_where_it_says_it() -> None:
    """The adapter says where: never where reading takes from other readers, nor of one endpoint."""
    assert _asked("vllm", ONE, TWO) == {
        "http://10.0.0.1:8000/metrics": [ONE.url],
        "http://10.0.0.2:8000/metrics": [TWO.url],
    }
    assert next(iter(_asked("trtllm", ONE, TWO))) == "http://10.0.0.1:8000/prometheus/metrics"
    assert _asked("vllm", ONE) == {}
    assert _asked("openai_compatible", ONE, TWO) == {}
    for name, engine in ENGINES.items():
        paths = {httpx.URL(url).path for url in _asked(name, ONE, TWO)}
        assert paths.isdisjoint(engine.never_polled)


def test_each_rank_is_asked_at_its_own_port() -> None:
    """Several ports behind one address are as many servers, and each page tells of its own."""
    ranks = parse_endpoints("http://10.0.0.1:8000-8002")
    assert _asked("vllm", *ranks) == {f"{each.url}/metrics": [each.url] for each in ranks}
    assert [each.port for each in ranks] == [8000, 8001, 8002]


def test_one_page_tells_of_all_endpoints_of_a_server() -> None:
    """Triton's is on a port of its own, by plain HTTP: whoever speaks to it, and how."""
    by_grpc = [Endpoint("grpcs", host.host, 8001) for host in (ONE, TWO)]
    tls = Endpoint("https", "10.0.0.1", 8443)
    assert _asked("triton", ONE, tls, *by_grpc) == {
        "http://10.0.0.1:8002/metrics": [ONE.url, tls.url, by_grpc[0].url],
        "http://10.0.0.2:8002/metrics": [by_grpc[1].url],
    }
    assert _asked("triton", ONE, *by_grpc).keys() == {
        "http://10.0.0.1:8002/metrics",
        "http://10.0.0.2:8002/metrics",
    }
    assert _asked("triton", ONE, by_grpc[0]) == {}


async def test_workers_hear_what_engines_say_until_they_say_nothing() -> None:
    """A page that is not there any more, or a server that is away, takes back what was said."""
    servers = Servers()
    servers.pages[ONE.host] = BUSY
    catalog = ServedUpstreams(Upstream("gpu", "vllm", (ONE, TWO)))
    async with reading(catalog, servers) as (reader, told):
        await _until(lambda: told)
        assert told[0] == EngineLoads(
            (("gpu", ONE.url, 6.0, 2.0, 0.5),), BELIEVED_PERIODS * PERIOD_S
        )
        assert reader.strains() == {("gpu", ONE.url): 0.5}
        servers.pages[TWO.host] = b"vllm:num_requests_waiting 4\n"
        await _until(lambda: len(told[-1].endpoints) == 2)
        assert told[-1].endpoints[1] == ("gpu", TWO.url, None, 4.0, None)
        del servers.pages[TWO.host]
        await _until(lambda: len(told[-1].endpoints) == 1)
        servers.pages.clear()
        await _until(lambda: not told[-1].endpoints)
        count, rounds = len(told), servers.asked.total()
        await _until(lambda: servers.asked.total() > rounds + 8)
        assert len(told) == count, "nothing was said, so nothing is told"
        assert servers.most_at_once == 1


async def test_who_cannot_be_asked_is_not_waited_for() -> None:
    """An endpoint that is known to be away is not read, and what it said is forgotten."""
    servers = Servers()
    servers.pages = {ONE.host: BUSY, TWO.host: BUSY}
    catalog = ServedUpstreams(Upstream("gpu", "vllm", (ONE, TWO)))
    async with reading(catalog, servers) as (_, told):
        await _until(lambda: told and len(told[-1].endpoints) == 2)
        servers.states["gpu", ONE.url] = False
        await _until(lambda: len(told[-1].endpoints) == 1)
        before = servers.asked[ONE.url + "/metrics"]
        rounds = servers.asked.total()
        await _until(lambda: servers.asked.total() > rounds + 4)
        assert servers.asked[ONE.url + "/metrics"] == before


async def test_a_page_that_never_comes_holds_no_other_up() -> None:
    """After a second it is given up, and asked for again; what the others say is told meanwhile."""
    servers = Servers()
    servers.pages = {ONE.host: BUSY, TWO.host: BUSY}
    servers.silent.add(ONE.host)
    catalog = ServedUpstreams(Upstream("gpu", "vllm", (ONE, TWO)))
    async with reading(catalog, servers) as (_, told):
        await _until(lambda: servers.asked[ONE.url + "/metrics"] > 1 and told)
        await _until(lambda: [url for _, url, *_ in told[-1].endpoints] == [TWO.url])
        assert servers.most_at_once == 1


async def test_who_is_gone_is_read_no_more() -> None:
    """With one endpoint left nothing is read, and nothing is said of any."""
    servers = Servers()
    servers.pages = {ONE.host: BUSY, TWO.host: BUSY}
    catalog = ServedUpstreams(Upstream("gpu", "vllm", (ONE, TWO)))
    async with reading(catalog, servers) as (reader, told):
        await _until(lambda: told and len(told[-1].endpoints) == 2)
        catalog.upstreams = [Upstream("gpu", "vllm", (TWO,))]
        catalog.version = 2
        await _until(lambda: not told[-1].endpoints)
        assert reader.strains() == {}


async def test_nothing_is_read_when_nobody_wants_to_know() -> None:
    """With a period of 0 no engine is asked."""
    servers = Servers()
    catalog = ServedUpstreams(Upstream("gpu", "vllm", (ONE, TWO)))
    async with reading(catalog, servers, 0.0) as (reader, told):
        await asyncio.sleep(0.05)
        assert reader.message() == EngineLoads((), 0.0)
    assert (servers.asked.total(), told) == (0, [])


@pytest.mark.parametrize("page", [b"\xff" * 10, b"vllm:num_requests_waiting many\n", b""])
async def test_pages_of_nonsense_say_nothing(page: bytes) -> None:
    """Whatever stands there, the other endpoints are heard."""
    servers = Servers()
    servers.pages = {ONE.host: page, TWO.host: BUSY}
    catalog = ServedUpstreams(Upstream("gpu", "vllm", (ONE, TWO)))
    async with reading(catalog, servers) as (_, told):
        await _until(lambda: told)
        assert [url for _, url, *_ in told[-1].endpoints] == [TWO.url]
