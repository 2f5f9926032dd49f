"""LoRA adapters: which endpoint has which, and having them loaded where requests need them.

Only what a deployment names is loaded, from where it says: workers ask by name alone. An adapter is
loaded once, whoever waits for it, at the endpoint that has the fewest; where there is no room for
it, the one that was used longest ago makes some, if it can be loaded again.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import httpx

from penstock.contract.exposition import Family
from penstock.contract.node import LoadedAdapters, UsedAdapters, WantAdapter
from penstock.contract.snapshot import Endpoint
from penstock.engines.adapters import is_full, is_loaded
from penstock.engines.operating import (
    LOAD_ADAPTER,
    UNLOAD_ADAPTER,
    find_operation,
    write_request,
)
from penstock.engines.registry import engine_of
from penstock.kit.clock import Clock
from penstock.node import log_events, metrics
from penstock.node.engine_clients import (
    EngineClients,
    FindToken,
    find_credential,
    read_words,
)
from penstock.node.health import Store
from penstock.node.model_lists import ask_for_list, read_entries

PERIOD_S = 5.0
"""From one reading of what endpoints have to the next: operators load adapters, too."""
LOAD_DEADLINE_S = 120.0
FAILED_S = 10.0
"""For how long nobody tries again to load an adapter that no endpoint loaded."""
RESIDES_S = 2.0
"""An adapter that was used or loaded more recently is not unloaded for another."""
_LIST_DEADLINE_S = 2.0
_MAKES_ROOM = 3
"""How many adapters are unloaded for one, at most: some servers count what is on its way out."""
_LOOK_S = 1.0
_AT_ONCE = 16
_TEXT_BYTES = 4096
_SHOWN_CHARS = 200
_OK = 200

Name = tuple[str, str]
"""An upstream's name, and that of an adapter there."""


class _Place(NamedTuple):
    """One endpoint of an upstream that has adapters, and how it is asked."""

    upstream: str
    endpoint: Endpoint
    provider: str
    credential: str | None
    tls_ca_file: str | None


