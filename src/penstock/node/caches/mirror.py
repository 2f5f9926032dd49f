"""The blocks that one KV cache has, as its engine told of them. Pure.

Engines name blocks by hashes of their own, by seeds of their own: nobody else can make them. So a
block has a number of ours, too, of its tokens and all those before it, of the adapter that it was
computed with, and of whatever else keeps it apart, such as the salt of an organization. Equal
numbers are equal beginnings, at whichever engine.
"""

from array import array
from collections.abc import Sequence
from typing import Final, TypeAlias

import msgspec

from penstock.engines.kv_events import Event, Hash, Place, Removed, Stored

MOST_BLOCKS: Final = 1_000_000
"""Of all caches of a node together: 400 MB at most. Beyond them no block is known."""

_TOKEN_BYTES: Final = 4
_Key: TypeAlias = Hash | tuple[Hash, str, int]
_encode = msgspec.msgpack.Encoder().encode


class Room:
    """How many more blocks may be known of all caches together.

    Args:
        most: How many in all.
    """

    def __init__(self, most: int = MOST_BLOCKS) -> None:
        """See the class."""
        self.left = most


class Mirror:
    """What one cache has.

    Args:
        room: Shared with other mirrors.
    """

    def __init__(self, room: Room) -> None:
        """See the class."""
        self._room = room
        self._numbers: dict[_Key, int] = {}
        self._counts: dict[int, int] = {}
        """In how many places the cache has what has this number."""
        self.block_size = 0
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
        self._room.left += len(self._numbers)
        self._numbers.clear()
        self._counts.clear()

    def count_known(self, numbers: Sequence[int]) -> int:
        """Return how many of a prompt's first blocks are there, one after the other.

        Args:
            numbers: Of its blocks, from `number_blocks` for this `block_size`.
        """
        for at, number in enumerate(numbers):
            if number not in self._counts:
                return at
        return len(numbers)

    def _store(self, event: Stored) -> None:
        if event.block_size != self.block_size:
            self.clear()
            self.block_size = event.block_size
        number = self._parent(event)
        if number is None:
            return
        tokens = pack(event.tokens)
        size = event.block_size * _TOKEN_BYTES
        for at, each in enumerate(event.hashes):
            extras = event.extras[at] if event.extras is not None else b""
            number = hash((number, tokens[at * size : (at + 1) * size], extras))
            key = _key(each, event.place)
            self._forget(key)
            if not self._room.left:
                return
            self._room.left -= 1
            self._numbers[key] = number
            self._counts[number] = self._counts.get(number, 0) + 1

    def _parent(self, event: Stored) -> int | None:
        """Return the number of what blocks follow; None when it is not known."""
        if event.parent is None:
            return _root(event.adapter)
        found = self._numbers.get(_key(event.parent, event.place))
        return found if found is not None else self._numbers.get(event.parent)

    def _forget(self, key: _Key) -> None:
        number = self._numbers.pop(key, None)
        if number is None:
            return
        self._room.left += 1
        left = self._counts[number] - 1
        if left:
            self._counts[number] = left
        else:
            del self._counts[number]


def number_blocks(tokens: bytes, block_size: int, *, adapter: str, salt: str | None) -> list[int]:
    """Return our numbers of a prompt's full blocks, in order.

    Args:
        tokens: All of the prompt, as `pack` returns them.
        block_size: Tokens of a block, >= 1.
        adapter: The LoRA adapter that it is for; "" for none.
        salt: By which the engine keeps it apart from others' prompts; None for nothing.
    """
    names = (adapter,) if adapter else ()
    later = _encode(names) if names else b""
    extras = _encode((*names, salt)) if salt is not None else later
    number, size = _root(adapter), block_size * _TOKEN_BYTES
    numbers = []
    for end in range(size, len(tokens) + 1, size):
        number = hash((number, tokens[end - size : end], extras))
        numbers.append(number)
        extras = later  # a salt is in the first block's alone: the others follow it
    return numbers


def pack(tokens: Sequence[int]) -> bytes:
    """Return tokens as bytes, four for each.

    Args:
        tokens: Each in 0 .. 2**32 - 1.

    Raises:
        OverflowError: One of them is not.
    """
    return array("I", tokens).tobytes()


def _root(adapter: str) -> int:
    """Return the number of what a prompt's first block follows. Of bytes, so that it is keyed."""
    return hash((b"root", adapter.encode(errors="replace")))


def _key(name: Hash, place: Place) -> _Key:
    return name if place is None else (name, *place)
