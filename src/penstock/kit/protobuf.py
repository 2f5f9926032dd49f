"""Protocol buffers on the wire: fields read where they lie, and written. Pure.

For those who look at a few fields and pass the others as they are: nothing is copied or decoded
before somebody asks for it. Source: the encoding's public description.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

import msgspec

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES = 10
_KEY_BYTES = 5
_CONTINUED = 0x80
_UINT64: Final = 1 << 64
_INT64_MAX: Final = (1 << 63) - 1


class MalformedError(ValueError):
    """The bytes are no message, or one with more fields than anybody sends."""


class Field(msgspec.Struct, frozen=True, gc=False):
    """One field of a message, by its place in the bytes. A struct is made faster than a tuple."""

    key: int
    """Number and wire type, as `key_of` has it."""
    begin: int
    """Where it begins, key included."""
    start: int
    """Where its content begins."""
    end: int
    """Behind its content."""
    value: int
    """Of a varint."""


def key_of(number: int, *, is_varint: bool = False) -> int:
    """Return the key of a field: a varint, or something with a length."""
    return number << 3 | (_VARINT if is_varint else _LENGTH)


class Message:
    """A message whose parts are read where they lie, no more fields of them than are allowed.

    Args:
        data: Bytes that it ends.
        start: Where it begins in them.
        most_fields: How many it may have, those of its parts included.
    """

    __slots__ = ("_left", "_start", "data")

    def __init__(self, data: bytes, start: int = 0, *, most_fields: int = 16_384) -> None:
        """See the class."""
        self.data = data
        self._start = start
        self._left = most_fields

    def fields(self) -> list[Field]:
        """Return its fields in their order.

        Raises:
            MalformedError: It is no message, or has too many.
        """
        return self._read(self._start, len(self.data))

    def part(self, field: Field | None) -> list[Field]:
        """Return the fields of a part that is a message itself; none when it is absent.

        Raises:
            MalformedError: It is none, or there are too many by now.
        """
        return [] if field is None else self._read(field.start, field.end)

    def content(self, field: Field) -> bytes:
        """Return the content of a field."""
        return self.data[field.start : field.end]

    def text(self, field: Field | None) -> str:
        """Return a text, "" when it is absent.

        Raises:
            UnicodeDecodeError: It is not UTF-8.
        """
        return "" if field is None else self.data[field.start : field.end].decode()

    def _read(self, at: int, end: int) -> list[Field]:
        found = read_fields(self.data, at, end, self._left)
        self._left -= len(found)
        return found


def read_fields(data: bytes, at: int, end: int, most: int) -> list[Field]:
    """Return the fields of a message in their order.

    Args:
        data: Bytes in which it lies.
        at: Where it begins.
        end: Where it ends, <= len(data).
        most: How many fields it may have.

    Raises:
        MalformedError: It is no message, or has more.
    """
    found: list[Field] = []
    while at < end:
        begin = at
        key = data[at]
        at += 1
        if key >= _CONTINUED:
            key, at = _read_varint(data, begin, end, _KEY_BYTES)
        value, wire = 0, key & 7
        if wire == _LENGTH or wire == _VARINT:  # noqa: PLR1714, SIM109 - faster
            if at >= end:
                raise MalformedError
            value = data[at]
            at += 1
            if value >= _CONTINUED:
                value, at = _read_varint(data, at - 1, end, _VARINT_BYTES)
            start = at
            if wire == _LENGTH:
                at += value
        elif wire in {_FIXED32, _FIXED64}:
            start = at
            at += 4 if wire == _FIXED32 else 8
        else:  # groups, which nobody has written since 2008, and what is no wire type
            raise MalformedError
        if at > end or key < 8 or len(found) >= most:  # noqa: PLR2004 - field 0 is none
            raise MalformedError
        found.append(Field(key, begin, start, at, value))
    return found


def _read_varint(data: bytes, at: int, end: int, most_bytes: int) -> tuple[int, int]:
    """Return a varint and where it ends."""
    value = shift = 0
    for position in range(at, min(end, at + most_bytes)):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < _CONTINUED:
            return value % _UINT64, position + 1
        shift += 7
    raise MalformedError


def read_varints(data: bytes, at: int, end: int, most: int) -> list[int]:
    """Return packed varints.

    Raises:
        MalformedError: They are none, or more than `most`.
    """
    found: list[int] = []
    while at < end:
        if len(found) >= most:
            raise MalformedError
        value, at = _read_varint(data, at, end, _VARINT_BYTES)
        found.append(value)
    return found


def signed(value: int) -> int:
    """Return what a varint is as `int32` or `int64`."""
    return value if value <= _INT64_MAX else value - _UINT64


def varint(value: int) -> bytes:
    """Return a number as a varint.

    Args:
        value: From 0 to 2**64 - 1.
    """
    if value < _CONTINUED:
        return b"%c" % value
    out = bytearray()
    while value >= _CONTINUED:
        out.append(value & 0x7F | _CONTINUED)
        value >>= 7
    out.append(value)
    return bytes(out)


@lru_cache(maxsize=4_096)
def length_head(number: int, size_bytes: int) -> bytes:
    """Return what stands before the content of a field with a length."""
    return varint(key_of(number)) + varint(size_bytes)


def length_field(number: int, content: bytes) -> bytes:
    """Return a field with a length: text, bytes or a message."""
    return length_head(number, len(content)) + content


def varint_field(number: int, value: int) -> bytes:
    """Return a field with a number, >= 0, or a flag."""
    return varint(key_of(number, is_varint=True)) + varint(value)


def join_slices(data: bytes, fields: Iterable[Field]) -> bytes:
    """Return fields as they lie in `data`, in one piece; neighbours are copied at once."""
    pieces: list[bytes] = []
    start = end = 0
    for field in fields:
        if field.begin != end:
            pieces.append(data[start:end])
            start = field.begin
        end = field.end
    pieces.append(data[start:end])
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def once(fields: Iterable[Field], key: int) -> Field | None:
    """Return a field that is no list; None when it is absent.

    Raises:
        MalformedError: It is there twice: readers of it could differ.
    """
    found = None
    for field in fields:
        if field.key == key:
            if found is not None:
                raise MalformedError
            found = field
    return found