class Adapters:
    """Knows where adapters are, and has them loaded.

    Args:
        store: Where upstreams and deployments are.
        clock: Measures periods.
        find_token: Returns what a reference to a credential stands for, if it can be had.
        tell: Passes on what workers need to know.
        states: Returns which endpoints can be asked, as far as that is known.
        random: Returns a number in [0, 1): nodes do not choose alike.
        transport: Replaces the network in tests.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        find_token: FindToken,
        tell: Callable[[LoadedAdapters], None],
        *,
        states: Callable[[], Mapping[tuple[str, str], bool]],
        random: Callable[[], float],
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """See the class."""
        self._store = store
        self._clock = clock
        self._find_token = find_token
        self._tell = tell
        self._states = states
        self._random = random
        self._readers = EngineClients(_LIST_DEADLINE_S, transport)
        self._loaders = EngineClients(LOAD_DEADLINE_S, transport)
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._paths: dict[Name, str | None] = {}
        """Where adapters are loaded from that some deployment names; None for nowhere."""
        self._seen: dict[_Place, frozenset[str] | None] = {}
        """What each endpoint has; None until it said so."""
        self._used_s: dict[tuple[_Place, str], float] = {}
        self._failed_until_s: dict[Name, float] = {}
        self._loading: dict[Name, asyncio.Task[None]] = {}
        self._busy: dict[_Place, asyncio.Lock] = {}
        self._begun: Counter[_Place] = Counter()
        """How often it was begun to load and unload there."""
        self._counts: Counter[tuple[str, ...]] = Counter()
        self._told = LoadedAdapters(())

    def messages(self) -> Iterable[LoadedAdapters]:
        """Return what workers are told, all of it; nothing where there are no adapters."""
        return (self._message(),) if self._paths else ()

    def families(self) -> Iterator[Family]:
        """Yield how often adapters were loaded, not loaded, and unloaded, by upstream."""
        counts = {name: float(count) for name, count in self._counts.items()}
        yield Family(metrics.ADAPTER_LOADS, counts)

    def hear(self, message: WantAdapter | UsedAdapters) -> None:
        """Have an adapter loaded if a deployment says from where, or note which ones are used."""
        if isinstance(message, UsedAdapters):
            now_s, by_name = self._clock.monotonic_s(), self._places_by_name()
            for upstream, url, adapter in message.used:
                place = by_name.get((upstream, url))
                if place is not None:
                    self._used_s[place, adapter] = now_s
            return
        name = message.upstream, message.adapter
        if self._paths.get(name) is None or name in self._loading or self._is_failing(name):
            return
        task = self._loading[name] = asyncio.create_task(self._serve(name))
        task.add_done_callback(lambda _: self._loading.pop(name, None))

    async def run(self) -> None:
        """Read what endpoints have until cancelled."""
        version, due_s = -1, float("-inf")
        try:
            while True:
                if self._store.version != version:
                    version = self._store.version
                    self._follow(*await asyncio.to_thread(self._read_store))
                    due_s = float("-inf")
                if self._clock.monotonic_s() >= due_s:
                    due_s = self._clock.monotonic_s() + PERIOD_S
                    await asyncio.gather(*map(self._read, self._seen))
                    self._publish(is_repeated=bool(self._paths))
                self._publish()
                await asyncio.sleep(_LOOK_S)
        finally:
            tasks = [*self._loading.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._readers.close()
            await self._loaders.close()

    # What there is

    def _read_store(self) -> tuple[dict[Name, str | None], list[_Place]]:
        paths: dict[Name, str | None] = {}
        for each in self._store.list_deployments():
            if each.adapter_of is not None:
                name = each.upstream, each.model
                paths[name] = paths.get(name) or each.adapter_path
        upstreams = {upstream for upstream, _ in paths}
        places = [
            _Place(each.name, endpoint, each.provider, each.credential, each.tls_ca_file)
            for each in self._store.list_upstreams()
            if each.name in upstreams and engine_of(each.provider).models_path
            for endpoint in each.plain_endpoints
        ]
        return paths, places

    def _follow(self, paths: dict[Name, str | None], places: list[_Place]) -> None:
        """Look at these from now on, and at no others."""
        self._paths = paths
        self._seen = {place: self._seen.get(place) for place in places}
        self._busy = {place: self._busy.get(place) or asyncio.Lock() for place in places}
        self._begun = Counter({place: self._begun[place] for place in places})
        self._used_s = {
            (place, adapter): at_s
            for (place, adapter), at_s in self._used_s.items()
            if place in self._seen and (place.upstream, adapter) in paths
        }
        self._failed_until_s = {
            name: until_s for name, until_s in self._failed_until_s.items() if name in paths
        }

    def _places_by_name(self) -> dict[tuple[str, str], _Place]:
        return {(place.upstream, place.endpoint.url): place for place in self._seen}

    async def _read(self, place: _Place) -> bool:
        """Look at what an endpoint has; return whether it said so.

        What it said while something was loaded or unloaded there may be older than what we know.
        """
        async with self._at_once:
            begun = -1 if self._is_busy(place) else self._begun[place]
            content = await ask_for_list(
                self._readers,
                self._find_token,
                place.endpoint,
                engine_of(place.provider).models_path or "",
                credential=place.credential,
                tls_ca_file=place.tls_ca_file,
            )
        entries = None if content is None else read_entries(content)
        if entries is None or place not in self._seen:
            return False
        if self._begun[place] == begun:
            names = (each.get("id") for each in entries if each.get("parent"))
            self._seen[place] = frozenset(name for name in names if isinstance(name, str))
        return True

    def _is_busy(self, place: _Place) -> bool:
        busy = self._busy.get(place)
        return busy is not None and busy.locked()

    # What workers are told

    def _is_failing(self, name: Name) -> bool:
        return self._failed_until_s.get(name, 0.0) > self._clock.monotonic_s()

    def _message(self) -> LoadedAdapters:
        there = (
            (
                place.upstream,
                place.endpoint.url,
                tuple(sorted(name for name in seen if (place.upstream, name) in self._paths)),
            )
            for place, seen in self._seen.items()
            if seen is not None
        )
        failing = filter(self._is_failing, self._failed_until_s)
        return LoadedAdapters(tuple(sorted(there)), tuple(sorted(failing)))

    def _publish(self, *, is_repeated: bool = False) -> None:
        message = self._message()
        if is_repeated or message != self._told:
            self._told = message
            self._tell(message)

    # Loading

    async def _serve(self, name: Name) -> None:
        """Load an adapter at one endpoint, and tell workers what came of it."""
        if not await self._load(name):
            self._failed_until_s[name] = self._clock.monotonic_s() + FAILED_S
        self._publish()

    async def _load(self, name: Name) -> bool:
        upstream, adapter = name
        places = [place for place in self._seen if place.upstream == upstream]
        answers = await asyncio.gather(*map(self._read, places))
        if any(adapter in (self._seen.get(place) or ()) for place in places):
            return True  # somebody else loaded it
        states = self._states()
        candidates = [
            place
            for place, has_answered in zip(places, answers, strict=True)
            if has_answered and states.get((upstream, place.endpoint.url)) is not False
        ]
        candidates.sort(key=lambda place: (self._crowd(place), self._random()))
        for place in candidates:
            if await self._load_at(place, adapter):
                return True
        return False

    def _crowd(self, place: _Place) -> int:
        """Return how many adapters an endpoint has or gets."""
        return len(self._seen.get(place) or ()) + self._is_busy(place)

    async def _load_at(self, place: _Place, adapter: str) -> bool:
        path = self._paths.get((place.upstream, adapter))
        lock = self._busy.get(place)
        if path is None or lock is None:  # a change took one of them away
            return False
        async with lock:
            self._begun[place] += 1
            for _ in range(1 + _MAKES_ROOM):
                reply = await self._do(place, LOAD_ADAPTER, lora_name=adapter, lora_path=path)
                status, text = reply or (None, "no answer")
                if status == _OK or is_loaded(text):
                    self._note_loaded(place, adapter)
                    return True
                if not is_full(text) or not await self._make_room(place):
                    break
        self._counts[place.upstream, "failed"] += 1
        log_events.ADAPTER_NOT_LOADED.log(
            adapter=adapter,
            upstream=place.upstream,
            endpoint=place.endpoint.url,
            said=text[:_SHOWN_CHARS],
        )
        return False

    async def _make_room(self, place: _Place) -> bool:
        """Unload the adapter that was used longest ago, once it was not for a moment."""
        oldest = self._find_oldest(place)
        if oldest is None:
            return False
        used_s = self._used_s.get((place, oldest), float("-inf"))
        pause_s = used_s + RESIDES_S - self._clock.monotonic_s()
        if pause_s > 0:
            await asyncio.sleep(pause_s)
            oldest = self._find_oldest(place) or oldest
        self._seen[place] = (self._seen.get(place) or frozenset()) - {oldest}
        self._publish()  # so that no request is on its way there
        reply = await self._do(place, UNLOAD_ADAPTER, lora_name=oldest)
        if reply is None:
            return False
        self._counts[place.upstream, "unloaded"] += 1
        log_events.ADAPTER_UNLOADED.log(
            adapter=oldest, upstream=place.upstream, endpoint=place.endpoint.url
        )
        return True

    def _find_oldest(self, place: _Place) -> str | None:
        """Return the adapter used longest ago of those that could be loaded again."""
        there = self._seen.get(place) or ()
        ours = [name for name in sorted(there) if self._paths.get((place.upstream, name))]
        return min(
            ours, key=lambda name: self._used_s.get((place, name), float("-inf")), default=None
        )

    def _note_loaded(self, place: _Place, adapter: str) -> None:
        self._counts[place.upstream, "loaded"] += 1
        log_events.ADAPTER_LOADED.log(
            adapter=adapter, upstream=place.upstream, endpoint=place.endpoint.url
        )
        if place in self._seen:
            self._used_s[place, adapter] = self._clock.monotonic_s()
            self._seen[place] = (self._seen[place] or frozenset()) | {adapter}

    async def _do(self, place: _Place, name: str, **arguments: str) -> tuple[int, str] | None:
        """Have an endpoint do something, and return status and words; None without an answer."""
        operation = find_operation(engine_of(place.provider), name)
        headers = find_credential(place.credential, self._find_token)
        if operation is None or headers is None:
            return None
        path, body = write_request(operation, arguments)
        headers["content-type"] = "application/json"
        try:
            reply = await self._loaders.ask(
                "POST",
                place.endpoint,
                path,
                place.tls_ca_file,
                most_bytes=_TEXT_BYTES,
                headers=headers,
                body=body,
            )
        except (httpx.HTTPError, httpx.InvalidURL, OSError):
            return None
        return reply.status, read_words(reply, headers, _TEXT_BYTES)
