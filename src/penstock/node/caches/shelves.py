"""Which caches of an upstream have which blocks. Pure.

Whoever asks wants to know it of all of them at once. So it is kept by block: caches have places on
shelves, and a shelf has for each block an integer with a bit for each of its caches that has it.
One look tells who of 256 has a block, and `&` who has it and all those before it.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from penstock.node.caches.blocks import number_blocks

MOST_BLOCKS: Final = 1_000_000
"""Of all caches of a node together: 400 MB at most. Beyond them no block is known."""
PLACES: Final = 256
"""Of a shelf: with more, what few have would take more memory; with fewer, what all have more
time."""
_PLACES: Final = tuple(1 << at for at in range(PLACES))
MOST_NUMBERED: Final = 16_384
"""Blocks of a prompt that are looked at, of all sizes together."""
MOST_FOUND: Final = 16
"""Caches that an answer names of those that have equally much: whoever asks takes the least busy
one, and a worker compares as many where there are very many."""


class Room:
    """How many more blocks may be known of all caches together.

    Args:
        most: How many in all.
    """

    def __init__(self, most: int = MOST_BLOCKS) -> None:
        """See the class."""
        self.left = most


class Shelf:
    """Places for some caches whose blocks have one size."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self.holders: dict[int, int] = {}
        """Who has a block, by its number: the places of all who do, together."""
        self.urls: dict[int, str] = {}
        """Whose cache has a place, an integer with one bit."""
        self.free = [*reversed(_PLACES)]


class Shelves:
    """Those of one upstream.

    Args:
        room: Shared with those of all others.
    """

    def __init__(self, room: Room) -> None:
        """See the class."""
        self.room = room
        self._by_size: dict[int, list[Shelf]] = {}

    def take_place(self, block_size: int, url: str) -> tuple[Shelf, int]:
        """Return where a cache has a place from now on.

        Args:
            block_size: Of its blocks.
            url: Of the endpoint whose cache it is.
        """
        shelves = self._by_size.setdefault(block_size, [])
        shelf = next((each for each in shelves if each.free), None)
        if shelf is None:
            shelf = Shelf()
            shelves.append(shelf)
        place = shelf.free.pop()
        shelf.urls[place] = url
        return shelf, place

    def leave(self, block_size: int, shelf: Shelf, place: int) -> None:
        """Have a place back; nothing is known there any more."""
        del shelf.urls[place]
        shelf.free.append(place)
        if not shelf.urls:
            shelves = self._by_size[block_size]
            shelves.remove(shelf)
            if not shelves:
                del self._by_size[block_size]

    def find(
        self, tokens: bytes, *, adapter: str, salt: str | None, turn: float
    ) -> tuple[int, tuple[str, ...]]:
        """Return how much of a prompt is known anywhere, and whose caches have as much.

        Args:
            tokens: The prompt's, packed.
            adapter: The LoRA adapter that it is for; "" for none.
            salt: What keeps it apart in caches.
            turn: In [0, 1): which are named where more than `MOST_FOUND` have it.

        Returns:
            How many tokens from its beginning on, and URLs: none when nobody has any.
        """
        most, holders, left = 0, list[tuple[Shelf, int]](), MOST_NUMBERED
        for size, shelves in self._by_size.items():
            numbers = number_blocks(tokens, size, adapter=adapter, salt=salt)
            count, found = _follow(shelves, islice(numbers, left))
            left = max(0, left - count - 1)
            if count * size > most:
                most, holders = count * size, found
            elif count and count * size == most:
                holders += found
        return most, _some_urls(holders, turn)


def _follow(shelves: list[Shelf], numbers: Iterable[int]) -> tuple[int, list[tuple[Shelf, int]]]:
    """Return how many blocks are had by one cache, one after the other, and who has them all."""
    count, holders = 0, [(shelf, -1) for shelf in shelves]
    for number in numbers:
        left = [
            (shelf, both)
            for shelf, places in holders
            if (both := places & shelf.holders.get(number, 0))
        ]
        if not left:
            break
        count, holders = count + 1, left
    return count, holders


def _some_urls(holders: list[tuple[Shelf, int]], turn: float) -> tuple[str, ...]:
    """Return whose caches have these places: of many those from somewhere on."""
    urls: dict[str, None] = {}  # an engine may have several caches
    for url in _list_urls(holders, turn):
        urls[url] = None
        if len(urls) == MOST_FOUND:
            break
    return tuple(urls)


def _list_urls(holders: list[tuple[Shelf, int]], turn: float) -> Iterator[str]:
    """Yield whose caches have these places, from somewhere on."""
    at, turn = divmod(turn * len(holders), 1)
    for shelf, places in holders[int(at) :] + holders[: int(at)]:
        first = int(turn * places.bit_length())
        for some in (places >> first << first, places & (1 << first) - 1):
            left = some
            while left:
                place = left & -left
                left ^= place
                yield shelf.urls[place]
