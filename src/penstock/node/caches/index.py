"""All caches that a node follows: lines to their engines, and what is known of them."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import zip_longest

import zmq.asyncio

from penstock.contract.caches import Ask, EngineFigures, FollowedEngine, Found
from penstock.node import log_events
from penstock.node.caches.follower import Counted, Follower
from penstock.node.caches.shelves import Room, Shelves
from penstock.node.caches.subscription import FILES, SOCKETS, Subscription

_MOST_SOCKETS = 65_535
"""Of a context of ZeroMQ."""
_AT_ONCE = 64
"""Engines that are looked at before others of the process have their turn."""
_OTHER_FILES = 256
"""Workers' connections among them."""


@dataclass(slots=True)
class _Engine:
    counts: Counter[Counted]
    lines: list[Subscription] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    emptied_count: int = 0


class Index:
    """Follows engines.

    Args:
        on_emptied: Told of each engine that emptied a cache, or started anew.
        most_lines: To ranks of engines, at a time.
        random: Returns a number in [0, 1).
    """

    def __init__(
        self,
        on_emptied: Callable[[FollowedEngine], None],
        most_lines: int,
        random: Callable[[], float],
    ) -> None:
        """See the class."""
        self._on_emptied = on_emptied
        self._most_lines = most_lines
        self._context = zmq.asyncio.Context()
        self._context.set(zmq.MAX_SOCKETS, self._context.get(zmq.SOCKET_LIMIT))  # else 1,023
        self._random = random
        self._room = Room()
        self._shelves: dict[str, Shelves] = {}
        """By upstream, who has which blocks."""
        self._engines: dict[FollowedEngine, _Engine] = {}
        self._by_name: dict[tuple[str, str], _Engine] = {}
        """The same by upstream and URL."""

    async def follow(self, engines: Iterable[FollowedEngine]) -> None:
        """Follow these from now on, and no others; of too many, those that were followed before.

        An engine's counts go on when it is followed in another way.
        """
        wanted = dict.fromkeys(engines)
        gone = [each for each in self._engines if each not in wanted]
        counts = {(each.upstream, each.url): self._engines[each].counts for each in gone}
        await self._drop(gone)
        left = self._most_lines - sum(len(each.events) for each in self._engines)
        for each in wanted:
            if each not in self._engines and len(each.events) <= left:
                before = counts.get((each.upstream, each.url), Counter[Counted]())
                self._engines[each] = self._start(each, before)
                left -= len(each.events)
        self._by_name = {(each.upstream, each.url): one for each, one in self._engines.items()}
        upstreams = {each.upstream for each in self._engines}
        self._shelves = {name: self._shelves[name] for name in upstreams}
        if len(self._engines) < len(wanted):
            log_events.KV_EVENTS_OF_TOO_MANY.log(
                engines=len(wanted), followed=len(self._engines), most_lines=self._most_lines
            )

    async def close(self) -> None:
        """Follow nobody any more."""
        await self._drop([*self._engines])
        self._context.destroy(linger=0)

    async def look(self) -> None:
        """Give lines up over which a message does not end: to be called each second."""
        for at, engine in enumerate([*self._engines.values()]):
            for line in engine.lines:
                line.look()
            if not at % _AT_ONCE:
                await asyncio.sleep(0)

    def figures(self) -> tuple[EngineFigures, ...]:
        """Return what is known of each engine."""
        return tuple(_figures(each, engine) for each, engine in self._engines.items())

    def find(self, ask: Ask, tokens: bytes, *, adapter: str, salt: str | None) -> Found:
        """Return which endpoints of an upstream have most of a prompt.

        Args:
            ask: The question.
            tokens: The prompt's, packed.
            adapter: The LoRA adapter that it is for; "" for none.
            salt: What keeps it apart in caches.
        """
        shelves = self._shelves.get(ask.upstream)
        if shelves is None:
            return Found(ask.number)
        turn = self._random()
        known, urls = shelves.find(tokens, adapter=adapter, salt=salt, turn=turn)
        if urls:
            return Found(ask.number, tuple((url, known) for url in urls))
        heard = tuple(url for url in ask.sent if self._is_heard(ask.upstream, url))
        return Found(ask.number, heard=heard)

    def _is_heard(self, upstream: str, url: str) -> bool:
        engine = self._by_name.get((upstream, url))
        return engine is not None and all(line.is_heard for line in engine.lines)

    def _start(self, followed: FollowedEngine, counts: Counter[Counted]) -> _Engine:
        engine = _Engine(counts)
        shelves = self._shelves.setdefault(followed.upstream, Shelves(self._room))

        def look() -> None:
            count = sum(line.follower.emptied_count for line in engine.lines)
            if count != engine.emptied_count:
                engine.emptied_count = count
                self._on_emptied(followed)

        for port, replay in zip_longest(followed.events, followed.replay):
            line = Subscription(
                self._context,
                followed.host,
                port,
                replay,
                follower=Follower(shelves, followed.url, counts),
                on_change=look,
            )
            engine.lines.append(line)
            engine.tasks.append(asyncio.create_task(line.run(), name="kv events"))
        return engine

    async def _drop(self, gone: list[FollowedEngine]) -> None:
        tasks = [task for each in gone for task in self._engines.pop(each).tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def count_lines(open_files: int) -> int:
    """Return to how many ranks of engines a process may have lines.

    Args:
        open_files: As many as it may have.
    """
    return min(_MOST_SOCKETS // SOCKETS, max(0, open_files - _OTHER_FILES) // FILES)


def _figures(followed: FollowedEngine, engine: _Engine) -> EngineFigures:
    lines, counts = engine.lines, engine.counts
    lags = [line.lag_s for line in lines if line.lag_s is not None]
    return EngineFigures(
        followed.upstream,
        followed.url,
        all(line.is_connected for line in lines),
        sum(len(line.follower) for line in lines),
        counts["events"],
        counts["unknown"],
        counts["gaps"],
        counts["resets"],
        counts["failures"],
        max(lags, default=None),
    )
