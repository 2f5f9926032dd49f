"""Decisions about usage events: pure, no clock, no I/O."""

import base64
import binascii
import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import cache
from operator import attrgetter

import msgspec

from penstock.contract.usage import UsageEvent
from penstock.kit.ids import uuid7_ms
from penstock.metering.model import Arrival, Delivery, HashedEvent, Position, Producer

MAX_NUMBER = 2**63 - 1
"""What a 64-bit column holds; as nanoseconds since the Unix epoch, the year 2262."""
MAX_TEXT_CHARS = 1_024
MAX_LABELS = 16
_DAY_MS = 86_400_000

_EVENT_ID = re.compile(r"[0-9A-Za-z-]{1,64}")
_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_TEXTS = (
    "request_id",
    "organization",
    "project",
    "key_id",
    "model",
    "served_model",
    "upstream",
    "operation",
    "data_class",
    "region",
    "service_tier",
    "upstream_request_id",
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
    "cache_write_input_tokens",
    "audio_input_tokens",
    "audio_output_tokens",
    "image_count",
    "audio_seconds",
    "characters",
)
_texts_of = attrgetter(*_TEXTS)
_numbers_of = attrgetter(*_NUMBERS)
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


def day_of(event_id: str) -> int:
    """Return the day of an event, counted since the Unix epoch: what its id says, and that alone.

    So an event that is delivered again is looked for where it was put, whatever else it says now.

    >>> day_of("01977f5e-3c00-7000-8000-000000000000")
    20256
    >>> day_of("made-elsewhere")
    0
    """
    if _UUID7.fullmatch(event_id) is None:
        return 0
    return uuid7_ms(event_id) // _DAY_MS


def find_fault(event: UsageEvent) -> str | None:
    """Return why an event cannot be stored, or None when it can.

    The sentence names the event and the member, never another value.
    """
    if not _EVENT_ID.fullmatch(event.event_id):
        return "an event_id is not 1 to 64 letters, digits and dashes"
    texts = _texts_of(event)
    # All at once: an event in a million has a fault.
    is_sane = max(map(len, texts)) <= MAX_TEXT_CHARS and "\0" not in "".join(texts)
    for name in () if is_sane else _TEXTS:
        if not _is_sane(getattr(event, name)):
            return f"event {event.event_id}: {name} is too long or has a NUL character"
    for text in (event.error_code or "", *event.flags):
        if not _is_sane(text):
            return f"event {event.event_id}: error_code or flags too long or with a NUL character"
    for name, number in zip(_NUMBERS, _numbers_of(event), strict=True):
        if number is not None and not 0 <= number <= MAX_NUMBER:
            return f"event {event.event_id}: {name} is negative or over 63 bits"
    return _find_fault_in_lists(event)


def _find_fault_in_lists(event: UsageEvent) -> str | None:
    if len(event.labels) > MAX_LABELS or not all(
        _is_sane(text) for pair in event.labels for text in pair
    ):
        return f"event {event.event_id}: labels are too many, too long or with a NUL character"
    for attempt in event.earlier_attempts:
        is_sane = _is_sane(attempt.upstream) and _is_sane(attempt.reason)
        times = (attempt.started_at_ns, attempt.finished_at_ns)
        if not is_sane or not all(0 <= time_ns <= MAX_NUMBER for time_ns in times):
            return f"event {event.event_id}: an earlier attempt is out of range"
    return None


def split_repeats(arrivals: Iterable[Arrival]) -> tuple[dict[str, Arrival], list[Arrival]]:
    """Part what arrived into the first of each id and the rest.

    Returns:
        The first event of each id, by id and in order of id: all writers insert in the same
        order, so that none waits for one that waits for it. And the others.
    """
    first: dict[str, Arrival] = {}
    repeats = []
    for arrival in arrivals:
        event_id = arrival.hashed.event.event_id
        if event_id in first:
            repeats.append(arrival)
        else:
            first[event_id] = arrival
    return dict(sorted(first.items())), repeats


def follow(producer: Producer, delivery: Delivery, new_ids: Collection[str]) -> Producer:
    """Return how far a journal is stored once a delivery of it is.

    Its place moves on only where the delivery begins at it, or before. Behind a gap it stays: what
    is between was stored by what the node knows, but not in this database, which was set back.

    Args:
        producer: How far it is now.
        delivery: What came.
        new_ids: Those of its events that were not stored.
    """
    is_joined = delivery.begin <= producer.place
    days = [day_of(event_id) for event_id in new_ids]
    if producer.event_count:
        days += [producer.first_day, producer.last_day]
    return replace(
        producer,
        place=max(producer.place, delivery.end) if is_joined else producer.place,
        event_count=producer.event_count + len(new_ids),
        first_day=min(days, default=0),
        last_day=max(days, default=0),
        seen_at_us=max(producer.seen_at_us, delivery.recorded_at_us),
    )


def find_conflicts(
    arrivals: Iterable[Arrival], stored_hashes: Mapping[str, bytes]
) -> list[Arrival]:
    """Return the events whose id is stored with another content.

    Args:
        arrivals: Events whose ids are all stored.
        stored_hashes: Fingerprints by event id; an id that is not in it is one that the asker
            may not see, and a conflict.
    """
    return [
        arrival
        for arrival in arrivals
        if stored_hashes.get(arrival.event.event_id) != arrival.hashed.content_hash
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
