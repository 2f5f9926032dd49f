"""All caches that a node follows: lines to their engines, and what is known of them."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest

import zmq.asyncio

from penstock.contract.caches import Ask, EngineFigures, FollowedEngine, Found
from penstock.node.caches.follower import Counted, Follower
from penstock.node.caches.mirror import Mirror, Room, number_blocks
from penstock.node.caches.subscription import Subscription


@dataclass(slots=True)
class _Engine:
    lines: list[Subscription]
    tasks: list[asyncio.Task[None]]
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
    """

    def __init__(self, on_emptied: Callable[[FollowedEngine], None]) -> None:
        """See the class."""
        self._on_emptied = on_emptied
        self._context = zmq.asyncio.Context()
        # A line takes three, and one more while it asks again: its own 1,023 are 340 lines.
        self._context.set(zmq.MAX_SOCKETS, self._context.get(zmq.SOCKET_LIMIT))
        self._room = Room()
        self._engines: dict[FollowedEngine, _Engine] = {}

    async def follow(self, engines: Iterable[FollowedEngine]) -> None:
        """Follow these from now on, and no others."""
        wanted = dict.fromkeys(engines)
        await self._drop([each for each in self._engines if each not in wanted])
        for each in wanted:
            if each not in self._engines:
                self._engines[each] = self._start(each)

    async def close(self) -> None:
        """Follow nobody any more."""
        await self._drop([*self._engines])
        self._context.destroy(linger=0)

    def figures(self) -> tuple[EngineFigures, ...]:
        """Return what is known of each engine."""
        return tuple(_figures(each, engine.lines) for each, engine in self._engines.items())

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

    def _start(self, followed: FollowedEngine) -> _Engine:
        engine = _Engine([], [])

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
                follower=Follower(self._room),
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


def _figures(followed: FollowedEngine, lines: list[Subscription]) -> EngineFigures:
    counts = sum((line.follower.counts for line in lines), Counter[Counted]())
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
        max(lags, default=None),
    )
