"""Keeps what upstreams' sources of endpoints say where workers see it.

What was found last stays until a source says something else, also over restarts: a source that is
away, or says what cannot be used, takes nothing away. An endpoint that is gone gets no new request;
workers finish those that are on their way to it.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Protocol

import lmdb

from penstock.catalog.discovery import parse_source
from penstock.contract.exposition import Family
from penstock.contract.snapshot import MAX_FOUND, Endpoint, Upstream
from penstock.kit.addresses import Network, may_connect
from penstock.kit.clock import Clock
from penstock.node import log_events, metrics
from penstock.node.discovery.answer import Answer, Follow

PUBLISH_EVERY_S = 0.2
"""What changes in a burst is told together: each time, workers look at everything anew."""
_LOOK_S = 1.0

Found = Mapping[str, tuple[Endpoint, ...]]
"""Endpoints by source."""


class Store(Protocol):
    """Where upstreams are, and what was found for them."""

    @property
    def version(self) -> int:
        """Another number whenever something changed."""

    def list_upstreams(self) -> list[Upstream]:
        """Return all upstreams."""

    def list_found(self) -> dict[str, tuple[Endpoint, ...]]:
        """Return what was found last, by source."""

    def publish_found(self, found: Found, gone: Sequence[str]) -> None:
        """Put what was found, and drop what sources said that nobody names any more."""


@dataclass(slots=True)
class _State:
    """One source that upstreams name."""

    task: "asyncio.Task[None] | None" = None
    endpoints: tuple[Endpoint, ...] | None = None
    """None until it said something since the agent's start."""
    good_at_s: float = 0.0
    """When it said something last, or when it was first asked."""
    failures: int = 0
    fault: str = ""
    """What is wrong now."""
    has_answered: asyncio.Event = field(default_factory=asyncio.Event)


