"""Bytes of HTTP/1.1 answers and of server-sent events."""

import http
from functools import lru_cache

import msgspec

LAST_CHUNK = b"0\r\n\r\n"
"""Ends a chunked body."""

_JSON = b"application/json"
_encode = msgspec.json.Encoder().encode
_NO_BODY = frozenset((http.HTTPStatus.NO_CONTENT, http.HTTPStatus.NOT_MODIFIED))


@lru_cache(maxsize=128)
def status_line(status: int) -> bytes:
    """Return the first line of an answer, with its line end."""
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unassigned"
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


STREAM_HEAD = (
    status_line(200) + b"content-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
"""Head of every stream."""


def plain_head(
    status: int, length: int, content_type: bytes = _JSON, extra: tuple[bytes, ...] = ()
) -> bytes:
    """Return the head of an answer with a body of `length` bytes.

    Args:
        status: Its status; 204 and 304 announce no length, for they have no body.
        length: Of the body, in bytes.
        content_type: Of the body.
        extra: Further header lines, without line ends.
    """
    lines = [b"content-type: " + content_type, *extra]
    if status not in _NO_BODY:
        lines.append(b"content-length: %d" % length)
    return status_line(status) + b"\r\n".join(lines) + b"\r\n\r\n"


def closing_head(head: bytes) -> bytes:
    """Return a head that also says `connection: close`."""
    return head[:-2] + b"connection: close\r\n\r\n"


def chunk(content: bytes) -> bytes:
    """Return content (not empty) as one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(content), content)


def event(payload: object) -> bytes:
    """Return a server-sent event with a JSON payload, as one chunk."""
    return chunk(b"data: " + _encode(payload) + b"\n\n")


def named_event(payload: dict[str, object]) -> bytes:
    """Return a server-sent event that is named as its payload's `type`, as one chunk."""
    return chunk(b"event: %b\ndata: %b\n\n" % (str(payload["type"]).encode(), _encode(payload)))


DONE_EVENT = chunk(b"data: [DONE]\n\n")
"""The event behind all others."""


def encode_json(payload: object) -> bytes:
    """Return the payload as JSON."""
    return _encode(payload)
