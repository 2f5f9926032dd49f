"""Requests out of the bytes of a connection."""

from collections.abc import Callable

import httptools
import msgspec

from penstock.emulator.overlay import JSON_LENGTH, PREFIX, Headers
from penstock.engines.load import REPORT_FORMAT

MAX_BODY_BYTES = 64 * 1024 * 1024

_LOWER_X = ord("x")
_UPPER_X = ord("X")
_REQUEST_ID = b"x-request-id"
_EXPECT = b"expect"
_LOAD_FORMAT = REPORT_FORMAT.encode()


class BadFramingError(Exception):
    """The bytes are no HTTP/1.1 requests, or a body is over `MAX_BODY_BYTES`."""


class Request(msgspec.Struct, frozen=True):
    """A request that came whole."""

    method: bytes
    target: bytes
    headers: Headers
    """The `x-emulator-*` ones, and `Inference-Header-Content-Length`."""
    request_id: bytes
    """Value of `x-request-id`, empty without one."""
    body: bytes
    is_last: bool
    """The peer wants the connection closed after the answer."""
    is_old: bool
    """The peer speaks HTTP/1.0, which knows no chunked bodies, and did not ask for keep-alive."""
    load_format: bytes
    """How the answer shall say how busy the server is; empty when it need not."""
    all_headers: list[tuple[bytes, bytes]]
    """Empty unless the reader records."""


def _ignore(*_: object) -> None:
    """Do nothing."""


class RequestReader:
    """Cuts a byte stream into requests, in their order.

    Args:
        on_request: Called with each request as its last byte comes.
        on_expectation: Called when a peer waits for `100 Continue` before it sends a body.
        is_recording: Whether to keep all headers.
    """

    __slots__ = (
        "_all_headers",
        "_body",
        "_body_bytes",
        "_headers",
        "_is_expectant",
        "_is_recording",
        "_load_format",
        "_on_expectation",
        "_on_request",
        "_parser",
        "_request_id",
        "_target",
    )

    def __init__(
        self,
        on_request: Callable[[Request], None],
        on_expectation: Callable[[], None],
        *,
        is_recording: bool = False,
    ) -> None:
        """See the class."""
        self._on_request = on_request
        self._on_expectation = on_expectation
        self._is_recording = is_recording
        self._parser = httptools.HttpRequestParser(self)
        self.on_message_begin()

    def feed(self, content: bytes) -> None:
        """Read on.

        Raises:
            BadFramingError: See there; what follows on the connection has no meaning.
        """
        try:
            self._parser.feed_data(content)
        except httptools.HttpParserCallbackError:
            # An error of ours: nothing that a peer should hear of.
            raise
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise BadFramingError(str(error)) from None
        if self._body_bytes is not None and len(self._body_bytes) > MAX_BODY_BYTES:
            message = "body too long"
            raise BadFramingError(message)

    def close(self) -> None:
        """Let go of what refers back to this, so that it goes without the garbage collector."""
        self._parser = None
        self._on_request = _ignore
        self._on_expectation = _ignore

    def on_message_begin(self) -> None:
        """Parser: a request begins."""
        self._target = b""
        self._headers: Headers = ()
        self._all_headers: list[tuple[bytes, bytes]] = []
        self._request_id = b""
        self._body = b""
        self._body_bytes: bytearray | None = None
        self._is_expectant = False
        self._load_format = b""

    def on_url(self, target: bytes) -> None:
        """Parser: a part of the target."""
        self._target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        """Parser: a header."""
        # Most headers are told by a letter, which spares the rest of the look.
        first = name[0]
        if first in (_LOWER_X, _UPPER_X):
            lower = name.lower()
            if lower == _REQUEST_ID:
                self._request_id = value
            elif lower.startswith(PREFIX):
                self._headers = (*self._headers, (lower, value))
        elif len(name) == len(JSON_LENGTH) and name.lower() == JSON_LENGTH:
            self._headers = (*self._headers, (JSON_LENGTH, value))
        elif len(name) == len(_EXPECT) and name.lower() == _EXPECT:
            self._is_expectant = value.lower() == b"100-continue"
        elif len(name) == len(_LOAD_FORMAT) and name.lower() == _LOAD_FORMAT:
            self._load_format = value
        if self._is_recording:
            self._all_headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Parser: the head ends."""
        if self._is_expectant:
            self._on_expectation()

    def on_body(self, content: bytes) -> None:
        """Parser: a part of the body."""
        if not self._body:
            self._body = content
            return
        if self._body_bytes is None:
            self._body_bytes = bytearray(self._body)
        self._body_bytes += content

    def on_message_complete(self) -> None:
        """Parser: the request ends."""
        parser = self._parser
        body = self._body if self._body_bytes is None else bytes(self._body_bytes)
        self._body_bytes = None
        is_last = not parser.should_keep_alive()
        request = Request(
            parser.get_method(),
            self._target,
            self._headers,
            self._request_id,
            body,
            is_last,
            is_last and parser.get_http_version() == "1.0",
            self._load_format,
            self._all_headers,
        )
        self._on_request(request)
