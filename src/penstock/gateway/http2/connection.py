"""One HTTP/2 connection without its socket: bytes in, bytes out, and who is told in between."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from penstock.gateway.http2.calm import Calm
from penstock.gateway.http2.fields import FieldDecoder, Fields, Kind
from penstock.gateway.http2.frames import (
    ACK,
    DATA,
    ENABLE_PUSH,
    END_STREAM,
    GOAWAY,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_HEADER_LIST_SIZE,
    MOST,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ConnectionFault,
    ErrorCode,
    FrameReader,
    frame,
    goaway_frame,
    headers_frames,
    number_frame,
    read_code,
    read_number,
    read_settings,
    settings_frame,
    unpad,
)
from penstock.gateway.http2.stream import Stream
from penstock.gateway.limits import (
    H2_CONNECTION_BYTES,
    H2_FIELDS_BYTES,
    H2_STREAM_BYTES,
    H2_STREAMS,
)

_WINDOW: Final = 65_535
"""Of connections and streams until something else is said."""
DRAINING: Final = b"draining"
"""What a PING carries whose answer says that the peer knows that we drain."""
_NO_TABLE: Final = b"\x20"
"""Says at the start of a block that our table has no room: true with any size a peer allows."""


class Connection:
    """What both ends of a connection have in common.

    It does no I/O: `receive` takes what came, `take` returns what is to be sent. It raises nothing
    for what a peer sends: where that breaks a rule, the peer is told, and `is_dead` is set.

    Args:
        wake: Called when there is something to take after there was nothing.
    """

    is_client = False

    def __init__(self, wake: Callable[[], None]) -> None:
        """See the class."""
        self._wake = wake
        self._reader = FrameReader()
        self._decoder = FieldDecoder()
        self._out: list[bytes] = []
        self.calm = Calm()
        self._window_here = H2_CONNECTION_BYTES
        """What the peer may send."""
        self._stream_window = _WINDOW
        self._block_prefix = b""
        self._last_id = 0
        """The highest stream that was begun."""
        self.is_greeted = False
        """The peer's settings came, which it begins with."""
        self._blocked: dict[int, Stream] = {}
        """Streams with something unsent."""
        self.transport: asyncio.BaseTransport | None = None
        """What carries the bytes, for those who ask where they go."""
        self.streams: dict[int, Stream] = {}
        self.held_bytes = 0
        """What users of its streams keep of what came."""
        self.window = _WINDOW
        """What the peer takes, of all streams together."""
        self.most_streams = H2_STREAMS
        """What the peer allows us to begin, as far as we would."""
        self.is_paused = False
        """The peer reads more slowly than we write: no DATA is made for it."""
        self.is_going_away = False
        """No stream begins any more."""
        self.is_dead = False
        """Nothing that arrives is understood any more."""
        self._greet()

    def _greet(self) -> None:
        settings = {
            INITIAL_WINDOW_SIZE: H2_STREAM_BYTES,
            MAX_HEADER_LIST_SIZE: H2_FIELDS_BYTES,
            (ENABLE_PUSH if self.is_client else MAX_CONCURRENT_STREAMS): (
                0 if self.is_client else H2_STREAMS
            ),
        }
        preface = PREFACE if self.is_client else b""
        widened = number_frame(WINDOW_UPDATE, 0, H2_CONNECTION_BYTES - _WINDOW)
        self.emit(preface + settings_frame(settings) + widened)

    @property
    def is_finished(self) -> bool:
        """Whether it can be closed: nothing is under way, and nothing begins."""
        return self.is_dead or (self.is_going_away and not self.streams)

    @property
    def is_waiting(self) -> bool:
        """Whether the rest of something has not arrived that the peer began to send."""
        return self._reader.is_inside_frame or not self.is_greeted

    @property
    def frame_count(self) -> int:
        """How many frames have come."""
        return self._reader.count

    # What its protocol calls

    def receive(self, data: bytes) -> None:
        """Understand what came."""
        if self.is_dead:
            return
        try:
            for kind, flags, stream_id, payload in self._reader.read(data):
                if kind == DATA:
                    self._take_data(stream_id, flags, payload)
                elif kind == HEADERS:
                    self._take_headers(stream_id, payload, is_end=bool(flags & END_STREAM))
                else:
                    self._take_other(kind, flags, stream_id, payload)
        except ConnectionFault as fault:
            self.fail(fault.code, str(fault))

    def take(self) -> bytes:
        """Return what is to be sent."""
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        self.calm.taken()
        return data

    def resume(self) -> None:
        """Go on with what is unsent."""
        self.is_paused = False
        self._pump_all()

    def sweep(self, now_s: float) -> None:
        """Allow the peer again what it may do in a time; give up streams it takes nothing of.

        Args:
            now_s: The loop's time; called every `limits.SWEEP_S`.
        """
        self.calm.refill()
        for stream in list(self._blocked.values()):
            if stream.is_stalled(now_s):
                self.emit(number_frame(RST_STREAM, stream.id, ErrorCode.CANCEL))
                self._end_stream(stream, ErrorCode.CANCEL)

    def fail(self, code: ErrorCode, reason: str) -> None:
        """End it at once, with all streams."""
        if not self.is_dead:
            self.emit(goaway_frame(0 if self.is_client else self._last_id, code, reason))
            self.lost()

    def lost(self) -> None:
        """Tell all streams that nothing more comes."""
        self.is_dead = self.is_going_away = True
        for stream in list(self.streams.values()):
            self._end_stream(stream, None)

    # What its streams call

    def emit(self, data: bytes) -> None:
        """Have something sent."""
        if not self._out:
            self._wake()
        self._out.append(data)

    def send_block(self, stream_id: int, block: bytes, *, is_end: bool) -> None:
        """Send a header block."""
        if self._block_prefix:
            block, self._block_prefix = self._block_prefix + block, b""
        self.emit(headers_frames(stream_id, block, is_end=is_end))

    def sendable(self, stream: Stream) -> int:
        """Return how much of a stream's DATA may be sent now."""
        return 0 if self.is_paused else min(self.window, stream.window)

    def pump(self, stream: Stream) -> None:
        """Send of a stream what may be sent."""
        while stream.send_piece(self.sendable(stream)):
            pass
        self._note(stream)

    def _pump_all(self) -> None:
        """Send of all streams what may be sent, a frame of each in turn."""
        turns = deque(self._blocked.values())
        while turns and self.window > 0 and not self.is_paused:
            stream = turns.popleft()
            if stream.send_piece(self.sendable(stream)):
                turns.append(stream)
            else:
                self._note(stream)

    def _note(self, stream: Stream) -> None:
        if stream.unsent_bytes:
            self._blocked[stream.id] = stream
        else:
            self._blocked.pop(stream.id, None)

    def forget(self, stream: Stream, code: ErrorCode | None) -> None:
        """Be done with a stream.

        Args:
            stream: Which one.
            code: NO_ERROR when it ended as it should, or as its user wanted.
        """
        del self.streams[stream.id]
        self._blocked.pop(stream.id, None)
        stream.hold(0)
        stream.close()
        self._closed(stream, code)

    def _closed(self, stream: Stream, code: ErrorCode | None) -> None:
        """Take note that a stream is over."""

    def _end_stream(self, stream: Stream, code: ErrorCode | None) -> None:
        """Be done with a stream before its end, and tell its user; not when that ended it."""
        if stream.is_closed:  # by what the user of another one did when it was told
            return
        self.forget(stream, code)
        stream.receiver.on_reset(code)

    # Frames of streams

    def _take_data(self, stream_id: int, flags: int, payload: bytes) -> None:
        size = len(payload)
        self._window_here -= size
        if self._window_here < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more came than was allowed")
        if self._window_here * 2 < H2_CONNECTION_BYTES:
            # At once, whatever becomes of it: one stream that nobody reads must not stop the
            # others. What may wait is bounded by the windows of the streams.
            self.emit(number_frame(WINDOW_UPDATE, 0, H2_CONNECTION_BYTES - self._window_here))
            self._window_here = H2_CONNECTION_BYTES
        data, is_end = unpad(payload, flags), bool(flags & END_STREAM)
        if data or is_end:
            self.calm.earn()
        else:
            self.calm.spend()
        stream = self.streams.get(stream_id)
        if stream is None:
            self._check_begun(stream_id)
            return
        code = stream.take_data(data, size, is_end=is_end)
        if code is not None:
            self._break(stream, code)

    def _take_headers(self, stream_id: int, block: bytes, *, is_end: bool) -> None:
        fields, kind = self._decoder.decode(block)
        if not self.is_greeted:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        stream = self.streams.get(stream_id)
        if stream is not None:
            self.calm.earn()
            code = stream.take_headers(fields, kind, is_end=is_end)
            if code is not None:
                self._break(stream, code)
        elif stream_id > self._last_id and stream_id & 1:
            self._take_new(stream_id, fields, kind, is_end=is_end)
        else:
            self._check_begun(stream_id)
            self.calm.spend()

    def _take_new(self, stream_id: int, fields: Fields, kind: Kind, *, is_end: bool) -> None:
        raise NotImplementedError

    def _check_begun(self, stream_id: int) -> None:
        if stream_id > self._last_id or not stream_id & 1 or not self.is_greeted:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "nobody began this stream")

    def _break(self, stream: Stream, code: ErrorCode) -> None:
        """End a stream that broke a rule."""
        self._reply(number_frame(RST_STREAM, stream.id, code))
        self._end_stream(stream, code)
        self._given_up()

    # Frames of the connection

    def _take_other(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        self.calm.spend()
        if kind == SETTINGS:
            if not flags & ACK:
                self._take_settings(payload)
        elif not self.is_greeted:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        elif kind == WINDOW_UPDATE:
            self._take_window(stream_id, read_number(payload) & MOST)
        elif kind == PING:
            if not flags & ACK:
                self._reply(frame(PING, ACK, 0, payload))
            elif payload == DRAINING:
                self._drain_known()
        elif kind == RST_STREAM:
            self._take_reset(stream_id, read_code(read_number(payload)))
        elif kind == GOAWAY:
            self._take_goaway(read_number(payload) & MOST)

    def _take_settings(self, payload: bytes) -> None:
        settings = read_settings(payload)
        self.calm.spend_settings(len(payload))
        self.is_greeted = True
        if HEADER_TABLE_SIZE in settings:
            self._block_prefix = _NO_TABLE
        if self.is_client and settings.get(ENABLE_PUSH):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "nothing may be pushed")
        self.most_streams = min(H2_STREAMS, settings.get(MAX_CONCURRENT_STREAMS, self.most_streams))
        self._reply(frame(SETTINGS, ACK, 0, b""))
        size = settings.get(INITIAL_WINDOW_SIZE, self._stream_window)
        wider, self._stream_window = size - self._stream_window, size
        if wider:
            for stream in list(self.streams.values()):
                if stream.widen(wider) is not None:
                    raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window is too large")

    def _take_window(self, stream_id: int, wider: int) -> None:
        if stream_id == 0:
            self.window += wider
            if not wider:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a window grows by nothing")
            if self.window > MOST:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window is too large")
            self._pump_all()
            return
        stream = self.streams.get(stream_id)
        if stream is None:
            self._check_begun(stream_id)
            return
        code = stream.widen(wider) if wider else ErrorCode.PROTOCOL_ERROR
        if code is not None:
            self._break(stream, code)

    def _take_reset(self, stream_id: int, code: ErrorCode) -> None:
        stream = self.streams.get(stream_id)
        if stream is None:
            self._check_begun(stream_id)
            return
        self._end_stream(stream, code)
        self._given_up()

    def _take_goaway(self, last_id: int) -> None:
        """Take that the peer goes away; what it will surely not do may be tried elsewhere."""
        self.is_going_away = True
        if self.is_client:
            for stream in list(self.streams.values()):
                if stream.id > last_id:
                    self._end_stream(stream, ErrorCode.REFUSED_STREAM)

    def _drain_known(self) -> None:
        """Take that the peer knows that we drain."""

    def _given_up(self) -> None:
        """Take note that a stream ended early."""

    def _reply(self, data: bytes) -> None:
        """Send what the peer caused without asking for anything."""
        self.calm.replied()
        self.emit(data)
