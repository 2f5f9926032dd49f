"""Which endpoints can be asked: each is asked for its health, as its kind of server is asked.

What is not known is never held against an endpoint: workers pass over those alone that said no, or
could not be reached, twice running, and for no longer than `BELIEVED_S` after that was last seen.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol
from urllib.parse import quote

import httpx

from penstock.contract.node import NotReady
from penstock.contract.snapshot import Deployment, Endpoint, Upstream
from penstock.engines.registry import engine_of
from penstock.kit.clock import Clock
from penstock.node import log_events
from penstock.node.engine_clients import EngineClients

PERIOD_S = 5.0
"""From one question to the next, give or take a quarter: nodes do not ask in step."""
DEADLINE_S = 1.0
"""Of a question; each endpoint is asked one thing at a time."""
BELIEVED_S = 15.0
"""What was seen longer ago says nothing about now."""
AGAIN_S = 1.0
"""From a first No to the next question."""
NO_AFTER = 2
"""So many times running: one slow answer of a busy server is no finding."""
TOLD_EVERY_S = 5.0
"""How often workers are told again that nothing changed."""
_LOOK_S = 1.0
_AT_ONCE = 32
_ANSWER_BYTES = 64 * 1024
_OK = 200
_SERVER_ERROR = 500
_MODEL = "{model}"


class Store(Protocol):
    """Where upstreams are."""

    @property
    def version(self) -> int:
        """Another number whenever something changed."""

    def list_upstreams(self) -> list[Upstream]:
        """Return all upstreams."""

    def list_deployments(self) -> list[Deployment]:
        """Return all deployments."""


class Place(NamedTuple):
    """One endpoint of one upstream, and how it is asked."""

    upstream: str
    endpoint: Endpoint
    paths: tuple[str, ...]
    """It can be asked when one of them says so."""
    is_about_models: bool
    """Whether each path is about one model."""
    tls_ca_file: str | None


@dataclass(slots=True)
class _Seen:
    """What is known of an endpoint."""

    is_ready: bool | None = None
    noes: int = 0
    at_s: float = field(default=float("-inf"))
    """When it last said yes or no."""


def models_by_upstream(store: Store) -> dict[str, set[str]]:
    """Return the names that deployments have for models, by upstream; adapters are their models."""
    models: dict[str, set[str]] = {}
    for deployment in store.list_deployments():
        models.setdefault(deployment.upstream, set()).add(deployment.base_model)
    return models


def list_places(store: Store) -> Iterator[Place]:
    """Yield every endpoint whose kind of server says how it is."""
    models = models_by_upstream(store)
    for upstream in store.list_upstreams():
        engine = engine_of(upstream.provider)
        path = engine.ready_path or engine.health_path
        if path is None or path in engine.never_polled:
            continue
        is_about_models = _MODEL in path
        names = sorted(models.get(upstream.name, ())) if is_about_models else [""]
        paths = tuple(path.replace(_MODEL, quote(name, safe="")) for name in names)
        if paths:
            for at in upstream.plain_endpoints:
                yield Place(upstream.name, at, paths, is_about_models, upstream.tls_ca_file)


def judge(status: int, body: bytes, *, is_about_model: bool) -> bool | None:
    """Return whether an answer says that requests can be sent; None when it does not say.

    Args:
        status: Of the answer.
        body: Its beginning.
        is_about_model: Whether a model was asked for: then one that is not found is not there.
    """
    if status == _OK:
        return b'"ready":false' not in body.replace(b" ", b"")
    if status >= _SERVER_ERROR:
        return False
    if is_about_model and status in {400, 404}:
        return False
    return None  # it wants a key, or has no such path: nothing is known


class Health:
    """Asks all endpoints, and remembers what they said.

    Args:
        store: Where they are.
        clock: Measures how old answers are.
        tell: Passes on what workers need to know.
        random: Returns a number in [0, 1).
        transport: Replaces the network in tests.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        tell: Callable[[NotReady], None],
        *,
        random: Callable[[], float],
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """See the class."""
        self._store = store
        self._clock = clock
        self._tell = tell
        self._random = random
        self._seen: dict[Place, _Seen] = {}
        self._asking: dict[Place, asyncio.Task[None]] = {}
        self._clients = EngineClients(DEADLINE_S, transport)
        self._at_once = asyncio.Semaphore(_AT_ONCE)

    def states(self) -> dict[tuple[str, str], bool]:
        """Return what is known now, by upstream and URL: whether the endpoint can be asked."""
        since_s = self._clock.monotonic_s() - BELIEVED_S
        return {
            (place.upstream, place.endpoint.url): seen.is_ready
            for place, seen in self._seen.items()
            if seen.is_ready is not None and seen.at_s >= since_s
        }

    def message(self) -> NotReady:
        """Return what workers are told: all of it, so each message stands for itself."""
        noes = [name for name, is_ready in self.states().items() if not is_ready]
        return NotReady(tuple(sorted(noes)), BELIEVED_S)

    async def run(self) -> None:
        """Ask until cancelled."""
        version, told, told_at_s = -1, self.message(), float("-inf")
        try:
            while True:
                for task in self._asking.values():
                    if task.done():  # none ends by itself
                        task.result()
                if self._store.version != version:
                    version = self._store.version
                    await self._follow(await asyncio.to_thread(lambda: [*list_places(self._store)]))
                message, now_s = self.message(), self._clock.monotonic_s()
                if message != told or now_s - told_at_s >= TOLD_EVERY_S:
                    told, told_at_s = message, now_s
                    self._tell(message)
                await asyncio.sleep(_LOOK_S)
        finally:
            await self._follow([])
            await self._clients.close()

    async def _follow(self, places: list[Place]) -> None:
        """Ask these from now on, and no others."""
        gone = self._asking.keys() - set(places)
        tasks = [self._asking.pop(place) for place in gone]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for place in gone:
            del self._seen[place]
        for place in places:
            if place not in self._asking:
                self._seen[place] = _Seen()
                self._asking[place] = asyncio.create_task(
                    self._keep_asking(place), name="health of an endpoint"
                )

    async def _keep_asking(self, place: Place) -> None:
        await asyncio.sleep(self._random() * min(PERIOD_S, _LOOK_S))
        while True:
            async with self._at_once:
                answers = [await self._ask(place, path) for path in place.paths]
            is_ready = _any_ready(answers)
            if is_ready is not None:
                self._note(place, is_ready=is_ready)
            is_doubted = 0 < self._seen[place].noes < NO_AFTER
            await asyncio.sleep(AGAIN_S if is_doubted else PERIOD_S * (0.75 + self._random() / 2))

    def _note(self, place: Place, *, is_ready: bool) -> None:
        seen = self._seen[place]
        seen.at_s = self._clock.monotonic_s()
        seen.noes = 0 if is_ready else seen.noes + 1
        if not is_ready and seen.noes < NO_AFTER:
            return
        if is_ready != (seen.is_ready is not False):
            event = log_events.ENDPOINT_READY if is_ready else log_events.ENDPOINT_NOT_READY
            event.log(upstream=place.upstream, endpoint=place.endpoint.url)
        seen.is_ready = is_ready

    async def _ask(self, place: Place, path: str) -> bool | None:
        try:
            reply = await self._clients.ask(
                "GET", place.endpoint, path, place.tls_ca_file, most_bytes=_ANSWER_BYTES
            )
            return judge(*reply, is_about_model=place.is_about_models)
        except (httpx.TransportError, TimeoutError):
            return False
        except (httpx.InvalidURL, httpx.HTTPError, OSError):
            return None  # what we cannot ask says nothing


def _any_ready(answers: list[bool | None]) -> bool | None:
    if True in answers:
        return True
    return False if answers and None not in answers else None
