"""The blocks that one KV cache has, as its engine told of them. Pure."""

from typing import TypeAlias

from penstock.engines.kv_events import Event, Hash, Place, Removed, Stored
from penstock.node.caches.blocks import TOKEN_BYTES, number_first, number_next, pack
from penstock.node.caches.shelves import Shelf, Shelves

_Key: TypeAlias = Hash | tuple[Hash, str, int]


class Mirror:
    """What one cache has.

    Args:
        shelves: Of its upstream: there it has a place while it has blocks.
        url: Of its endpoint.
    """

    def __init__(self, shelves: Shelves, url: str) -> None:
        """See the class."""
        self._shelves = shelves
        self._room = shelves.room
        self._url = url
        self._numbers: dict[_Key, int] = {}
        self._more: dict[int, int] = {}
        """In how many places more than one the cache has what has this number, where it has."""
        self._at: tuple[Shelf, int] | None = None
        self._block_size = 0
        """Tokens of a block; 0 until the engine said it."""

    def __len__(self) -> int:
        """Return how many blocks are known."""
        return len(self._numbers)

    def take(self, event: Event) -> None:
        """Take note of what became of the cache.

        Blocks that follow one which is not known are not known either.
        """
        if isinstance(event, Stored):
            self._store(event)
        elif isinstance(event, Removed):
            for each in event.hashes:
                self._forget(_key(each, event.place))
        else:
            self.clear()

    def clear(self) -> None:
        """Know no block any more."""
        if self._at is None:
            return
        shelf, place = self._at
        holders = shelf.holders
        self._room.left += len(self._numbers)
        for number in self._numbers.values():
            had = holders.get(number, 0)
            if had == place:
                del holders[number]
            elif had & place:  # what it has in several places is done at the first
                holders[number] = had ^ place
        self._numbers.clear()
        self._more.clear()
        self._shelves.leave(self._block_size, shelf, place)
        self._at = None

    def _store(self, event: Stored) -> None:
        if event.block_size != self._block_size:
            self.clear()
            self._block_size = event.block_size
        number = self._parent(event)
        if number is None:
            return
        if self._at is None:
            self._at = self._shelves.take_place(self._block_size, self._url)
        shelf, place = self._at
        holders, numbers, room = shelf.holders, self._numbers, self._room
        tokens = pack(event.tokens)
        size = event.block_size * TOKEN_BYTES
        for at, each in enumerate(event.hashes):
            extras = event.extras[at] if event.extras is not None else b""
            number = number_next(number, tokens[at * size : (at + 1) * size], extras)
            key = _key(each, event.place)
            if key in numbers:
                self._forget(key)
            if not room.left:
                return
            room.left -= 1
            numbers[key] = number
            had = holders.get(number, 0)
            if had & place:
                self._more[number] = self._more.get(number, 0) + 1
            else:
                # What one alone has is the very object of its place, and takes no memory.
                holders[number] = had | place if had else place

    def _parent(self, event: Stored) -> int | None:
        """Return the number of what blocks follow; None when it is not known."""
        if event.parent is None:
            return number_first(event.adapter)
        found = self._numbers.get(_key(event.parent, event.place))
        return found if found is not None else self._numbers.get(event.parent)

    def _forget(self, key: _Key) -> None:
        number = self._numbers.pop(key, None)
        if number is None or self._at is None:
            return
        self._room.left += 1
        more = self._more.get(number, 0)
        if more > 1:
            self._more[number] = more - 1
        elif more:
            del self._more[number]
        else:
            shelf, place = self._at
            left = shelf.holders[number] ^ place
            if left:
                shelf.holders[number] = left
            else:
                del shelf.holders[number]


def _key(name: Hash, place: Place) -> _Key:
    return name if place is None else (name, *place)
