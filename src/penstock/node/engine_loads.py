"""How busy engines say that they are, read from their pages of metrics (ADR 47).

Only where it decides something: an upstream with one endpoint leaves no choice. What changes when
it is read is never read (`Engine.never_polled`).
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import httpx
import msgspec

from penstock.contract.node import EngineLoads
from penstock.contract.snapshot import GRPC_SCHEMES, Endpoint, Upstream
from penstock.engines.load import Figures, find_strain, read_metrics
from penstock.engines.model import Load
from penstock.engines.registry import engine_of
from penstock.node.engine_clients import EngineClients
from penstock.node.health import Store

DEADLINE_S = 1.0
BELIEVED_PERIODS = 2.5
"""For how many periods workers believe what they were told, should nobody tell them more."""
_SPREAD_S = 1.0
"""Over how long the questions of a round are spread, at most: nodes do not ask in step."""
_OFF_LOOK_S = 3_600.0
_AT_ONCE = 16
_PAGE_BYTES = 2 * 1024 * 1024
_OK = 200

Name = tuple[str, str]
"""An upstream's name, and the URL of one of its endpoints."""


class _Page(NamedTuple):
    """Where a server says how busy it is."""

    endpoint: Endpoint
    load: Load
    tls_ca_file: str | None


class EngineLoadsReader:
    """Reads what all engines say, again and again, and tells workers.

    Args:
        store: Where upstreams are.
        tell: Passes on what workers need to know.
        period_s: From one round to the next, give or take a quarter; nothing is read when 0.
        states: Returns which endpoints can be asked, as far as that is known.
        random: Returns a number in [0, 1).
        transport: Replaces the network in tests.
    """

    def __init__(
        self,
        store: Store,
        tell: Callable[[EngineLoads], None],
        *,
        period_s: float,
        states: Callable[[], Mapping[Name, bool]],
        random: Callable[[], float],
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """See the class."""
        self._store = store
        self._tell = tell
        self._period_s = period_s
        self._states = states
        self._random = random
        self._clients = EngineClients(DEADLINE_S, transport)
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._pages: dict[_Page, list[Name]] = {}
        """Whose load each page tells: one server may be several endpoints."""
        self._seen: dict[_Page, Figures] = {}
        """What the pages said in this round, or in the last one where they were not read yet."""

    def message(self) -> EngineLoads:
        """Return what workers are told: all of it, so each message stands for itself."""
        found = [(*name, *msgspec.structs.astuple(figures)) for name, figures in self._by_name()]
        return EngineLoads(tuple(found), BELIEVED_PERIODS * self._period_s)

    def strains(self) -> dict[tuple[str, ...], float]:
        """Return how strained endpoints are, by upstream and URL, as far as they say it."""
        strains = ((name, find_strain(figures)) for name, figures in self._by_name())
        return {name: strain for name, strain in strains if strain is not None}

    def _by_name(self) -> Iterator[tuple[Name, Figures]]:
        for page, names in self._pages.items():
            figures = self._seen.get(page)
            if figures is not None:
                yield from ((name, figures) for name in names)

    async def run(self) -> None:
        """Read until cancelled."""
        version, told = -1, self.message()
        try:
            while True:
                if self._period_s and self._store.version != version:
                    version = self._store.version
                    self._pages = await asyncio.to_thread(list_pages, self._store)
                    for page in self._seen.keys() - self._pages:
                        del self._seen[page]
                await asyncio.gather(*map(self._read, self._pages))
                message = self.message()
                if message.endpoints or told.endpoints:
                    self._tell(message)
                told = message
                await asyncio.sleep(self._period_s * (0.75 + self._random() / 2) or _OFF_LOOK_S)
        finally:
            await self._clients.close()

    async def _read(self, page: _Page) -> None:
        """Take note of what a page says, or that it says nothing: what it said before is over."""
        await asyncio.sleep(self._random() * min(_SPREAD_S, self._period_s / 2))
        figures = None
        states = self._states()
        if any(states.get(name) is not False for name in self._pages[page]):
            async with self._at_once:
                figures = await self._ask(page)
        if figures is None:
            self._seen.pop(page, None)
        else:
            self._seen[page] = figures

    async def _ask(self, page: _Page) -> Figures | None:
        try:
            reply = await self._clients.ask(
                "GET", page.endpoint, page.load.path, page.tls_ca_file, most_bytes=_PAGE_BYTES
            )
        except (httpx.HTTPError, httpx.InvalidURL, OSError):
            return None
        return read_metrics(page.load, reply.body) if reply.status == _OK else None


def list_pages(store: Store) -> dict[_Page, list[Name]]:
    """Return every page that is to be read, and the endpoints whose load it tells."""
    pages: dict[_Page, list[Name]] = {}
    for upstream in store.list_upstreams():
        engine = engine_of(upstream.provider)
        load = engine.load
        if load is None or load.path in engine.never_polled:
            continue
        for endpoint, place in _places(upstream, load):
            page = _Page(place, load, upstream.tls_ca_file)
            pages.setdefault(page, []).append((upstream.name, endpoint.url))
    return pages


def _places(upstream: Upstream, load: Load) -> Iterator[tuple[Endpoint, Endpoint]]:
    """Yield the endpoints among which there is a choice, each with where its page is.

    A page on a port of its own is the same for HTTP and for gRPC.
    """
    choices = [upstream.plain_endpoints]
    if load.port is not None:
        choices.append(tuple(each for each in upstream.endpoints if each.scheme in GRPC_SCHEMES))
    for endpoints in choices:
        if len(endpoints) == 1:
            continue  # there is no other
        for each in endpoints:
            if load.port is None:
                yield each, msgspec.structs.replace(each, weight=1, engine="")
            else:
                yield each, Endpoint("http", each.host, load.port)
