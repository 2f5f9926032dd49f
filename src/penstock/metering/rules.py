"""Decisions about usage events: pure, no clock, no I/O."""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from functools import cache

import msgspec

from penstock.contract.usage import UsageEvent
from penstock.metering.model import HashedEvent, Position

MAX_NUMBER = 2**63 - 1
"""What a 64-bit column holds; as nanoseconds since the Unix epoch, the year 2262."""
MAX_TEXT_CHARS = 1_024

_EVENT_ID = re.compile(r"[0-9A-Za-z-]{1,64}")
_TEXTS = (
    "request_id",
    "organization",
    "project",
    "key_id",
    "model",
    "served_model",
    "upstream",
    "operation",
)
_NUMBERS = (
    "status",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "reasoning_output_tokens",
    "attempt_count",
    "started_at_ns",
    "first_byte_at_ns",
    "finished_at_ns",
)
_encode = msgspec.msgpack.Encoder().encode


def hash_event(event: UsageEvent) -> HashedEvent:
    """Return the event with its fingerprint.

    Appended fields that have their default do not count. So an event that an older node shipped
    and a newer one ships again has one fingerprint.
    """
    content = msgspec.structs.astuple(event)
    end = len(content)
    for default in reversed(_defaults(type(event))):
        if content[end - 1] != default:
            break
        end -= 1
    return HashedEvent(event, hashlib.sha256(_encode(content[:end])).digest())


def find_fault(event: UsageEvent) -> str | None:
    """Return why an event cannot be stored, or None when it can.

    The sentence names the event and the member, never another value.
    """
    if not _EVENT_ID.fullmatch(event.event_id):
        return "an event_id is not 1 to 64 letters, digits and dashes"
    for name in _TEXTS:
        if not _is_sane(getattr(event, name)):
            return f"event {event.event_id}: {name} is too long or has a NUL character"
    for text in (event.error_code or "", *event.flags):
        if not _is_sane(text):
            return f"event {event.event_id}: error_code or flags too long or with a NUL character"
    for name in _NUMBERS:
        number = getattr(event, name)
        if number is not None and not 0 <= number <= MAX_NUMBER:
            return f"event {event.event_id}: {name} is negative or over 63 bits"
    return None


def split_repeats(
    events: Iterable[HashedEvent],
) -> tuple[dict[str, HashedEvent], list[HashedEvent]]:
    """Part the events of a batch into the first of each id and the rest.

    Returns:
        The first event of each id, by id and in order of id: all writers insert in the same
        order, so that none waits for one that waits for it. And the others.
    """
    first: dict[str, HashedEvent] = {}
    repeats = []
    for hashed in events:
        if hashed.event.event_id in first:
            repeats.append(hashed)
        else:
            first[hashed.event.event_id] = hashed
    return dict(sorted(first.items())), repeats


def find_conflicts(
    events: Iterable[HashedEvent], stored_hashes: Mapping[str, bytes]
) -> list[HashedEvent]:
    """Return the events whose id is stored with another content.

    Args:
        events: Events whose ids are all stored.
        stored_hashes: Fingerprints by event id; an id that is not in it is one that the asker
            may not see, and a conflict.
    """
    return [
        hashed
        for hashed in events
        if stored_hashes.get(hashed.event.event_id) != hashed.content_hash
    ]


def format_cursor(position: Position) -> str:
    """Return a position as the opaque word that a caller hands back."""
    content = f"{position.started_at_us},{position.event_id}".encode()
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def find_position(cursor: str) -> Position | None:
    """Return the position that `format_cursor` wrote, or None when the cursor is not one."""
    padded = cursor + "=" * (-len(cursor) % 4)
    try:
        content = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    microseconds, comma, event_id = content.partition(",")
    is_number = re.fullmatch(r"[0-9]{1,16}", microseconds) is not None
    if not comma or not is_number or not _EVENT_ID.fullmatch(event_id):
        return None
    return Position(int(microseconds), event_id)


@cache
def _defaults(kind: type[UsageEvent]) -> tuple[object, ...]:
    return tuple(field.default for field in msgspec.structs.fields(kind) if not field.required)


def _is_sane(text: str) -> bool:
    return len(text) <= MAX_TEXT_CHARS and "\0" not in text
