"""What is known of an engine's cache is what it has, whatever it was told of and in which order."""

from collections import deque
from math import isfinite
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.fakes.effort import tries

from penstock.emulator.kv_cache import BLOCK_TOKENS, KvCache
from penstock.engines.kv_events import Cleared, Removed, Stored
from penstock.node.caches.blocks import pack
from penstock.node.caches.follower import Follower, Heard
from penstock.node.caches.mirror import Mirror
from penstock.node.caches.shelves import Room, Shelves

SIZE, ROOM = 2, 12
Path = tuple[Any, ...]
_adapters, _salts = st.sampled_from(["", "sql"]), st.sampled_from([None, "a", "b"])
_places = st.sampled_from([None, ("CPU", 0), ("GPU", 1)])
_hashes = st.integers(0, 9)
_prompts = st.lists(st.lists(st.integers(0, 1), min_size=SIZE, max_size=SIZE), max_size=3)


def _written(adapter: str, salt: str | None, *, is_first: bool) -> bytes:
    keys = [*([adapter] if adapter else []), *([salt] if salt and is_first else [])]
    return msgspec.msgpack.encode(keys) if keys else b""


class MirrorMachine(RuleBasedStateMachine):
    """A mirror beside a table of whole beginnings by their hashes."""

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()
        self.room = Room(ROOM)
        self.shelves = Shelves(self.room)
        self.mirror = Mirror(self.shelves, "x")
        self.table: dict[tuple[int, Any], Path] = {}

    @rule(
        hashes=st.lists(_hashes, min_size=1, max_size=3, unique=True),
        parent=st.none() | _hashes,
        blocks=_prompts,
        apart=st.tuples(_adapters, _salts),
        place=_places,
    )
    def store(
        self,
        hashes: list[int],
        parent: int | None,
        blocks: list[list[int]],
        apart: tuple[str, str | None],
        place: Any,
    ) -> None:
        """Blocks follow what is known, or nothing."""
        adapter, salt = apart
        hashes, blocks = hashes[: len(blocks)], blocks[: len(hashes)]
        extras = [
            _written(adapter, salt, is_first=parent is None and not at) for at in range(len(hashes))
        ]
        tokens = [token for block in blocks for token in block]
        self.mirror.take(Stored([*hashes], parent, tokens, SIZE, adapter, extras, place))
        path: Path | None = (adapter,)
        if parent is not None:
            path = self.table.get((parent, place)) or self.table.get((parent, None))
        for name, block, extra in zip(hashes, blocks, extras, strict=True):
            if path is None:
                return
            path = (*path, (tuple(block), extra))
            self.table.pop((name, place), None)
            if len(self.table) == ROOM:
                return
            self.table[name, place] = path

    @rule(hashes=st.lists(_hashes, max_size=3), place=_places)
    def remove(self, hashes: list[int], place: Any) -> None:
        """What is not there cannot go."""
        self.mirror.take(Removed([*hashes], place))
        for name in hashes:
            self.table.pop((name, place), None)

    @rule()
    def empty(self) -> None:
        """Everything goes."""
        self.mirror.take(Cleared())
        self.table.clear()

    @rule(blocks=_prompts, adapter=_adapters, salt=_salts)
    def ask(self, blocks: list[list[int]], adapter: str, salt: str | None) -> None:
        """What a prompt finds is the longest beginning that is there as it is."""
        tokens = pack([token for block in blocks for token in block])
        path: Path = (adapter,)
        known = 0
        for at, block in enumerate(blocks):
            path = (*path, (tuple(block), _written(adapter, salt, is_first=not at)))
            if path not in self.table.values():
                break
            known += 1
        found = self.shelves.find(tokens, adapter=adapter, salt=salt, turn=0.5)
        assert found == (known * SIZE, ("x",) if known else ())

    @invariant()
    def takes_its_room(self) -> None:
        """As many blocks count as are known."""
        assert len(self.mirror) == len(self.table) == ROOM - self.room.left


MirrorMachine.TestCase.settings = settings(max_examples=tries(200), stateful_step_count=30)
TestMirror = MirrorMachine.TestCase


def _follower(most: int = 1000) -> Follower:
    return Follower(Shelves(Room(most)), "x")


class _Engine:
    """An engine with a small cache, and who follows it over a line that loses batches."""

    def __init__(self, most_replayed: int) -> None:
        self.follower = _follower()
        self._most_replayed = most_replayed
        self.start()

    def start(self) -> None:
        self.cache = KvCache(5, tells_salts=True)
        self.sent: deque[tuple[int, bytes]] = deque(maxlen=self._most_replayed)
        self.count = 0

    def publish(self, events: list[Any], *, is_lost: bool) -> None:
        content = msgspec.msgpack.encode([1.0, events, 0])
        number, self.count = self.count, self.count + 1
        self.sent.append((number, content))
        if not is_lost and self.follower.hear(number, content) is Heard.MISSING:
            self.replay()
            if self.follower.next_number <= number:
                self.follower.give_up(number)
                self.follower.hear_again(number, content)

    def replay(self) -> None:
        first = self.follower.next_number
        for number, content in self.sent:
            if number >= first:
                self.follower.hear_again(number, content)
        self.follower.heard_again()

    def known(self) -> set[Any]:
        return {key for each in self.follower.mirrors.values() for key in each._numbers}

    def has(self) -> set[Any]:
        return set(self.cache._blocks)


_steps = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "ask", "clear", "restart"]),
        st.text("ab", max_size=3),
        st.booleans(),
    ),
    max_size=40,
)


