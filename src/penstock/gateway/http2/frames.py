"""Frames of HTTP/2 (RFC 9113, sections 4 and 6): read strictly, written plainly."""

from collections.abc import Iterator
from enum import IntEnum
from struct import Struct
from typing import Final

from penstock.gateway.limits import H2_BLOCK_BYTES, H2_CONTINUATIONS

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_BYTES: Final = 16_384
"""Largest payload in both directions: what every peer takes, and all that we take."""
MOST: Final = 2**31 - 1
"""Largest window, and largest number of a stream."""

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY = range(8)
WINDOW_UPDATE, CONTINUATION = 8, 9

ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
_PRIORITY_FLAG: Final = 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 1, 2, 3, 4
MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 5, 6

_HEADER: Final = Struct(">HBBBL")
_HEADER_BYTES: Final = 9
_LONG: Final = Struct(">L")
_SETTING: Final = Struct(">HL")
_FIXED_BYTES: Final = {PRIORITY: 5, RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
_LARGEST_FRAME: Final = 2**24 - 1
_OF_CONNECTION: Final = frozenset({SETTINGS, PING, GOAWAY})
_OF_STREAM: Final = frozenset({DATA, HEADERS, PRIORITY, RST_STREAM, CONTINUATION})

Frame = tuple[int, int, int, bytes]
"""Kind, flags, number of the stream, payload."""


class ErrorCode(IntEnum):
    """Why a stream or a connection ends (RFC 9113, 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class ConnectionFault(Exception):  # noqa: N818 - it is the peer's fault, and not ours
    """The peer broke a rule after which nothing of the connection can be trusted.

    Args:
        code: What it is told.
        reason: The same in words.
    """

    def __init__(self, code: ErrorCode, reason: str) -> None:
        """See the class."""
        super().__init__(reason)
        self.code = code


class FrameReader:
    """Frames out of bytes that arrive in any pieces; header blocks are put together.

    It holds one frame and one header block at most.
    """

    __slots__ = ("_block", "_block_flags", "_block_stream", "_continuations", "_rest", "count")

    def __init__(self) -> None:
        """Begin behind the preface."""
        self._rest = b""
        self._block = b""
        self._block_flags = self._block_stream = self._continuations = 0
        self.count = 0
        """Frames that came."""

    @property
    def is_inside_frame(self) -> bool:
        """Whether the end of something that began has not arrived yet."""
        return bool(self._rest or self._block_stream)

    def read(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that `data` completes.

        HEADERS come with their whole block, without padding and priority; CONTINUATION never.

        Raises:
            ConnectionFault: What came is no frame, or not allowed where it is.
        """
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at, end = 0, len(data)
        while end - at >= _HEADER_BYTES:
            high, low, kind, flags, stream_id = _HEADER.unpack_from(data, at)
            length = high << 8 | low
            stream_id &= MOST
            if length > FRAME_BYTES:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a frame is too large")
            begin = at + _HEADER_BYTES
            if end - begin < length:
                break
            at = begin + length
            self.count += 1
            payload = data[begin:at]
            if kind != DATA or stream_id == 0 or self._block_stream:
                _check(kind, flags, stream_id, length)
                if kind in (HEADERS, CONTINUATION) or self._block_stream:
                    whole = self._gather(kind, flags, stream_id, payload)
                    if whole is not None:
                        yield whole
                    continue
            yield kind, flags, stream_id, payload
        self._rest = data[at:]

    def _gather(self, kind: int, flags: int, stream_id: int, payload: bytes) -> Frame | None:
        """Put a header block together; nothing else may come between its parts."""
        if (kind == CONTINUATION) != bool(self._block_stream) or (
            self._block_stream and stream_id != self._block_stream
        ):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a header block is torn apart")
        if kind == HEADERS:
            payload = _bare_block(unpad(payload, flags), flags)
            if flags & END_HEADERS:
                return HEADERS, flags, stream_id, payload
            self._block_flags, self._block_stream = flags, stream_id
            self._block, self._continuations = payload, 0
            return None
        self._continuations += 1
        self._block += payload
        if self._continuations > H2_CONTINUATIONS or len(self._block) > H2_BLOCK_BYTES:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a header block is too long")
        if not flags & END_HEADERS:
            return None
        whole = HEADERS, self._block_flags, stream_id, self._block
        self._block, self._block_stream = b"", 0
        return whole


def _check(kind: int, flags: int, stream_id: int, length: int) -> None:
    """Refuse frames of a size that their kind never has, or on a stream where it is not known."""
    if (kind in _OF_STREAM and stream_id == 0) or (kind in _OF_CONNECTION and stream_id):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame is on the wrong stream")
    if kind == PUSH_PROMISE:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "nothing may be pushed")
    is_odd = length != _FIXED_BYTES.get(kind, length)
    if kind == SETTINGS:
        is_odd = bool(length % _SETTING.size or (flags & ACK and length))
    elif kind == GOAWAY:
        is_odd = length < 2 * _LONG.size
    if is_odd:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a frame has a wrong size")


