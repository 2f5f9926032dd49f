"""Header fields of HTTP/2: HPACK (RFC 7541), and which fields may be (RFC 9113, section 8).

We read what a peer's table says and write without one: a table of ours would be shared by the
requests of all organizations on a connection to an engine. Static table and Huffman code are those
of the library `hpack`; its decoder takes ten times as long as ours (docs/adr/0038).
"""

from collections import deque
from collections.abc import Iterable
from enum import IntEnum
from typing import Final

from hpack.exceptions import HPACKDecodingError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from penstock.gateway.http2.frames import ConnectionFault, ErrorCode
from penstock.gateway.limits import H2_BLOCK_BYTES, H2_BLOCKS_KNOWN, H2_FIELDS_BYTES, HEADER_FIELDS

Field = tuple[bytes, bytes]
Fields = tuple[Field, ...]

TABLE_BYTES: Final = 4_096
"""Of a peer's table; what every peer may use unless it is told otherwise."""
_OVERHEAD: Final = 32
"""What an entry counts for beside its name and value."""
_SIZE_UPDATES: Final = 2
"""Of the table, at the start of a block."""
_STATIC: Final[Fields] = tuple(HeaderTable.STATIC_TABLE)
_STATIC_BASE: Final = len(_STATIC) + 1
_STATIC_INDEX: Final = {field: index + 1 for index, field in enumerate(_STATIC)}
_STATIC_NAMES: Final = {name: index + 1 for index, (name, _) in reversed([*enumerate(_STATIC)])}
_INTEGER_BITS: Final = 28
_NAME_CHARS: Final = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
_OF_HTTP_1: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
)
_SECRET: Final = frozenset({b"authorization", b"x-api-key", b"api-key"})
_REQUEST: Final = {b":method", b":scheme", b":path", b":authority"}
_REQUIRED: Final = {b":method", b":scheme", b":path"}


class Kind(IntEnum):
    """What a list of fields can be."""

    REQUEST = 0
    ANSWER = 1
    TRAILERS = 2
    MALFORMED = 3
    TOO_LARGE = 4


class FieldDecoder:
    """A peer's table, and the blocks that speak of it.

    Blocks that change nothing of the table mean the same as long as it stays: they are remembered.
    """

    __slots__ = ("_known", "_size", "_size_bytes", "_table")

    def __init__(self) -> None:
        """Begin with an empty table."""
        self._table: deque[Field] = deque()
        self._size = 0
        self._size_bytes = TABLE_BYTES
        self._known: dict[bytes, tuple[Fields, Kind]] = {}

    def decode(self, block: bytes) -> tuple[Fields, Kind]:
        """Return the fields of a block, and what they can be.

        Raises:
            ConnectionFault: It is no block, or one that unfolds beyond all measure: nothing that
                follows could be understood.
        """
        known = self._known.get(block)
        if known is not None:
            return known
        try:
            fields, does_change = self._decode(block)
        except (IndexError, HPACKDecodingError):
            raise ConnectionFault(
                ErrorCode.COMPRESSION_ERROR, "a header block cannot be read"
            ) from None
        decoded = fields, kind_of(fields)
        if does_change or len(self._known) >= H2_BLOCKS_KNOWN:
            self._known.clear()
        if not does_change:
            self._known[block] = decoded
        return decoded

    def _decode(self, block: bytes) -> tuple[Fields, bool]:
        fields: list[Field] = []
        at, end, unfolded = 0, len(block), 0
        does_change, updates = False, 0
        while at < end:
            first = block[at]
            if first & 0x80:
                index = first & 0x7F
                at += 1
                if index == 0x7F:  # noqa: PLR2004 - mask
                    index, at = _read_integer(block, at, index)
                field = self._entry(index)
            elif first & 0xE0 == 0x20:  # noqa: PLR2004 - another size of the table
                size, at = _read_prefixed(block, at, 0x1F)
                updates += 1
                if fields or updates > _SIZE_UPDATES or size > TABLE_BYTES:
                    raise IndexError
                self._size_bytes, does_change = size, True
                self._evict()
                continue
            else:
                is_kept = bool(first & 0x40)
                field, at = self._read_literal(block, at, 0x3F if is_kept else 0x0F)
                if is_kept:
                    self._keep(field)
                    does_change = True
            fields.append(field)
            unfolded += len(field[0]) + len(field[1]) + _OVERHEAD
            if unfolded > H2_BLOCK_BYTES:
                raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a header block unfolds")
        return tuple(fields), does_change

    def _read_literal(self, block: bytes, at: int, mask: int) -> tuple[Field, int]:
        index, at = _read_prefixed(block, at, mask)
        if index:
            name = self._entry(index)[0]
        else:
            name, at = _read_text(block, at)
        value, at = _read_text(block, at)
        return (name, value), at

    def _entry(self, index: int) -> Field:
        if index < _STATIC_BASE:
            if index == 0:
                raise IndexError
            return _STATIC[index - 1]
        return self._table[index - _STATIC_BASE]

    def _keep(self, field: Field) -> None:
        self._table.appendleft(field)
        self._size += len(field[0]) + len(field[1]) + _OVERHEAD
        self._evict()

    def _evict(self) -> None:
        while self._size > self._size_bytes:
            name, value = self._table.pop()
            self._size -= len(name) + len(value) + _OVERHEAD


