"""A caller that says exactly what it is told to, byte by byte, and never waits for ever."""

import socket
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import msgspec

_READ_BYTES = 65_536
_BODILESS = {100, 204, 304}


class IncompleteAnswerError(Exception):
    """The peer closed the connection before the answer was complete."""


@dataclass(frozen=True)
class Answer:
    """One answer as it came."""

    status: int
    fields: tuple[tuple[str, str], ...]
    """Header fields in order, names in lower case."""
    body: bytes
    raw: bytes

    @property
    def header(self) -> dict[str, str]:
        """The header fields by name."""
        return dict(self.fields)

    @property
    def error(self) -> dict[str, Any]:
        """The error object of an OpenAI-shaped error."""
        found: dict[str, Any] = msgspec.json.decode(self.body)["error"]
        return found

    @property
    def code(self) -> str:
        """The gateway's own code of the error, without its `err:gateway:`."""
        return str(self.error["penstock_code"]).removeprefix("err:gateway:")

    @property
    def is_last(self) -> bool:
        """Whether it says that the connection ends with it."""
        return self.header.get("connection") == "close"


class RawConnection:
    """One connection to 127.0.0.1; every wait ends after `timeout_s`.

    Args:
        port: Where to.
        timeout_s: For each single wait.
        tls: Speak TLS with this context, to the name `localhost`.
    """

    def __init__(
        self, port: int, *, timeout_s: float = 20.0, tls: ssl.SSLContext | None = None
    ) -> None:
        """Connect."""
        plain = socket.create_connection(("127.0.0.1", port), timeout_s)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = plain if tls is None else tls.wrap_socket(plain, server_hostname="localhost")
        self._received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def send(self, content: bytes) -> None:
        """Send it all, in as few packets as the kernel makes of it."""
        self.socket.sendall(content)

    def send_pieces(self, pieces: Iterable[bytes], pause_s: float = 0.0) -> None:
        """Send one piece after another, so that the peer reads them apart."""
        for piece in pieces:
            self.socket.sendall(piece)
            time.sleep(pause_s)

    def try_send(self, content: bytes) -> None:
        """Send as much as the peer takes: it may close in the middle."""
        try:
            self.socket.sendall(content)
        except (ConnectionError, TimeoutError):
            return

    def read_answer(self, *, is_head: bool = False) -> Answer:
        """Read the next answer: as long as it says, chunked, or up to the connection's end.

        Args:
            is_head: The question was HEAD: no body follows.

        Raises:
            IncompleteAnswerError: The connection ended first.
            TimeoutError: It did not come in time.
        """
        while b"\r\n\r\n" not in self._received:
            self._read_more()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        start, *lines = head.decode("latin-1").split("\r\n")
        status = int(start.split(" ", 2)[1])
        split = (line.partition(":") for line in lines)
        fields = tuple((name.lower(), value.strip()) for name, _, value in split)
        header = dict(fields)
        if is_head or status in _BODILESS:
            raw = body = b""
        elif header.get("transfer-encoding") == "chunked":
            body, raw = self._read_chunks()
        elif "content-length" in header:
            raw = body = self._take(int(header["content-length"]))
        else:
            raw = body = self._received + self.read_to_end()
            self._received = b""
        return Answer(status, fields, body, head + b"\r\n\r\n" + raw)

    def read_to_end(self) -> bytes:
        """Read until the peer closes or resets the connection, and return what came.

        Raises:
            TimeoutError: It kept the connection open.
        """
        found = []
        try:
            while piece := self.socket.recv(_READ_BYTES):
                found.append(piece)
        except ConnectionError:
            pass
        received, self._received = self._received, b""
        return received + b"".join(found)

    def read_answers(self) -> list[Answer]:
        """Read answers until the peer closes the connection."""
        found = []
        while True:
            try:
                found.append(self.read_answer())
            except IncompleteAnswerError:
                assert self._received == b"", "the last answer was cut off"
                return found

    def is_silent(self, wait_s: float = 0.1) -> bool:
        """Whether the connection stays open, with nothing to read, for `wait_s`."""
        before = self.socket.gettimeout()
        self.socket.settimeout(wait_s)
        try:
            self._read_more()
        except TimeoutError:
            return self._received == b""
        except IncompleteAnswerError:
            return False
        finally:
            self.socket.settimeout(before)
        return False

    def _read_more(self) -> None:
        try:
            piece = self.socket.recv(_READ_BYTES)
        except ConnectionError:
            piece = b""
        if not piece:
            raise IncompleteAnswerError(self._received)
        self._received += piece

    def _take(self, count: int) -> bytes:
        while len(self._received) < count:
            self._read_more()
        found, self._received = self._received[:count], self._received[count:]
        return found

    def _take_line(self) -> bytes:
        while b"\r\n" not in self._received:
            self._read_more()
        line, _, self._received = self._received.partition(b"\r\n")
        return line

    def _read_chunks(self) -> tuple[bytes, bytes]:
        body = raw = b""
        while True:
            line = self._take_line()
            piece = self._take(int(line, 16))
            end = self._take_line()
            assert end == b"", "a chunk is longer than it says"
            raw += line + b"\r\n" + piece + b"\r\n"
            body += piece
            if not piece:
                return body, raw


def ask(port: int, content: bytes, *, is_head: bool = False) -> Answer:
    """Send one request on a connection of its own and return the answer."""
    with RawConnection(port) as connection:
        connection.send(content)
        return connection.read_answer(is_head=is_head)