def unpad(payload: bytes, flags: int) -> bytes:
    """Return a payload without its padding.

    Raises:
        ConnectionFault: There is more padding than payload.
    """
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame is padded beyond its end")
    return payload[1 : len(payload) - payload[0]]


def _bare_block(payload: bytes, flags: int) -> bytes:
    """Return a header block without the priority before it, which means nothing any more."""
    if not flags & _PRIORITY_FLAG:
        return payload
    if len(payload) < _FIXED_BYTES[PRIORITY]:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a frame ends within its priority")
    return payload[_FIXED_BYTES[PRIORITY] :]


def read_settings(payload: bytes) -> dict[int, int]:
    """Return the settings of a frame, the last of each kind.

    Raises:
        ConnectionFault: One of them cannot be.
    """
    settings = dict(_SETTING.iter_unpack(payload))
    if settings.get(INITIAL_WINDOW_SIZE, 0) > MOST:
        raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window is too large")
    is_frame_size = FRAME_BYTES <= settings.get(MAX_FRAME_SIZE, FRAME_BYTES) <= _LARGEST_FRAME
    if not is_frame_size or settings.get(ENABLE_PUSH, 0) > 1:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a setting cannot be")
    return settings


def read_number(payload: bytes) -> int:
    """Return the number that a payload begins with: of a window, a stream or an error."""
    number: int = _LONG.unpack_from(payload)[0]
    return number


def read_code(number: int) -> ErrorCode:
    """Return an error's code; those that nobody knows mean an internal error (RFC 9113, 7)."""
    return ErrorCode(number) if number < len(ErrorCode) else ErrorCode.INTERNAL_ERROR


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """Write a frame of at most `FRAME_BYTES`."""
    length = len(payload)
    return _HEADER.pack(length >> 8, length & 255, kind, flags, stream_id) + payload


def settings_frame(settings: dict[int, int]) -> bytes:
    """Write settings."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*item) for item in settings.items()))


def number_frame(kind: int, stream_id: int, number: int) -> bytes:
    """Write a frame whose payload is a number: RST_STREAM or WINDOW_UPDATE."""
    return _HEADER.pack(0, _LONG.size, kind, 0, stream_id) + _LONG.pack(number)


def goaway_frame(last_id: int, code: ErrorCode, reason: str = "") -> bytes:
    """Write the end of a connection: what was begun up to a stream goes on."""
    return frame(GOAWAY, 0, 0, _LONG.pack(last_id) + _LONG.pack(code) + reason.encode("ascii"))


def headers_frames(stream_id: int, block: bytes, *, is_end: bool) -> bytes:
    """Write a header block, in as many frames as it takes."""
    flags = END_STREAM if is_end else 0
    if len(block) <= FRAME_BYTES:
        return frame(HEADERS, flags | END_HEADERS, stream_id, block)
    written, kind = [], HEADERS
    for at in range(0, len(block), FRAME_BYTES):
        is_last = at + FRAME_BYTES >= len(block)
        piece = block[at : at + FRAME_BYTES]
        written.append(frame(kind, flags | (END_HEADERS if is_last else 0), stream_id, piece))
        kind, flags = CONTINUATION, 0
    return b"".join(written)
