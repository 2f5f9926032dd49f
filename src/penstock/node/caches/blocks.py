"""Our numbers of the blocks that engines keep in their KV caches. Pure.

Engines name blocks by hashes of their own, by seeds of their own: nobody else can make them. So a
block has a number of ours, too, of its tokens and all those before it, of the adapter that it was
computed with, and of whatever else keeps it apart, such as the salt of an organization. Equal
numbers are equal beginnings, at whichever engine.
"""

from array import array
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

TOKEN_BYTES: Final = 4
"""Of a token as `pack` writes it."""
_encode = msgspec.msgpack.Encoder().encode


def number_first(adapter: str) -> int:
    """Return the number of what a prompt's first block follows. Of bytes, so that it is keyed.

    Args:
        adapter: The LoRA adapter that the prompt is for; "" for none.
    """
    return hash((b"root", adapter.encode(errors="replace")))


def number_next(number: int, tokens: bytes, extras: bytes) -> int:
    """Return the number of a block.

    Args:
        number: Of the block that it follows, or `number_first`.
        tokens: All of the block, packed.
        extras: What else sets it apart, as it was written; b"" for nothing.
    """
    return hash((number, tokens, extras))


def number_blocks(
    tokens: bytes, block_size: int, *, adapter: str, salt: str | None
) -> Iterator[int]:
    """Yield the numbers of a prompt's full blocks, in order.

    Args:
        tokens: All of the prompt, as `pack` returns them.
        block_size: Tokens of a block, >= 1.
        adapter: The LoRA adapter that it is for; "" for none.
        salt: By which the engine keeps it apart from others' prompts; None for nothing.
    """
    names = (adapter,) if adapter else ()
    later = _encode(names) if names else b""
    extras = _encode((*names, salt)) if salt is not None else later
    number, size = number_first(adapter), block_size * TOKEN_BYTES
    for end in range(size, len(tokens) + 1, size):
        number = number_next(number, tokens[end - size : end], extras)
        yield number
        extras = later  # a salt is in the first block's alone: the others follow it


def pack(tokens: Sequence[int]) -> bytes:
    """Return tokens as bytes, four for each.

    Args:
        tokens: Each in 0 .. 2**32 - 1.

    Raises:
        OverflowError: One of them is not.
    """
    return array("I", tokens).tobytes()
