"""gRPC on HTTP/2: framing of messages, status codes, time-outs. Pure.

Source: the protocol's public description, "gRPC over HTTP2", and its list of status codes.
"""

import re
from enum import IntEnum
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from penstock.gateway.dialects.errors import ADMIN_PATH, GRPC_UNSUPPORTED, PROTOCOL_UNSUPPORTED
from penstock.gateway.errors import (
    BODY_TOO_LARGE,
    CALLER_GONE,
    CONNECT_FAILED,
    ENCODING_UNSUPPORTED,
    NOT_FOUND,
)
from penstock.kit.errors import Refusal, Source

PREFIX_BYTES: Final = 5
"""Before each message: whether it is compressed, and its length."""


class Status(IntEnum):
    """How a call ended."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


_BY_ERROR: Final = {
    ADMIN_PATH.code: Status.PERMISSION_DENIED,
    CALLER_GONE.code: Status.CANCELLED,
    CONNECT_FAILED.code: Status.UNAVAILABLE,
    ENCODING_UNSUPPORTED.code: Status.UNIMPLEMENTED,
    GRPC_UNSUPPORTED.code: Status.FAILED_PRECONDITION,
    NOT_FOUND.code: Status.UNIMPLEMENTED,
    PROTOCOL_UNSUPPORTED.code: Status.FAILED_PRECONDITION,
}
_BY_HTTP: Final = {
    401: Status.UNAUTHENTICATED,
    402: Status.RESOURCE_EXHAUSTED,
    403: Status.PERMISSION_DENIED,
    404: Status.NOT_FOUND,
    408: Status.DEADLINE_EXCEEDED,
    413: Status.RESOURCE_EXHAUSTED,  # what libraries of gRPC say of a message that is too large
    429: Status.RESOURCE_EXHAUSTED,
    431: Status.RESOURCE_EXHAUSTED,
    502: Status.INTERNAL,
    503: Status.UNAVAILABLE,
    504: Status.DEADLINE_EXCEEDED,
}
_AS_HTTP: Final = {
    Status.INVALID_ARGUMENT: 400,
    Status.OUT_OF_RANGE: 400,
    Status.FAILED_PRECONDITION: 400,
    Status.UNAUTHENTICATED: 401,
    Status.PERMISSION_DENIED: 403,
    Status.NOT_FOUND: 404,
    Status.RESOURCE_EXHAUSTED: 429,
    Status.UNIMPLEMENTED: 501,
    Status.UNAVAILABLE: 503,
}
_ERROR = 500
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNIT_S: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_MOST_MS = 99_999_999
_PLAIN: Final = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
_RETRY_CODES: Final = frozenset({Status.RESOURCE_EXHAUSTED, Status.UNAVAILABLE})


def status_of(refusal: Refusal, http_status: int | None = None) -> Status:
    """Return how a call ends that is refused, or fails.

    Args:
        refusal: Why.
        http_status: What HTTP would answer; the refusal's own when None.
    """
    error = refusal.error
    status = http_status or error.status
    by_default = Status.INVALID_ARGUMENT if error.source is Source.DOWNSTREAM else Status.INTERNAL
    return _BY_ERROR.get(error.code) or _BY_HTTP.get(status, by_default)


def may_be_waited_for(status: Status) -> bool:
    """Return whether the same call may succeed later."""
    return status in _RETRY_CODES


def as_http(status: int) -> int:
    """Return the HTTP status that says the same as a server's status code, which is not OK."""
    return _AS_HTTP.get(status, _ERROR)  # type: ignore[call-overload, no-any-return]


def prefix(size: int) -> bytes:
    """Return what stands before an uncompressed message of this size."""
    return b"\0" + size.to_bytes(4, "big")


def frame(message: bytes) -> bytes:
    """Return a message as it is sent."""
    return prefix(len(message)) + message


def is_one_frame(content: bytes) -> bool:
    """Return whether this is one whole message, uncompressed."""
    size = len(content) - PREFIX_BYTES
    return size >= 0 and content[:PREFIX_BYTES] == prefix(size)


def fields_of(lines: bytes) -> list[tuple[bytes, bytes]]:
    """Return header lines of HTTP/1.1, each ending in CRLF, as fields of HTTP/2."""
    pairs = (line.split(b": ", 1) for line in lines.split(b"\r\n") if line)
    return [(name.lower(), value) for name, value in pairs]


class FrameReader:
    """Puts messages together that come in pieces, cut anywhere.

    Args:
        most: Bytes that a message may have.
    """

    __slots__ = ("_most", "_parts", "_wanted", "held_bytes")

    def __init__(self, most: int) -> None:
        """See the class."""
        self._most = most
        self._parts: list[bytes] = []
        self._wanted = PREFIX_BYTES
        self.held_bytes = 0
        """Of a message that is not whole."""

    def feed(self, data: bytes) -> list[bytes] | Refusal:
        """Take what came; return the messages that are whole now, each with its prefix.

        Nothing is understood any more after a refusal.
        """
        self._parts.append(data)
        self.held_bytes += len(data)
        found: list[bytes] = []
        if self.held_bytes < self._wanted:
            return found
        content = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        start, end = 0, len(content)
        self._wanted = PREFIX_BYTES
        while end - start >= PREFIX_BYTES:
            if content[start]:
                return Refusal(ENCODING_UNSUPPORTED)
            size = PREFIX_BYTES + int.from_bytes(content[start + 1 : start + PREFIX_BYTES], "big")
            if size > PREFIX_BYTES + self._most:
                return Refusal(BODY_TOO_LARGE)
            if end - start < size:
                self._wanted = size
                break
            found.append(content[start : start + size])
            start += size
        self._parts = [content[start:]] if start < end else []
        self.held_bytes = end - start
        return found


def read_timeout_s(value: bytes) -> float | None:
    """Return how long a caller waits, by `grpc-timeout`; None when that is none."""
    match = _TIMEOUT.fullmatch(value)
    return None if match is None else int(match[1]) * _UNIT_S[match[2]]


def write_timeout(seconds: float) -> bytes:
    """Return `grpc-timeout`: how long an answer is waited for."""
    return b"%dm" % min(max(int(seconds * 1000), 1), _MOST_MS)


def write_words(text: str) -> bytes:
    """Return a `grpc-message`: printable ASCII, the rest percent-encoded."""
    return quote(text, safe=_PLAIN).encode("ascii")


def read_words(value: bytes) -> str:
    """Return what a `grpc-message` says; what is no text in it is left out."""
    return unquote_to_bytes(value).decode("utf-8", "replace")