def _read_prefixed(block: bytes, at: int, mask: int) -> tuple[int, int]:
    number = block[at] & mask
    return (number, at + 1) if number < mask else _read_integer(block, at + 1, number)


def _read_integer(block: bytes, at: int, number: int) -> tuple[int, int]:
    """Read the rest of a number that its prefix did not hold."""
    shift = 0
    while True:
        byte = block[at]
        at += 1
        number += (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the last one
            return number, at
        shift += 7
        if shift > _INTEGER_BITS:
            raise IndexError


def _read_text(block: bytes, at: int) -> tuple[bytes, int]:
    is_coded = block[at] & 0x80
    length, at = _read_prefixed(block, at, 0x7F)
    end = at + length
    if end > len(block):
        raise IndexError
    text = block[at:end]
    return (decode_huffman(text) if is_coded else text), end


def kind_of(fields: Fields) -> Kind:
    """Return what a list of fields can be.

    Names are in lower case, values hold no end of a line and no white space around them, fields of
    a connection and doubled pseudo fields are not there, and pseudo fields come first.
    """
    if len(fields) > HEADER_FIELDS:
        return Kind.TOO_LARGE
    pseudo: set[bytes] = set()
    is_behind, size = False, 0
    for name, value in fields:
        size += len(name) + len(value) + _OVERHEAD
        if name[:1] == b":":
            if is_behind or name in pseudo:
                return Kind.MALFORMED
            pseudo.add(name)
        else:
            is_behind = True
            if not name or name in _OF_HTTP_1 or not _NAME_CHARS.issuperset(name):
                return Kind.MALFORMED
            if name == b"te" and value != b"trailers":
                return Kind.MALFORMED
        if value != value.strip(b" \t") or b"\n" in value or b"\r" in value or b"\0" in value:
            return Kind.MALFORMED
    if size > H2_FIELDS_BYTES:
        return Kind.TOO_LARGE
    return _kind_by_pseudo(fields, pseudo)


def _kind_by_pseudo(fields: Fields, pseudo: set[bytes]) -> Kind:
    if not pseudo:
        return Kind.TRAILERS
    if pseudo == {b":status"}:
        status = fields[0][1]
        is_status = len(status) == 3 and status.isdigit()  # noqa: PLR2004 - as all have
        return Kind.ANSWER if is_status else Kind.MALFORMED
    is_request = _REQUIRED <= pseudo <= _REQUEST and dict(fields)[b":path"]
    return Kind.REQUEST if is_request else Kind.MALFORMED


def encode_fields(fields: Iterable[Field]) -> bytes:
    """Write fields as a header block that needs no table but the static one.

    Such blocks may be made once, kept, and put one behind the other. Secrets are marked as never
    to be kept in any table.
    """
    written = []
    for field in fields:
        index = _STATIC_INDEX.get(field)
        if index is not None:
            written.append(bytes((0x80 | index,)))
            continue
        name, value = field
        first = 0x10 if name in _SECRET else 0
        index = _STATIC_NAMES.get(name)
        if index is None:
            written += (bytes((first,)), _length(len(name)), name)
        else:
            written.append(_integer(index, 0x0F, first))
        written += (_length(len(value)), value)
    return b"".join(written)


def _length(length: int) -> bytes:
    return bytes((length,)) if length < 0x7F else _integer(length, 0x7F, 0)  # noqa: PLR2004 - mask


def _integer(number: int, mask: int, first: int) -> bytes:
    if number < mask:
        return bytes((first | number,))
    number -= mask
    written = bytearray((first | mask,))
    while number >= 0x80:  # noqa: PLR2004 - more follows
        written.append(0x80 | number & 0x7F)
        number >>= 7
    written.append(number)
    return bytes(written)
