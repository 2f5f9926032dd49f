"""What is known of many caches together is what is known of each of them."""

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.effort import tries

from penstock.engines.kv_events import Cleared, Event, Removed, Stored
from penstock.node.caches.blocks import pack
from penstock.node.caches.mirror import Mirror
from penstock.node.caches.shelves import MOST_FOUND, MOST_NUMBERED, PLACES, Room, Shelves

SALT = "acme"
_EXTRAS = msgspec.msgpack.encode([SALT])
Tokens = list[int]


class _Caches:
    """Mirrors of an upstream's caches, beside what each has in plain words."""

    def __init__(self, count: int) -> None:
        self.room = Room()
        self.shelves = Shelves(self.room)
        self.mirrors = [Mirror(self.shelves, f"http://{number}") for number in range(count)]
        self.sizes = [0] * count
        self.blocks: list[dict[int, Tokens]] = [{} for _ in range(count)]
        """By their engine's hashes, all tokens up to the end of each."""

    def store(self, at: int, tokens: Tokens, size: int, seed: int) -> None:
        """Have an engine tell that it has a prompt, its blocks named by a seed of its own."""
        if size != self.sizes[at]:
            self.blocks[at], self.sizes[at] = {}, size
        ends = range(size, len(tokens) + 1, size)
        names = {hash((seed, tuple(tokens[:end]))): tokens[:end] for end in ends}
        extras = [_EXTRAS, *[b""] * len(names)][: len(names)]
        whole = tokens[: len(names) * size]
        self._take(at, Stored([*names], None, whole, size, "", extras, None))
        self.blocks[at].update(names)

    def remove(self, at: int, number: int) -> None:
        """Have it tell that a block is gone, from wherever in its prompt."""
        names = [*self.blocks[at]]
        if names:
            name = names[number % len(names)]
            del self.blocks[at][name]
            self._take(at, Removed([name], None))

    def clear(self, at: int) -> None:
        self.blocks[at] = {}
        self._take(at, Cleared())

    def _take(self, at: int, event: Event) -> None:
        self.mirrors[at].take(event)

    def known(self, at: int, tokens: Tokens) -> int:
        """Return how many of a prompt's first tokens a cache has without a gap."""
        size, have = self.sizes[at], [*self.blocks[at].values()]
        known = 0
        while size and known + size <= len(tokens) and tokens[: known + size] in have:
            known += size
        return known

    def check(self, tokens: Tokens, turn: float) -> None:
        """Compare what is found with what each has."""
        known = [self.known(at, tokens) for at in range(len(self.mirrors))]
        most = max(known)
        best = {f"http://{at}" for at, each in enumerate(known) if each == most > 0}
        count, urls = self.shelves.find(pack(tokens), adapter="", salt=SALT, turn=turn)
        assert count == most
        assert set(urls) <= best
        assert len(urls) == len(set(urls)) == min(len(best), MOST_FOUND)
        assert [len(each) for each in self.mirrors] == [len(each) for each in self.blocks]


_caches = st.integers(0, 4)
_prompts = st.lists(st.integers(0, 1), max_size=6)
_turns = st.floats(0, 1, exclude_max=True)
_steps = st.lists(
    st.tuples(st.just("store"), _caches, _prompts, st.sampled_from([1, 2, 3]), st.integers(0, 1))
    | st.tuples(st.just("remove"), _caches, st.integers(0, 9))
    | st.tuples(st.just("clear"), _caches)
    | st.tuples(st.just("check"), _prompts, _turns),
    max_size=40,
)


@settings(max_examples=tries(300))
@given(_steps, _prompts, _turns)
def test_what_is_found_is_what_somebody_has(steps: list[Any], last: Tokens, turn: float) -> None:
    """Whatever caches got and lost: those that have most of a prompt without a gap, no others."""
    caches = _Caches(5)
    for name, *given_ in steps:
        getattr(caches, name)(*given_)
    caches.check(last, turn)
    for at in range(5):
        caches.clear(at)
    caches.check(last, turn)
    assert caches.room.left == Room().left


@pytest.mark.parametrize("size", [1, 16])
def test_any_number_of_caches_is_looked_at(size: int) -> None:
    """On several shelves, half of which have a prompt and some of which lose it again."""
    chance = random.Random(size)
    caches = _Caches(2 * PLACES + 9)
    prompt = [chance.randrange(1 << 17) for _ in range(4 * size)]
    for at in range(len(caches.mirrors)):
        caches.store(at, prompt if at % 2 else prompt[:size], size, at)
    named = set[str]()
    for step in range(200):
        caches.check(prompt, step / 200)
        named.update(caches.shelves.find(pack(prompt), adapter="", salt=SALT, turn=step / 200)[1])
    assert len(named) > len(caches.mirrors) / 4, "others are named each time"
    for at in range(len(caches.mirrors) - 1):
        caches.clear(at) if at % 3 else caches.remove(at, 1)
    caches.check(prompt, 0.5)
    caches.check(prompt[:size], 0.5)


def test_what_is_had_twice_is_there_until_both_are_gone() -> None:
    """A block that is in an engine's memory and in its GPU's goes from each by itself."""
    shelves = Shelves(Room())
    mirror = Mirror(shelves, "x")

    def known() -> int:
        return shelves.find(pack([1, 2]), adapter="", salt=None, turn=0.0)[0]

    places = [None, ("CPU", 0), ("DISK", 0)]
    for place in places:
        mirror.take(Stored([1], None, [1, 2], 2, "", None, place))
    for place in places:
        assert known() == 2
        mirror.take(Removed([1], place))
    assert known() == 0


def test_an_engine_is_named_once() -> None:
    """However many of its ranks have a prompt; others are named beside it."""
    shelves = Shelves(Room())
    for url in [*["many"] * (2 * MOST_FOUND), "one", "other"]:
        Mirror(shelves, url).take(Stored([1], None, [1, 2], 2, "", None, None))
    for turn in (0.0, 0.3, 0.99):
        known, urls = shelves.find(pack([1, 2]), adapter="", salt=None, turn=turn)
        assert (known, sorted(urls)) == (2, ["many", "one", "other"])


def test_of_a_long_prompt_its_beginning_is_looked_at() -> None:
    """So many blocks, whatever their sizes: nobody waits for more to be numbered."""
    shelves = Shelves(Room())
    tokens = [0] * (2 * MOST_NUMBERED)
    for size in (1, 2):
        names = list(range(len(tokens) // size))
        mirror = Mirror(shelves, str(size))
        mirror.take(Stored([*names], None, tokens, size, "", None, None))
    assert shelves.find(pack(tokens), adapter="", salt=None, turn=0.0) == (MOST_NUMBERED, ("1",))
