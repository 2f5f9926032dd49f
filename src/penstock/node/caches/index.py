"""All caches that a node follows: lines to their engines, and what is known of them."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest

import zmq.asyncio

from penstock.contract.caches import Ask, EngineFigures, FollowedEngine, Found
from penstock.node import log_events
from penstock.node.caches.follower import Counted, Follower
from penstock.node.caches.mirror import Mirror, Room, number_blocks
from penstock.node.caches.subscription import FILES, SOCKETS, Subscription

_MOST_SOCKETS = 65_535
"""Of a context of ZeroMQ."""
_OTHER_FILES = 256
"""Workers' connections among them."""


@dataclass(slots=True)
class _Engine:
    counts: Counter[Counted]
    lines: list[Subscription] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    emptied_count: int = 0

    def mirrors(self) -> Iterator[Mirror]:
        """Yield what is known of each of its ranks that has something."""
        return (
            mirror
            for line in self.lines
            for mirror in line.follower.mirrors.values()
            if len(mirror)
        )


class Index:
    """Follows engines.

    Args:
        on_emptied: Told of each engine that emptied a cache, or started anew.
        most_lines: To ranks of engines, at a time.
    """

    def __init__(self, on_emptied: Callable[[FollowedEngine], None], most_lines: int) -> None:
        """See the class."""
        self._on_emptied = on_emptied
        self._most_lines = most_lines
        self._context = zmq.asyncio.Context()
        self._context.set(zmq.MAX_SOCKETS, self._context.get(zmq.SOCKET_LIMIT))  # else 1,023
        self._room = Room()
        self._engines: dict[FollowedEngine, _Engine] = {}

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
        if len(self._engines) < len(wanted):
            log_events.KV_EVENTS_OF_TOO_MANY.log(
                engines=len(wanted), followed=len(self._engines), most_lines=self._most_lines
            )

    async def close(self) -> None:
        """Follow nobody any more."""
        await self._drop([*self._engines])
        self._context.destroy(linger=0)

    def figures(self) -> tuple[EngineFigures, ...]:
        """Return what is known of each engine."""
        return tuple(_figures(each, engine) for each, engine in self._engines.items())

    def find(self, ask: Ask, tokens: bytes, *, adapter: str, salt: str | None) -> Found:
        """Return which endpoints of an upstream have how much of a prompt.

        Args:
            ask: The question.
            tokens: The prompt's, packed.
            adapter: The LoRA adapter that it is for; "" for none.
            salt: What keeps it apart in caches.
        """
        numbers: dict[int, list[int]] = {}
        endpoints, heard = [], []
        for followed, engine in self._engines.items():
            if followed.upstream != ask.upstream:
                continue
            known = 0
            for mirror in engine.mirrors():
                size = mirror.block_size
                if size not in numbers:
                    numbers[size] = number_blocks(tokens, size, adapter=adapter, salt=salt)
                known = max(known, size * mirror.count_known(numbers[size]))
            if known:
                endpoints.append((followed.url, known))
            if all(line.is_heard for line in engine.lines):
                heard.append(followed.url)
        return Found(ask.number, tuple(endpoints), tuple(heard))

    def _start(self, followed: FollowedEngine, counts: Counter[Counted]) -> _Engine:
        engine = _Engine(counts)

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
                follower=Follower(self._room, counts),
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
