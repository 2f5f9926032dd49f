"""Ends of HTTP/2 connections without sockets, and who is told what comes on a stream."""

from collections.abc import Iterable

from penstock.gateway.http2.connection import Connection
from penstock.gateway.http2.ends import CallersConnection, EnginesConnection
from penstock.gateway.http2.fields import Fields, encode_fields
from penstock.gateway.http2.frames import ErrorCode
from penstock.gateway.http2.stream import Stream

REQUEST = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/inference.GRPCInferenceService/ModelInfer"),
    (b":authority", b"gateway:8001"),
    (b"te", b"trailers"),
    (b"content-type", b"application/grpc"),
)
ANSWER = ((b":status", b"200"), (b"content-type", b"application/grpc"))
TRAILERS = ((b"grpc-status", b"0"),)
HEAD, END = encode_fields(ANSWER), encode_fields(TRAILERS)


class Recorder:
    """Keeps all that it is told; gives the peer its window back at once, unless it `holds`."""

    def __init__(self, stream: Stream, *, holds: bool = False) -> None:
        """Listen to a stream."""
        stream.receiver = self
        self.stream = stream
        self.holds = holds
        self.head: Fields | None = None
        self.data = b""
        self.trailers: Fields | None = None
        self.is_end = False
        self.resets: list[ErrorCode | None] = []
        self.is_watching = False
        self.pauses = self.resumes = self.sweeps = self.interrupts = 0

    def on_headers(self, fields: Fields, *, is_end: bool) -> None:
        """Keep the head."""
        assert self.head is None
        self.head, self.is_end = fields, is_end

    def on_data(self, data: bytes, *, is_end: bool) -> None:
        """Keep a piece."""
        assert not self.is_end
        self.data += data
        self.is_end = is_end
        if not self.holds:
            self.stream.consume(len(data))

    def on_trailers(self, fields: Fields) -> None:
        """Keep the end."""
        assert not self.is_end
        self.trailers, self.is_end = fields, True

    def on_reset(self, code: ErrorCode | None) -> None:
        """Keep why."""
        self.resets.append(code)

    def pause(self) -> None:
        """Count it."""
        self.pauses += 1

    def resume(self) -> None:
        """Count it."""
        self.resumes += 1

    def sweep(self, now_s: float) -> None:  # noqa: ARG002 - as a worker calls it
        """Count it."""
        self.sweeps += 1

    def interrupt(self) -> None:
        """Count it."""
        self.interrupts += 1


class Accepting:
    """A server that keeps its requests, and answers those that have ended when it `echoes`."""

    def __init__(self, *, echoes: bool = False, holds: bool = False) -> None:
        """Make its connection."""
        self.echoes, self.holds = echoes, holds
        self.requests: list[tuple[Fields, Recorder]] = []
        self.connection = CallersConnection(_sleep, self.accept)

    def accept(self, stream: Stream, fields: Fields, is_end: bool) -> None:  # noqa: FBT001 - as it is called
        """Keep a request."""
        recorder = _Echo(stream) if self.echoes else Recorder(stream, holds=self.holds)
        recorder.is_end = is_end
        self.requests.append((fields, recorder))


class _Echo(Recorder):
    """Answers with what was sent."""

    def on_data(self, data: bytes, *, is_end: bool) -> None:
        super().on_data(data, is_end=is_end)
        if is_end:
            self.stream.send_headers(HEAD)
            self.stream.send_data(self.data)
            self.stream.send_headers(END, is_end=True)


class Asking:
    """A client that keeps what becomes of its streams."""

    def __init__(self) -> None:
        """Make its connection."""
        self.closed: list[tuple[int, ErrorCode | None]] = []
        self.connection = EnginesConnection(_sleep, self._note)

    def _note(self, stream: Stream, code: ErrorCode | None) -> None:
        self.closed.append((stream.id, code))

    def ask(self, body: bytes = b"", *, is_end: bool = True, holds: bool = False) -> Recorder:
        """Send a request."""
        recorder = Recorder(self.connection.begin(), holds=holds)
        recorder.stream.send_headers(encode_fields(REQUEST))
        if body or is_end:
            recorder.stream.send_data(body, is_end=is_end)
        return recorder


def _sleep() -> None:
    """Nobody is woken: what is to be sent is taken when the test says so."""


def exchange(one: Connection, other: Connection, sizes: Iterable[int] = ()) -> None:
    """Carry bytes both ways until there are none, cut into pieces of these sizes in turn."""
    cuts = list(sizes)
    while True:
        there, back = one.take(), other.take()
        if not there and not back:
            return
        _carry(there, other, cuts)
        _carry(back, one, cuts)


def _carry(data: bytes, to: Connection, cuts: list[int]) -> None:
    at, turn = 0, 0
    while at < len(data):
        size = cuts[turn % len(cuts)] if cuts else len(data)
        to.receive(data[at : at + size])
        at, turn = at + size, turn + 1