class Discovery:
    """Follows all sources that upstreams name.

    Args:
        store: Where they are, and what was found is put.
        clock: Measures how old answers are.
        follow: Asks one source, again and again.
        networks: Where endpoints have to be; anywhere but on this machine when there are none.
        on_change: Called when workers have something new to see.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        follow: Follow,
        networks: Sequence[Network],
        on_change: Callable[[], None],
    ) -> None:
        """See the class."""
        self._store = store
        self._clock = clock
        self._follow = follow
        self._networks = networks
        self._on_change = on_change
        self._states: dict[str, _State] = {}
        self._published = dict(store.list_found())
        self._version = -1
        self._changed = asyncio.Event()
        self._turn = asyncio.Lock()

    @property
    def failing(self) -> tuple[str, ...]:
        """Sources whose last answer could not be used, or not all of it."""
        return tuple(sorted(name for name, state in self._states.items() if state.fault))

    def families(self) -> Iterator[Family]:
        """Yield what is known of each source, by its text."""
        now_s, states = self._clock.monotonic_s(), self._states
        yield Family(
            metrics.DISCOVERY_ENDPOINTS,
            {(name,): float(len(self._published.get(name, ()))) for name in states},
        )
        yield Family(
            metrics.DISCOVERY_AGE,
            {(name,): now_s - state.good_at_s for name, state in states.items()},
        )
        yield Family(
            metrics.DISCOVERY_FAILURES,
            {(name,): float(state.failures) for name, state in states.items()},
        )

    async def look(self, patience_s: float) -> None:
        """Ask the sources of new upstreams, and wait for what they say first.

        So an upstream has endpoints as soon as workers know of it.

        Args:
            patience_s: For no longer than this; what comes later is told later.
        """
        async with self._turn:
            await self._ask_named()
            waits = [
                asyncio.create_task(state.has_answered.wait())
                for name, state in self._states.items()
                if name not in self._published and not state.has_answered.is_set()
            ]
            if waits:
                _, late = await asyncio.wait(waits, timeout=patience_s)
                for each in late:
                    each.cancel()
            await self._publish()

    async def run(self) -> None:
        """Follow until cancelled."""
        try:
            while True:
                self._raise_faults()
                if await self._has_news():
                    async with self._turn:
                        await self._ask_named()
                        is_new = await self._publish()
                    if is_new:
                        self._on_change()
                await asyncio.sleep(PUBLISH_EVERY_S)
        finally:
            await self._stop([*self._states])

    def _raise_faults(self) -> None:
        """Raise what went wrong in a task that ended, which none does by itself."""
        for state in self._states.values():
            if state.task is not None and state.task.done():
                state.task.result()

    async def _has_news(self) -> bool:
        """Wait a while for a source to say something; look whether others are named now."""
        try:
            async with asyncio.timeout(_LOOK_S):
                await self._changed.wait()
        except TimeoutError:
            return self._store.version != self._version
        self._changed.clear()
        return True

    async def _ask_named(self) -> None:
        """Ask the sources that upstreams name now, and no others."""
        version = self._store.version
        if version == self._version:
            return
        upstreams = await asyncio.to_thread(self._store.list_upstreams)
        self._version = version
        named = {each.discover for each in upstreams if each.discover is not None}
        await self._stop([name for name in self._states if name not in named])
        for name in named - self._states.keys():
            state = self._states[name] = _State(good_at_s=self._clock.monotonic_s())
            state.task = asyncio.create_task(self._keep_asking(name, state), name=f"source {name}")

    async def _stop(self, names: Sequence[str]) -> None:
        tasks = [task for name in names if (task := self._states.pop(name).task) is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep_asking(self, name: str, state: _State) -> None:
        try:
            source = parse_source(name)
        except ValueError as error:  # of another version's control plane
            self._take(name, state, Answer(None, str(error)))
            return
        while True:
            try:
                async with aclosing(self._follow(source)) as answers:
                    async for answer in answers:
                        self._take(name, state, answer)
            except (OSError, ValueError) as error:  # what nobody thought of: it starts anew
                self._take(name, state, Answer(None, f"{type(error).__name__}: {error}"))
            await asyncio.sleep(_LOOK_S)

    def _take(self, name: str, state: _State, answer: Answer) -> None:
        endpoints, fault = self._judge(answer, frozenset(state.endpoints or ()))
        if endpoints is not None:
            state.good_at_s = self._clock.monotonic_s()
            if endpoints != state.endpoints:
                state.endpoints = endpoints
                self._changed.set()
        state.failures += bool(fault)
        if fault != state.fault:
            _tell(name, fault)
        state.fault = fault
        state.has_answered.set()

    def _judge(
        self, answer: Answer, known: frozenset[Endpoint]
    ) -> tuple[tuple[Endpoint, ...] | None, str]:
        """Return what of an answer can be used, each once and in order, and what is wrong.

        Of an address that is said in several ways one counts: it would have the share of several.

        Args:
            answer: What a source says; those behind `MAX_FOUND`, by name, are left out.
            known: What was allowed before, and is not looked at again.
        """
        if answer.endpoints is None:
            return None, answer.fault
        said = frozenset(answer.endpoints)
        allowed = {each for each in said if each in known or self._is_allowed(each)}
        ordered = sorted(allowed, key=_place_first)
        single = tuple({(each.url, each.server_name): each for each in ordered}.values())
        kept = single[:MAX_FOUND]
        if len(kept) < len(single):
            return kept, f"it has more than {MAX_FOUND} endpoints"
        if len(allowed) == len(said):
            return kept, answer.fault
        # When there is no other, who can be wrong is the source: then what was known stays.
        return kept or None, "it has an address that endpoints may not have"

    def _is_allowed(self, endpoint: Endpoint) -> bool:
        try:
            address = ip_address(endpoint.host)
        except ValueError:
            return not self._networks  # nobody knows where a name leads when it is used
        return may_connect(address, self._networks)

    async def _publish(self) -> bool:
        """Put what changed where workers see it; return whether anything did."""
        found = {
            name: state.endpoints
            for name, state in self._states.items()
            if state.endpoints is not None and state.endpoints != self._published.get(name)
        }
        gone = [name for name in self._published if name not in self._states]
        if not found and not gone:
            return False
        try:
            await asyncio.to_thread(self._store.publish_found, found, gone)
        except (OSError, lmdb.Error) as error:
            log_events.ENDPOINTS_NOT_SAVED.log(error=error)
            self._changed.set()
            return False
        self._published.update(found)
        for name in gone:
            del self._published[name]
        log_events.ENDPOINTS_FOUND.log(counts={name: len(each) for name, each in found.items()})
        return True


def _place_first(endpoint: Endpoint) -> tuple[str, str, str, int]:
    """Return what endpoints are ordered by; what says most of an address comes last of it."""
    return endpoint.url, endpoint.server_name, endpoint.engine, endpoint.weight


def _tell(source: str, fault: str) -> None:
    if fault:
        log_events.DISCOVERY_FAILED.log(source=source, error=fault)
    else:
        log_events.DISCOVERY_WORKS_AGAIN.log(source=source)
