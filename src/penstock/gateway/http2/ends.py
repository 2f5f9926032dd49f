"""The two ends of an HTTP/2 connection: toward callers, and toward engines."""

from collections.abc import Callable

from penstock.gateway.http2.connection import DRAINING, Connection
from penstock.gateway.http2.fields import Fields, Kind
from penstock.gateway.http2.frames import (
    MOST,
    PING,
    PREFACE,
    RST_STREAM,
    ConnectionFault,
    ErrorCode,
    frame,
    goaway_frame,
    number_frame,
)
from penstock.gateway.http2.stream import Stream
from penstock.gateway.limits import H2_STREAMS

Accept = Callable[[Stream, Fields, bool], None]
"""Takes a new request: its head, and whether that is all of it.

It answers at once, or sets the stream's `receiver` before it sends anything.
"""


class CallersConnection(Connection):
    """The end at which requests come in.

    Args:
        wake: See `Connection`.
        accept: Takes each request.
    """

    def __init__(self, wake: Callable[[], None], accept: Accept) -> None:
        """See the class."""
        self._accept = accept
        self._preface = PREFACE
        self._is_draining = False
        super().__init__(wake)

    def receive(self, data: bytes) -> None:
        """Understand what came, behind the preface."""
        if self._preface and not self.is_dead:
            size = min(len(data), len(self._preface))
            if data[:size] != self._preface[:size]:
                self.fail(ErrorCode.PROTOCOL_ERROR, "this is not HTTP/2")
                return
            data, self._preface = data[size:], self._preface[size:]
        super().receive(data)

    def drain(self) -> None:
        """Have the peer begin no more; what it sends before it knows that is served yet."""
        if self._is_draining or self.is_dead:
            return
        self._is_draining = True
        if not self.is_greeted:
            self.is_going_away = True
            return
        self.emit(goaway_frame(MOST, ErrorCode.NO_ERROR) + frame(PING, 0, 0, DRAINING))

    def leave(self) -> None:
        """Serve nothing that is not begun with; those under way are the last."""
        if not self.is_going_away:
            self.is_going_away = True
            self.emit(goaway_frame(self._last_id, ErrorCode.NO_ERROR))

    def _given_up(self) -> None:
        self.calm.given_up()

    def _drain_known(self) -> None:
        if self._is_draining:
            self.leave()

    def _take_new(self, stream_id: int, fields: Fields, kind: Kind, *, is_end: bool) -> None:
        self._last_id = stream_id
        code: ErrorCode | None = None
        if self.is_going_away or len(self.streams) >= H2_STREAMS:
            code = ErrorCode.REFUSED_STREAM
        elif kind is Kind.TOO_LARGE:
            code = ErrorCode.ENHANCE_YOUR_CALM
        elif kind is not Kind.REQUEST:
            code = ErrorCode.PROTOCOL_ERROR
        if code is not None:
            self.calm.spend()
            self._reply(number_frame(RST_STREAM, stream_id, code))
            return
        self.calm.earn()
        stream = self.streams[stream_id] = Stream(self, stream_id, self._stream_window)
        stream.is_remote_end = is_end
        self._accept(stream, fields, is_end)


class EnginesConnection(Connection):
    """The end from which requests go out.

    Args:
        wake: See `Connection`.
        closed: Called when a stream is over: the stream, and why; see `Connection.forget`.
    """

    is_client = True

    def __init__(
        self,
        wake: Callable[[], None],
        closed: Callable[[Stream, ErrorCode | None], None],
    ) -> None:
        """See the class."""
        self._on_closed = closed
        super().__init__(wake)

    @property
    def has_room(self) -> bool:
        """Whether a stream can begin."""
        is_open = not self.is_going_away and self._last_id < MOST
        return is_open and len(self.streams) < self.most_streams

    def begin(self) -> Stream:
        """Begin a stream, where there is room; its user sets the `receiver` and sends the head."""
        self._last_id = self._last_id + 2 if self._last_id else 1
        stream = self.streams[self._last_id] = Stream(self, self._last_id, self._stream_window)
        return stream

    def _take_new(self, stream_id: int, fields: Fields, kind: Kind, *, is_end: bool) -> None:  # noqa: ARG002 - an engine begins none
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "an engine began a stream")

    def _closed(self, stream: Stream, code: ErrorCode | None) -> None:
        self._on_closed(stream, code)
