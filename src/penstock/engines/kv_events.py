"""What servers publish of their KV caches: batches of events in MessagePack. Pure.

Batches and events are maps, or arrays as older servers write them. What is not known is passed
over: kinds of events, members of maps, further elements of arrays. What makes no sense is no event.
Nothing of it is trusted: its size is bounded before anything is made of it.

Source: the wire forms of vLLM's `kv_events` and SGLang's, which Dynamo's workers publish, too.
"""

from collections.abc import Callable, Iterator
from math import isfinite
from typing import Annotated, Any, Final, NamedTuple, TypeAlias

import msgspec

MAX_BATCH_BYTES = 4 * 1024 * 1024
"""A batch that is larger is not read; a prompt of 128,000 tokens takes a quarter of it."""
MAX_EVENTS = 10_000
"""Events of a batch."""
MAX_HASH_BYTES = 64
MAX_TOKENS = 1_000_000
"""Of one event, and of a block."""
MAX_RANK = 1_023
NUMBER_BYTES: Final = 8
END: Final = (-1).to_bytes(NUMBER_BYTES, "big", signed=True)
"""The number of what comes behind the last batch that was asked for again."""

_NAME_CHARS = 1_024
_MEDIUM_CHARS = 32
"""It is kept with each of its blocks."""
_NOTHING: Final = b"\xc0"
_DEVICE: Final = frozenset({None, "GPU"})

Hash: TypeAlias = int | bytes
"""By which a server names a block. Servers make them in ways that cannot be compared."""
_Hash = int | Annotated[bytes, msgspec.Meta(max_length=MAX_HASH_BYTES)]
_Hashes = Annotated[list[_Hash], msgspec.Meta(max_length=MAX_TOKENS)]
_Token = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
_Tokens = Annotated[list[_Token], msgspec.Meta(max_length=MAX_TOKENS)]
_Size = Annotated[int, msgspec.Meta(ge=1, le=MAX_TOKENS)]
_Text = Annotated[str, msgspec.Meta(max_length=_NAME_CHARS)]
_Medium = Annotated[str, msgspec.Meta(max_length=_MEDIUM_CHARS)]
_Extras = Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MAX_TOKENS)]
_Rank = Annotated[int, msgspec.Meta(ge=0, le=MAX_RANK)]


class Stored(NamedTuple):
    """Blocks that follow one another were put into a cache."""

    hashes: list[Hash]
    parent: Hash | None
    """What they follow; None when they begin a prompt."""
    tokens: list[int]
    """`block_size` for each."""
    block_size: int
    adapter: str
    """The LoRA adapter that they were computed with; "" for none."""
    extras: list[bytes] | None
    """What else sets each block apart, as it was written; b"" for nothing. None for all."""
    place: "Place"


class Removed(NamedTuple):
    """Blocks had to go."""

    hashes: list[Hash]
    place: "Place"


class Cleared(NamedTuple):
    """The cache is empty."""


Event: TypeAlias = Stored | Removed | Cleared
Place: TypeAlias = tuple[str, int] | None
"""Where blocks are beside the GPU's first group of layers: the medium, and the group. Some are in
several places, and go from each by itself."""


class Batch(NamedTuple):
    """Events that happened together."""

    at_s: float
    """When, by the server's clock, seconds since the Unix epoch."""
    events: list[Event]
    rank: int
    """Of the server's data-parallel ranks: each has a cache of its own."""
    passed_count: int
    """Events that were not understood."""


class _Batch(msgspec.Struct):
    ts: float
    events: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MAX_EVENTS)]
    data_parallel_rank: _Rank | None = None


class _Stored(msgspec.Struct, tag="BlockStored"):
    block_hashes: _Hashes
    parent_block_hash: _Hash | None
    token_ids: _Tokens
    block_size: _Size
    lora_id: int | None = None
    medium: _Medium | None = None
    lora_name: _Text | None = None
    extra_keys: _Extras | None = None
    group_idx: int | None = None


class _Removed(msgspec.Struct, tag="BlockRemoved"):
    block_hashes: _Hashes
    medium: _Medium | None = None
    group_idx: int | None = None


class _Cleared(msgspec.Struct, tag="AllBlocksCleared"):
    pass


# The same as arrays, in the order of their members.


class _ArrayBatch(_Batch, array_like=True):
    pass


class _ArrayStored(_Stored, array_like=True, tag="BlockStored"):
    pass


class _ArrayRemoved(_Removed, array_like=True, tag="BlockRemoved"):
    pass


class _ArrayCleared(_Cleared, array_like=True, tag="AllBlocksCleared"):
    pass


def _decoder(of: Any) -> Callable[[bytes | msgspec.Raw], Any]:
    return msgspec.msgpack.Decoder(of).decode


_read_array_batch, _read_map_batch = _decoder(_ArrayBatch), _decoder(_Batch)
_read_array_event = _decoder(_ArrayStored | _ArrayRemoved | _ArrayCleared)
_read_map_event = _decoder(_Stored | _Removed | _Cleared)
_MEANINGLESS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read_number(written: bytes) -> int | None:
    """Return a batch's number; None when it makes no sense, as that of `END`.

    The one after it can be written, too.
    """
    number = int.from_bytes(written, "big", signed=True) if len(written) == NUMBER_BYTES else -1
    return number if number >= 0 else None


def read_batch(content: bytes) -> Batch | None:
    """Return what a batch says; None when it makes no sense as a whole."""
    if not 0 < len(content) <= MAX_BATCH_BYTES:
        return None
    try:
        read = _read_map_batch if _is_map(content[0]) else _read_array_batch
        batch = read(content)
    except _MEANINGLESS:
        return None
    if not isfinite(batch.ts):
        return None
    events = list(_read_events(batch.events))
    passed = len(batch.events) - len(events)
    return Batch(batch.ts, events, batch.data_parallel_rank or 0, passed)


def _is_map(first: int) -> bool:
    """Return whether a value of MessagePack that begins so is a map."""
    return first & 0xF0 == 0x80 or first in {0xDE, 0xDF}  # noqa: PLR2004 - as its specification says


def _read_events(written: list[msgspec.Raw]) -> Iterator[Event]:
    for each in written:
        content = memoryview(each)
        read = _read_map_event if content and _is_map(content[0]) else _read_array_event
        try:
            event = _as_event(read(each))
        except _MEANINGLESS:
            continue
        if event is not None:
            yield event


def _as_event(told: _Stored | _Removed | _Cleared) -> Event | None:
    if isinstance(told, _Cleared):
        return Cleared()
    medium, group = told.medium, told.group_idx or 0
    place = None if medium in _DEVICE and not group else (medium or "", group)
    if isinstance(told, _Removed):
        return Removed(told.block_hashes, place)
    if len(told.token_ids) != len(told.block_hashes) * told.block_size:
        return None
    extras = None
    if told.extra_keys is not None:
        extras = [b"" if each == _NOTHING else each for each in map(bytes, told.extra_keys)]
        if len(extras) != len(told.block_hashes):
            return None
    return Stored(
        told.block_hashes,
        told.parent_block_hash,
        told.token_ids,
        told.block_size,
        _adapter(told.lora_name, told.lora_id),
        extras,
        place,
    )


def _adapter(name: str | None, number: int | None) -> str:
    """Return what stands for an adapter. Older servers say a number, which nobody here knows."""
    if name is None and number is not None:
        return f"\0{number}"
    return name or ""
