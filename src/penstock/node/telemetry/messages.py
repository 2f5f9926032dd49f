"""Messages of OTLP as bytes: what is sent, of traces above all, and what an answer says. Pure.

They are written field by field: that takes a small part of the time of the usual library, and for
HTTP nothing has to be installed. Source: opentelemetry-proto, `trace.proto` and `common.proto`.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final, Literal, TypeAlias

from penstock.kit.protobuf import (
    MalformedError,
    Message,
    key_of,
    length_field,
    length_head,
    once,
    signed,
    varint,
    varint_field,
)

Value: TypeAlias = str | int | bool | None
"""Of an attribute; None and "" for one that is not said."""
Kind: TypeAlias = Literal[1, 2, 3]
SpanWriter: TypeAlias = Callable[[bytes, int, int, int, int], bytes]
"""Takes the id of a trace, those of a span and its parent, and when it began and ended."""

INTERNAL: Final = 1
SERVER: Final = 2
CLIENT: Final = 3
TEXT_CHARACTERS: Final = 256
"""Longest text in an attribute."""
_ERROR: Final = length_field(15, varint_field(3, 2))
_FLAGS: Final = b"\x85\x01%b\0\0\0"
"""Field 16, 32 bits."""
ENDS: Final = {
    (is_sampled, is_error): _FLAGS % (b"\1" if is_sampled else b"\0") + _ERROR * is_error
    for is_sampled in (False, True)
    for is_error in (False, True)
}
"""What a span says of itself, by whether it is sampled and whether it is an error."""
_ROOT: Final = struct.Struct("<H16sHQBQBQ")
_CHILD: Final = struct.Struct("<H16sHQHQBQBQ")
_IDS: Final = struct.Struct("<16sQ")
_TRACE_HEAD, _SPAN_HEAD, _PARENT_HEAD = 16 << 8 | 0x0A, 8 << 8 | 0x12, 8 << 8 | 0x22
"""Key and length, as they lie."""
_START_KEY, _END_KEY = 7 << 3 | 1, 8 << 3 | 1
_SPANS_ATTRIBUTE, _RESOURCES_ATTRIBUTE = 9, 1
_PARTS: Final = 2
"""Of a scope: its spans, or its metrics."""
_LARGEST: Final = (1 << 63) - 1
_UINT64: Final = 1 << 64


def read_ids(trace_id: str, span_id: str) -> tuple[bytes, int]:
    """Return the ids of a trace and of one of its spans as they are written.

    Args:
        trace_id: 32 hexadecimal digits.
        span_id: 16 of them: the first are the lowest bits of the number that is returned, so that
            a part's digit is set by `|`.
    """
    ids: tuple[bytes, int] = _IDS.unpack(bytes.fromhex(trace_id + span_id))
    return ids


def span_number(span_id: str) -> int:
    """Return the id of a span as the number that is written of it; 0 for ""."""
    return int.from_bytes(bytes.fromhex(span_id), "little")


def write_span(
    trace_id: bytes, span_id: int, parent_id: int, during: tuple[int, int], said: bytes
) -> bytes:
    """Return a span as a field of the message that has many.

    Args:
        trace_id: 16 bytes.
        span_id: Of the span, as `span_number` returned it.
        parent_id: The same of its parent; 0 when it has none.
        during: When it began and ended, nanoseconds since the Unix epoch, >= 0.
        said: What `describe_span` returned, one of `ENDS`, and further attributes.
    """
    start, end = _START_KEY, _END_KEY
    began_ns, ended_ns = during
    if parent_id:
        head = _CHILD.pack(
            _TRACE_HEAD,
            trace_id,
            _SPAN_HEAD,
            span_id,
            _PARENT_HEAD,
            parent_id,
            start,
            began_ns,
            end,
            ended_ns,
        )
    else:
        head = _ROOT.pack(
            _TRACE_HEAD, trace_id, _SPAN_HEAD, span_id, start, began_ns, end, ended_ns
        )
    return length_head(_PARTS, len(head) + len(said)) + head + said


def span_writer(said: bytes) -> SpanWriter:
    """Return what writes spans of which nothing else is said: as `write_span`, with one call.

    Args:
        said: As there.
    """
    head = length_head(_PARTS, _CHILD.size + len(said)) + _TRACE_HEAD.to_bytes(2, "little")
    pack = struct.Struct(f"<{len(head)}s16sHQHQBQBQ{len(said)}s").pack

    def write(trace_id: bytes, span_id: int, parent_id: int, began_ns: int, ended_ns: int) -> bytes:
        return pack(
            head,
            trace_id,
            _SPAN_HEAD,
            span_id,
            _PARENT_HEAD,
            parent_id,
            _START_KEY,
            began_ns,
            _END_KEY,
            ended_ns,
            said,
        )

    return write


def describe_span(name: str, kind: Kind, attributes: Mapping[str, Value]) -> bytes:
    """Return what many spans have in common: whoever writes many keeps it."""
    return b"".join([length_field(5, _text(name)), varint_field(6, kind), describe(attributes)])


def describe(attributes: Mapping[str, Value]) -> bytes:
    """Return attributes of a span."""
    return b"".join(write_attributes(attributes, _SPANS_ATTRIBUTE))


def say_text(name: str, text: str) -> bytes:
    """Return an attribute of a span that is another in each; "" is not said."""
    if not text:
        return b""
    content = text[:TEXT_CHARACTERS].encode("utf-8", "replace")
    return _text_head(name, len(content), _SPANS_ATTRIBUTE) + content


@lru_cache(maxsize=8_192, typed=True)
def say_number(name: str, value: int | None) -> bytes:
    """Return an attribute of a span that is another in each; None is not said."""
    return b"" if value is None else _write_number(name, value, _SPANS_ATTRIBUTE)


def write_resource(attributes: Mapping[str, Value]) -> bytes:
    """Return who sends as a message."""
    return b"".join(write_attributes(attributes, _RESOURCES_ATTRIBUTE))


def write_attributes(attributes: Mapping[str, Value], number: int) -> list[bytes]:
    """Return attributes as fields, but for those that are not said.

    Args:
        attributes: By name.
        number: Of the field that they are.
    """
    return [
        _write_text(name, value, number)
        if isinstance(value, str)
        else _write_number(name, value, number)
        for name, value in attributes.items()
        if value is not None and value != ""
    ]


def _write_text(name: str, value: str, number: int) -> bytes:
    """Return an attribute as a field of that number."""
    text = _text(value)
    return _text_head(name, len(text), number) + text


@lru_cache(maxsize=4_096)
def _text_head(name: str, size_bytes: int, number: int) -> bytes:
    text = length_head(1, size_bytes)
    value = length_head(2, len(text) + size_bytes) + text
    said = _name(name) + value
    return length_head(number, len(said) + size_bytes) + said


def _write_number(name: str, value: int, number: int) -> bytes:
    """Return an attribute as a field of that number; True and False are flags."""
    is_flag = value is True or value is False
    said = b"\x10%c" % value if is_flag else b"\x18" + varint(_as_unsigned(value))
    return length_field(number, _name(name) + length_field(2, said))


def _as_unsigned(value: int) -> int:
    return max(-_LARGEST - 1, min(value, _LARGEST)) % _UINT64


def write_part(content: bytes) -> bytes:
    """Return a metric as a field of the message that has many, as `write_span` does it."""
    return length_field(_PARTS, content)


def write_request(resource: bytes, scope: str, version: str, parts: Sequence[bytes]) -> bytes:
    """Return a request that sends spans, or metrics: both look the same.

    Args:
        resource: Who sends, as `write_resource` has it.
        scope: What made them.
        version: Of that.
        parts: As `write_span` and `write_part` return them.
    """
    instrument = length_field(1, _text(scope)) + length_field(2, _text(version))
    head = length_field(1, instrument)
    # What all of it lies in is told from its size: a large message is put together once.
    size_bytes = len(head) + sum(map(len, parts))
    source = length_field(1, resource) + length_head(2, size_bytes) + head
    return b"".join([length_head(1, len(source) - len(head) + size_bytes), source, *parts])


def read_rejected(answer: bytes) -> int:
    """Return how much of what was sent an answer says to be refused, >= 0."""
    message = Message(answer, most_fields=64)
    try:
        partial = once(message.fields(), key_of(1))
        rejected = once(message.part(partial), key_of(1, is_varint=True))
    except MalformedError:
        return 0  # it took the message, whatever it answered
    return 0 if rejected is None else max(signed(rejected.value), 0)


@lru_cache(maxsize=256)
def _name(name: str) -> bytes:
    return length_field(1, name.encode())


def _text(text: str) -> bytes:
    return text[:TEXT_CHARACTERS].encode("utf-8", "replace")
