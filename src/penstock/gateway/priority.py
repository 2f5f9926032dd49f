"""Which request goes first at its engine: one scale towards callers, engines' own behind it."""

import msgspec

from penstock.engines.model import Priority
from penstock.gateway.dialects.members import Members

MOST = 100
"""The scale: -100 to 100, the larger the sooner; 0 is how requests go that say nothing."""
MEMBER = "priority"
SCOPE = "inference:priority"
"""Without it a key says only that its requests can wait."""

_decode_int = msgspec.json.Decoder(int).decode
_encode = msgspec.json.Encoder().encode


def read_priority(members: Members, scopes: frozenset[str]) -> int:
    """Return what a request asks for and its key may have, 0 for what is no whole number."""
    raw = members.get(MEMBER)
    if raw is None:
        return 0
    try:
        wanted = _decode_int(raw)
    except msgspec.DecodeError:
        return 0
    return max(-MOST, min(wanted, MOST if SCOPE in scopes else 0))


def write_priority(members: Members, priority: int, own: Priority | None) -> None:
    """Say it in the words of an engine.

    Args:
        members: Of the body that is sent; whatever steers is out of it.
        priority: On our scale, not 0.
        own: How the engine is told; None where it is not.
    """
    if own is None:
        return
    value = _encode(priority if own.is_higher_earlier else -priority)
    for name in reversed(own.path[1:]):
        value = _encode({name: msgspec.Raw(value)})
    members[own.path[0]] = msgspec.Raw(value)


def erase_priority(members: Members, priority: int, own: Priority | None) -> None:
    """Undo `write_priority`."""
    if priority and own is not None:
        members.pop(own.path[0], None)
