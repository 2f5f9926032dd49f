"""How many tokens a request may have: read where servers list their models, now and then."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import httpx

from penstock.contract.node import ContextLengths
from penstock.contract.snapshot import Endpoint
from penstock.engines.registry import engine_of
from penstock.kit.clock import Clock
from penstock.node.engine_clients import EngineClients, FindToken
from penstock.node.health import Store, models_by_upstream
from penstock.node.model_lists import ask_for_list, read_entries

PERIOD_S = 300.0
"""From one reading of a list to the next: what it says changes when a server starts anew."""
AGAIN_S = 10.0
"""To the next one when there was no answer: the server may be starting."""
DEADLINE_S = 2.0
_LOOK_S = 1.0
_AT_ONCE = 16
_MAX_TOKENS = 2**40


class _Place(NamedTuple):
    """One endpoint, and how it is asked: one that changes makes none of the others another."""

    upstream: str
    endpoint: Endpoint
    path: str
    """Of its list of models."""
    member: str
    """What that calls context lengths."""
    models: frozenset[str]
    """Names that some deployment has for a model there."""
    credential: str | None
    tls_ca_file: str | None

    @property
    def name(self) -> tuple[str, str]:
        """What it is known by."""
        return self.upstream, self.endpoint.url


class Contexts:
    """Reads lists of models, and remembers what they said.

    Where endpoints of an upstream differ, the least counts: nobody knows which one answers.

    Args:
        store: Where upstreams and deployments are.
        clock: Measures periods.
        find_token: Returns what a reference to a credential stands for, if it can be had.
        tell: Passes on what workers need to know.
        transport: Replaces the network in tests.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        find_token: FindToken,
        tell: Callable[[ContextLengths], None],
        *,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """See the class."""
        self._store = store
        self._clock = clock
        self._find_token = find_token
        self._tell = tell
        self._clients = EngineClients(DEADLINE_S, transport)
        self._seen: dict[tuple[str, str], dict[str, int]] = {}
        self._due_s: dict[_Place, float] = {}
        self._at_once = asyncio.Semaphore(_AT_ONCE)

    def message(self) -> ContextLengths:
        """Return what workers are told: all of it."""
        least: dict[tuple[str, str], int] = {}
        for (upstream, _), lengths in self._seen.items():
            for model, tokens in lengths.items():
                place = upstream, model
                least[place] = min(tokens, least.get(place, tokens))
        return ContextLengths(tuple((*place, tokens) for place, tokens in sorted(least.items())))

    async def run(self) -> None:
        """Read until cancelled."""
        version = -1
        try:
            while True:
                before = self.message()
                if self._store.version != version:
                    version = self._store.version
                    self._follow(await asyncio.to_thread(self._list_places))
                now_s = self._clock.monotonic_s()
                due = [place for place, due_s in self._due_s.items() if due_s <= now_s]
                await asyncio.gather(*map(self._read, due))
                after = self.message()
                if after != before:
                    self._tell(after)
                await asyncio.sleep(_LOOK_S)
        finally:
            await self._clients.close()

    def _list_places(self) -> list[_Place]:
        models = models_by_upstream(self._store)
        places = []
        for upstream in self._store.list_upstreams():
            engine = engine_of(upstream.provider)
            path, member = engine.models_path, engine.context_member
            names = frozenset(models.get(upstream.name, ()))
            if path and member and names:
                credential, ca_file = upstream.credential, upstream.tls_ca_file
                places += [
                    _Place(upstream.name, at, path, member, names, credential, ca_file)
                    for at in upstream.plain_endpoints
                ]
        return places

    def _follow(self, places: list[_Place]) -> None:
        """Read the lists of these from now on, and of no others."""
        self._due_s = {place: self._due_s.get(place, float("-inf")) for place in places}
        names = {place.name for place in places}
        self._seen = {name: found for name, found in self._seen.items() if name in names}

    async def _read(self, place: _Place) -> None:
        async with self._at_once:
            content = await ask_for_list(
                self._clients,
                self._find_token,
                place.endpoint,
                place.path,
                credential=place.credential,
                tls_ca_file=place.tls_ca_file,
            )
        found = None if content is None else read_lengths(content, place.member)
        if found is not None:
            self._seen[place.name] = {
                model: tokens for model, tokens in found.items() if model in place.models
            }
        pause_s = AGAIN_S if found is None else PERIOD_S
        self._due_s[place] = self._clock.monotonic_s() + pause_s


def read_lengths(content: bytes, member: str) -> dict[str, int] | None:
    """Return the context lengths in a list of models, by their ids; None when it is no such list.

    >>> read_lengths(b'{"data": [{"id": "m", "most": 4096}, {"id": "n"}]}', "most")
    {'m': 4096}
    """
    entries = read_entries(content)
    if entries is None:
        return None
    lengths = {}
    for entry in entries:
        name, tokens = entry.get("id"), entry.get(member)
        if isinstance(name, str) and type(tokens) is int and 0 < tokens < _MAX_TOKENS:
            lengths[name] = tokens
    return lengths
