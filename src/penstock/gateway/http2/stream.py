"""One request and its answer on an HTTP/2 connection, seen from either end."""

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Protocol

from penstock.gateway.http2.fields import Fields, Kind
from penstock.gateway.http2.frames import (
    DATA,
    END_STREAM,
    FRAME_BYTES,
    MOST,
    RST_STREAM,
    WINDOW_UPDATE,
    ErrorCode,
    frame,
    number_frame,
)
from penstock.gateway.limits import H2_STREAM_BYTES, WRITE_BUFFER_BYTES, WRITE_STALL_S

if TYPE_CHECKING:
    from penstock.gateway.http2.connection import Connection


class Receiver(Protocol):
    """Who is told what comes on a stream; nothing follows what ends it."""

    def on_headers(self, fields: Fields, *, is_end: bool) -> None:
        """Take the head of an answer; requests come with theirs."""

    def on_data(self, data: bytes, *, is_end: bool) -> None:
        """Take a piece of the body, and say `consume` once done with it."""

    def on_trailers(self, fields: Fields) -> None:
        """Take the fields behind the body, which end it."""

    def on_reset(self, code: ErrorCode | None) -> None:
        """Take note that the stream is over before its end.

        Args:
            code: Why; None when the connection is gone. After REFUSED_STREAM nothing was done.
        """

    def pause(self) -> None:
        """Send less: much is unsent. What is sent nevertheless is kept."""

    def resume(self) -> None:
        """Send again."""


