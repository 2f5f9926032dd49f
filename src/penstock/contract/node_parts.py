"""What a node's processes tell one another of all endpoints, in parts where it is too long.

The parts replace together what was told before, and so only the last one changes anything.
"""

from typing import TypeVar, cast

import msgspec

from penstock.contract.caches import Figures, Follow
from penstock.contract.node import (
    MAX_MESSAGE_BYTES,
    ContextLengths,
    EngineLoads,
    LoadedAdapters,
    NotReady,
)

Listing = NotReady | EngineLoads | ContextLengths | LoadedAdapters
"""A message that replaces all that was told by an earlier one of its kind."""
AnyListing = Listing | Follow | Figures
"""Also those that agents and their process of KV caches tell each other."""
_Listing = TypeVar("_Listing", bound=AnyListing)

PART_BYTES = MAX_MESSAGE_BYTES - 64 * 1024
"""How long the entries of a part are together; what is left is enough for the rest of a message."""
MAX_PARTS = 32
_encode = msgspec.msgpack.Encoder().encode


def split(message: _Listing, most_bytes: int = PART_BYTES) -> list[_Listing]:
    """Return a message as parts that can be sent, in order, each of as many entries as go into it.

    What is beyond `MAX_PARTS`, over a million endpoints, is left out: nothing is known of it.

    Args:
        message: All of it, with any number of entries.
        most_bytes: How long those of a part may be together.
    """
    parts: list[dict[str, list[object]]] = [{}]
    size = 0
    for name, entries in _entries(message).items():
        for entry in entries:
            length = len(_encode(entry))
            if size + length > most_bytes and size:
                parts.append({})
                size = 0
            size += length
            parts[-1].setdefault(name, []).append(entry)
    del parts[MAX_PARTS:]
    empty = dict.fromkeys(_entries(message), ())
    return [
        msgspec.structs.replace(
            message,
            is_last=number == len(parts),
            **empty | {name: tuple(entries) for name, entries in part.items()},
        )
        for number, part in enumerate(parts, 1)
    ]


class Parts:
    """Puts together what comes in parts, over one connection."""

    def __init__(self) -> None:
        """See the class."""
        self._parts: dict[type[object], list[object]] = {}

    def join(self, part: _Listing) -> _Listing | None:
        """Return the whole message that a part completes; None as long as one is to come.

        Raises:
            msgspec.ValidationError: There are more than `MAX_PARTS`.
        """
        parts = cast("list[_Listing]", self._parts.setdefault(type(part), []))
        parts.append(part)
        if len(parts) > MAX_PARTS:
            message = f"a message has more than {MAX_PARTS} parts"
            raise msgspec.ValidationError(message)
        if not part.is_last:
            return None
        del self._parts[type(part)]
        if len(parts) == 1:
            return part
        whole = {
            name: tuple(entry for each in parts for entry in getattr(each, name))
            for name in _entries(part)
        }
        return msgspec.structs.replace(part, **whole)


def _entries(message: AnyListing) -> dict[str, tuple[object, ...]]:
    """Return the lists of a message by name: those of its members that are tuples."""
    members = {name: getattr(message, name) for name in message.__struct_fields__}
    return {
        name: cast("tuple[object, ...]", value)
        for name, value in members.items()
        if isinstance(value, tuple)
    }