@settings(max_examples=tries(200))
@given(_steps, st.sampled_from([0, 2, 1000]), st.booleans())
@example([("ask", "baa", False), ("ask", "aaa", False), ("ask", "ba", False)], 0, False)  # noqa: FBT003
def test_a_follower_knows_nothing_that_is_not_there(
    steps: list[tuple[str, str, bool]],
    most_replayed: int,
    tells_lost: bool,  # noqa: FBT001 - hypothesis gives it
) -> None:
    """Whatever is lost and had again, it knows of the cache; all of it, if all could be had."""
    engine = _Engine(most_replayed)
    starts = 0
    for what, letters, is_lost in steps:
        if what == "restart":
            engine.start()
            starts += 1
            if tells_lost:
                engine.follower.lost()
            continue
        prompt = "".join(letter * 4 * BLOCK_TOKENS for letter in letters)
        body = msgspec.json.encode({"prompt": prompt})
        events = engine.cache.clear() if what == "clear" else engine.cache.read(body)
        engine.publish(events, is_lost=is_lost)
    engine.publish([], is_lost=False)
    if tells_lost or not starts:
        assert engine.known() <= engine.has()
        if most_replayed == 1000:
            assert engine.known() == engine.has()


def test_numbers_that_go_back_are_another_life() -> None:
    """What was known of the one before is forgotten, and it is told that it is."""
    engine = _Engine(1000)
    body = msgspec.json.encode({"prompt": "a" * 4 * BLOCK_TOKENS})
    engine.publish(engine.cache.read(body), is_lost=False)
    assert engine.known() == engine.has() != set()
    engine.start()
    engine.publish([], is_lost=False)
    assert engine.known() == set()
    assert engine.follower.emptied_count == 1
    assert engine.follower.counts["resets"] == 1


def test_a_life_of_as_many_batches_is_told_apart_by_what_they_say() -> None:
    """A lost connection alone empties nothing; another server behind it does."""
    engine = _Engine(1000)
    for letter in "ab":
        body = msgspec.json.encode({"prompt": letter * 4 * BLOCK_TOKENS})
        engine.publish(engine.cache.read(body), is_lost=False)
    engine.follower.lost()
    assert engine.known() == set()
    engine.replay()
    assert (engine.known(), engine.follower.emptied_count) == (engine.has(), 0)
    engine.follower.lost()
    engine.start()
    for letter in "cde":
        body = msgspec.json.encode({"prompt": letter * 4 * BLOCK_TOKENS})
        engine.publish(engine.cache.read(body), is_lost=True)
    engine.replay()
    assert (engine.known(), engine.follower.emptied_count) == (engine.has(), 1)


def test_what_was_cleared_before_is_no_news() -> None:
    """Asking again for what was told tells of no new emptying."""
    engine = _Engine(1000)
    engine.publish(engine.cache.clear(), is_lost=False)
    assert engine.follower.emptied_count == 1
    engine.follower.lost()
    engine.replay()
    assert engine.follower.emptied_count == 1


def test_ranks_have_caches_of_their_own() -> None:
    """What one forgets another has."""
    follower = _follower()
    stored = ["BlockStored", [1], None, [1, 2], 2, None]
    for number, (event, rank) in enumerate([(stored, 0), (stored, 1), (["AllBlocksCleared"], 0)]):
        follower.hear(number, msgspec.msgpack.encode([1.0, [event], rank]))
    assert {rank: len(mirror) for rank, mirror in follower.mirrors.items()} == {0: 0, 1: 1}


def test_batches_that_make_no_sense_are_counted() -> None:
    """They have numbers as others do."""
    follower = _follower()
    assert follower.hear(0, b"\xc1") is follower.hear(1, b"") is Heard.TAKEN
    assert (follower.next_number, follower.counts["unknown"]) == (2, 2)


@pytest.mark.parametrize(
    ("room", "second", "is_whole"),
    [
        (3, [["BlockStored", [2], 1, [3, 4], 2, None]], True),
        (1, [["BlockStored", [2], 1, [3, 4], 2, None]], False),
        (3, [["BlockStored", [2], 1, [3], 2, None]], False),
        (3, None, False),
    ],
)
def test_only_of_whom_all_is_known_nothing_else_is_there(
    room: int, second: list[Any] | None, *, is_whole: bool
) -> None:
    """What had no room, or was not understood, may be there all the same."""
    follower = _follower(room)
    first = [["BlockStored", [1], None, [1, 2], 2, None]]
    for number, events in enumerate([first, second]):
        follower.hear(number, msgspec.msgpack.encode([1.0, events, 0]))
    assert follower.is_whole is is_whole


_numbers = st.sampled_from([0, 1, 2, 3, 2**32, 2**63 - 2, 2**63 - 1])
_stored = st.lists(
    st.tuples(
        st.just("BlockStored"),
        st.lists(st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=65), max_size=2),
        st.none() | st.integers(0, 2**64 - 1),
        st.lists(st.integers(-1, 2**32), max_size=4),
        st.integers(0, 3),
    )
    | st.just(("AllBlocksCleared",)),
    max_size=2,
)
_contents = st.binary(max_size=20) | st.tuples(st.floats(), _stored, st.integers(-1, 1024)).map(
    msgspec.msgpack.encode
)
_told = st.tuples(st.sampled_from(["hear", "hear_again"]), _numbers, _contents)


@settings(max_examples=tries(400))
@given(st.lists(_told | st.sampled_from(["heard_again", "lost"]), max_size=8))
def test_a_follower_takes_whatever_comes(steps: list[Any]) -> None:
    """No exception leaves it, and it asks for numbers that can be written."""
    room = Room(3)
    follower = Follower(Shelves(room), "x")
    for step in steps:
        if isinstance(step, str):
            getattr(follower, step)()
        else:
            name, *told = step
            getattr(follower, name)(*told)
        assert follower.next_number.to_bytes(8, "big")
        assert isfinite(follower.told_at_s)
        assert len(follower) == 3 - room.left