class Stream:
    """One request and its answer.

    Args:
        connection: What it runs on.
        stream_id: Its number there.
        window: How many bytes the peer takes of it at first.
    """

    __slots__ = (
        "_begin",
        "_consumed",
        "_end",
        "_is_local_end",
        "_is_paused",
        "_queue",
        "_seen_bytes",
        "_sent_bytes",
        "_stalled_at_s",
        "_window_here",
        "connection",
        "has_answer",
        "held_bytes",
        "id",
        "is_closed",
        "is_failure",
        "is_remote_end",
        "receiver",
        "unsent_bytes",
        "window",
    )

    receiver: Receiver

    def __init__(self, connection: "Connection", stream_id: int, window: int) -> None:
        """See the class."""
        self.connection = connection
        self.id = stream_id
        self.window = window
        self.is_closed = False
        self.is_remote_end = False
        self.has_answer = False
        """The head of the answer has come."""
        self.is_failure = False
        """The answer, as whole as it is, says that the engine is broken."""
        self.unsent_bytes = 0
        self.held_bytes = 0
        """What its user keeps of what came."""
        self._window_here = H2_STREAM_BYTES
        """What the peer may send."""
        self._consumed = 0
        """What it may send more, and was not told yet."""
        self._queue: deque[bytes] = deque()
        self._begin = 0
        """How much of the first in the queue is sent."""
        self._end: bytes | None = None
        """What follows what is unsent: a block of trailers, or nothing but the end."""
        self._is_local_end = False
        self._is_paused = False
        self._sent_bytes = 0
        self._seen_bytes = -1
        """What a sweep found sent, since something waits."""
        self._stalled_at_s = 0.0

    @property
    def peer(self) -> asyncio.BaseTransport | None:
        """The transport that the connection uses."""
        return self.connection.transport

    @property
    def _is_done(self) -> bool:
        """Whether both sides have sent all."""
        return self.is_remote_end and self._is_local_end and not self._queue

    # What its user calls

    def send_headers(self, block: bytes, *, is_end: bool = False) -> None:
        """Send a head, or what follows a body.

        Args:
            block: From `encode_fields`.
            is_end: Nothing follows; trailers always are the end.
        """
        if self._is_local_end:
            return
        if self._queue:
            self._end, self._is_local_end = block, True
            return
        self.connection.send_block(self.id, block, is_end=is_end)
        if is_end:
            self._ended()

    def send_data(self, data: bytes, *, is_end: bool = False) -> None:
        """Send a piece of the body: now as far as the windows allow, the rest when they do."""
        if self._is_local_end:
            return
        connection = self.connection
        size = len(data)
        if not self._queue and size <= connection.sendable(self) and size <= FRAME_BYTES:
            self._put(data, END_STREAM if is_end else 0)
            if is_end:
                self._ended()
            return
        if not self._queue:
            self._seen_bytes = -1
        self._queue.append(data)
        self.unsent_bytes += size
        if is_end:
            self._end, self._is_local_end = b"", True
        connection.pump(self)
        if self.unsent_bytes > WRITE_BUFFER_BYTES and not self._is_paused and not self.is_closed:
            self._is_paused = True
            self.receiver.pause()

    def consume(self, count: int) -> None:
        """Allow the peer as many bytes more as were taken from it."""
        self._consumed += count
        if self._consumed * 2 >= H2_STREAM_BYTES and not self.is_remote_end and not self.is_closed:
            given, self._consumed = self._consumed, 0
            self._window_here += given
            self.connection.emit(number_frame(WINDOW_UPDATE, self.id, given))

    def hold(self, size: int) -> None:
        """Say how much of what came is kept now; when the stream is over, nothing is.

        Args:
            size: Bytes, of all that came.
        """
        self.connection.held_bytes += size - self.held_bytes
        self.held_bytes = size

    def reset(self, code: ErrorCode = ErrorCode.CANCEL) -> None:
        """End it at once: what is unsent is forgotten, nothing is told any more."""
        if self.is_closed:
            return
        if not self._is_done:  # else the peer knows already
            self.connection.emit(number_frame(RST_STREAM, self.id, code))
        self.connection.forget(self, ErrorCode.NO_ERROR)

    # What its connection calls

    def send_piece(self, most: int) -> bool:
        """Send one frame of what is unsent, `most` bytes of it at most; False when none may be."""
        queue, begin = self._queue, self._begin
        if not queue or (most <= 0 and queue[0]):
            return False
        piece = queue[0][begin : begin + max(0, min(most, FRAME_BYTES))]
        self._begin += len(piece)
        if self._begin == len(queue[0]):
            queue.popleft()
            self._begin = 0
        self.unsent_bytes -= len(piece)
        self._put(piece, END_STREAM if not queue and self._end == b"" else 0)
        if not queue and self._end is not None:
            if self._end:
                self.connection.send_block(self.id, self._end, is_end=True)
            self._ended()
        elif self._is_paused and self.unsent_bytes * 2 <= WRITE_BUFFER_BYTES:
            self._is_paused = False
            self.receiver.resume()
        return True

    def take_headers(self, fields: Fields, kind: Kind, *, is_end: bool) -> ErrorCode | None:
        """Take the head of an answer, or trailers; return what is wrong with them."""
        if self.is_remote_end:
            return ErrorCode.STREAM_CLOSED
        if kind is Kind.ANSWER and self.connection.is_client and not self.has_answer:
            if fields[0][1][:1] == b"1":  # only the one after it says something
                return ErrorCode.PROTOCOL_ERROR if is_end else None
            self.has_answer = True
            self.is_remote_end = is_end
            self.receiver.on_headers(fields, is_end=is_end)
        elif (
            kind is Kind.TRAILERS and is_end and (self.has_answer or not self.connection.is_client)
        ):
            self.is_remote_end = True
            self.receiver.on_trailers(fields)
        elif kind is Kind.TOO_LARGE:
            return ErrorCode.ENHANCE_YOUR_CALM
        else:
            return ErrorCode.PROTOCOL_ERROR
        self._close_if_done()
        return None

    def take_data(self, data: bytes, size: int, *, is_end: bool) -> ErrorCode | None:
        """Take a piece of the body, `size` bytes with its padding; return what is wrong with it."""
        if self.is_remote_end:
            return ErrorCode.STREAM_CLOSED
        if self.connection.is_client and not self.has_answer:
            return ErrorCode.PROTOCOL_ERROR
        self._window_here -= size
        if self._window_here < 0:
            return ErrorCode.FLOW_CONTROL_ERROR
        self.is_remote_end = is_end
        if size > len(data):
            self.consume(size - len(data))
        if data or is_end:
            self.receiver.on_data(data, is_end=is_end)
        self._close_if_done()
        return None

    def widen(self, count: int) -> ErrorCode | None:
        """Take that the peer takes more, or less; return what is wrong with it."""
        self.window += count
        if self.window > MOST:
            return ErrorCode.FLOW_CONTROL_ERROR
        if self._queue:
            self.connection.pump(self)
        return None

    def is_stalled(self, now_s: float) -> bool:
        """Return whether the peer took nothing of what waits for it for too long."""
        if not self.unsent_bytes:
            return False
        if self._seen_bytes != self._sent_bytes:
            self._seen_bytes = self._sent_bytes
            self._stalled_at_s = now_s + WRITE_STALL_S
        return now_s >= self._stalled_at_s

    def close(self) -> None:
        """Be over; forget what is unsent."""
        self.is_closed = self._is_local_end = True
        self._queue.clear()
        self.unsent_bytes = 0

    def _put(self, data: bytes, flags: int) -> None:
        size = len(data)
        self.window -= size
        self._sent_bytes += size
        connection = self.connection
        connection.window -= size
        connection.calm.earn()
        connection.emit(frame(DATA, flags, self.id, data))

    def _ended(self) -> None:
        """Have sent the last: a server's last ends the stream, whatever of the request is left."""
        self._is_local_end, self._end = True, None
        self._close_if_done()
        if not self.is_closed and not self.connection.is_client:
            self.reset(ErrorCode.NO_ERROR)

    def _close_if_done(self) -> None:
        """Be over when both sides have ended, or the answer is there."""
        if not self.is_remote_end or self.is_closed:
            return
        if self._is_done:
            self.connection.forget(self, ErrorCode.NO_ERROR)
        elif self.connection.is_client:
            self.reset(ErrorCode.NO_ERROR)
