"""How much of conversations is found where they are sent, in a small world without clocks."""

import json
import random
import weakref
from collections import deque
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec

from penstock.gateway.prefix import Prefix, read_prefix
from penstock.gateway.prefixes import Prefixes
from penstock.gateway.select import Turns, prefer, select

ENDPOINTS, CONVERSATIONS, TURNS = 6, 90, 6
UNDER_WAY = 24
"""Requests that are in flight at any time."""
TARGET: Any = SimpleNamespace(deployment=SimpleNamespace(upstream="engine", model="served"))


class _Pool:
    def __init__(self, position: int) -> None:
        self.position, self.weight = position, 100
        self.in_flight, self.reading, self.cool_until_s = 0, 0, 0.0
        self.health = SimpleNamespace(out_until_s=0.0)
        self.emptied_count = 0
        self.ref = weakref.ref(self)


class _Worker:
    """Endpoints as one worker sees them, and what it remembers."""

    def __init__(self, *, heeds_prefixes: bool) -> None:
        self.pools: list[Any] = [_Pool(position) for position in range(ENDPOINTS)]
        self._prefixes = Prefixes(1 << 20, lambda: 0.0) if heeds_prefixes else None
        self._turn = Turns(0.0).next

    def send(self, prefix: Prefix | None) -> Any:
        pools, index = self.pools, self._prefixes
        chosen: Any = None
        if index is not None and prefix is not None:
            keepers = index.find(prefix, TARGET, pools)
            chosen = prefer(pools, (), 0.0, keepers=keepers, home=prefix.home, turn=self._turn)
        chosen = chosen or select(pools, (), 0.0)
        if index is not None and prefix is not None:
            index.book(prefix, TARGET, chosen)
        chosen.in_flight += 1
        return chosen


class _Course(NamedTuple):
    """What came of all requests."""

    found: float
    """Which part of what engines had before was where the request was sent."""
    most: float
    """The most requests in flight at one endpoint, beside the average."""


def _ask(turn: int, conversation: int) -> list[str]:
    """Return the messages of a turn, after instructions that a third of conversations share."""
    system = f"instructions {conversation % 3} " * 300
    said = [f"{conversation}.{number} " * 60 for number in range(2 * turn + 1)]
    return [json.dumps({"role": "user", "content": text}) for text in (system, *said)]


def _run(workers: int, *, heeds_prefixes: bool) -> _Course:
    """Have conversations, their turns in order and all of them mixed."""
    draw = random.Random(7)
    all_workers = [_Worker(heeds_prefixes=heeds_prefixes) for _ in range(workers)]
    engines: list[set[str]] = [set() for _ in range(ENDPOINTS)]
    under_way = deque[Any]()
    turns = [0] * CONVERSATIONS
    known = found = 0
    most = 0.0
    for _ in range(CONVERSATIONS * TURNS):
        conversation = draw.choice([at for at, turn in enumerate(turns) if turn < TURNS])
        messages = _ask(turns[conversation], conversation)
        turns[conversation] += 1
        question = msgspec.Raw(f"[{', '.join(messages)}]".encode())
        prefix = read_prefix(question, b"", b"org", b"k" * 32)
        if len(under_way) == UNDER_WAY:
            under_way.popleft().in_flight -= 1
        pool = draw.choice(all_workers).send(prefix)
        under_way.append(pool)
        size = 0
        for message in messages:
            size += len(message)
            beginning = f"{size} {message}"
            known += len(message) * any(beginning in engine for engine in engines)
            found += len(message) * (beginning in engines[pool.position])
            engines[pool.position].add(beginning)
        in_flight = [
            sum(worker.pools[number].in_flight for worker in all_workers)
            for number in range(ENDPOINTS)
        ]
        most = max(most, max(in_flight) - sum(in_flight) / ENDPOINTS)
    return _Course(found / known, most)


def test_one_worker_finds_nearly_all() -> None:
    """What an engine had is asked of that engine, and none is much busier than others."""
    with_prefixes, without = (_run(1, heeds_prefixes=heeds) for heeds in (True, False))
    assert with_prefixes.found > 0.95
    assert without.found < 0.9
    assert with_prefixes.most <= 5


def test_several_workers_find_more_than_by_load() -> None:
    """Though a conversation comes to any of four workers that know nothing of one another."""
    with_prefixes, without = (_run(4, heeds_prefixes=heeds) for heeds in (True, False))
    assert with_prefixes.found > without.found + 0.05
    assert with_prefixes.most <= 12
