"""What HTTP/2 costs a unary gRPC request that is passed on: both legs, frames and header fields."""

from collections.abc import Callable

import hpack
from tests.fakes.http2_ends import ANSWER, REQUEST, TRAILERS

from penstock.gateway.http2 import frames
from penstock.gateway.http2.ends import CallersConnection, EnginesConnection
from penstock.gateway.http2.fields import Fields, encode_fields
from penstock.gateway.http2.frames import ErrorCode
from penstock.gateway.http2.stream import Stream

_STREAMS = 2_000
"""Requests on one connection, before another takes its place."""
_MESSAGE = b"x" * 205
_KEY = b"Bearer ps_live_0123456789ab_0123456789abcdefghijklmnopqrstuvABCDEF"
_MORE = (
    (b"user-agent", b"grpc-python-asyncio/1.76.0 grpc-c/51.0.0 (linux; chttp2)"),
    (b"grpc-accept-encoding", b"identity, deflate, gzip"),
    (b"authorization", _KEY),
)
_GREETING = frames.settings_frame({}) + frames.number_frame(frames.WINDOW_UPDATE, 0, 2**30)
"""A peer that takes all that is sent on one connection."""


class _Passing:
    """Passes what comes on one stream on to another, as a relay does."""

    def __init__(self, to: Stream | None = None) -> None:
        self.to = to

    def on_headers(self, fields: Fields, *, is_end: bool) -> None:  # noqa: ARG002 - it has none
        """Answer with a head of our own."""
        assert self.to is not None  # noqa: S101 - it is the answer
        self.to.send_headers(encode_fields((*ANSWER, (b"x-request-id", b"0" * 36))), is_end=is_end)

    def on_data(self, data: bytes, *, is_end: bool) -> None:
        """Pass it on."""
        assert self.to is not None  # noqa: S101 - as above
        self.to.send_data(data, is_end=is_end)

    def on_trailers(self, fields: Fields) -> None:
        """Pass them on."""
        assert self.to is not None  # noqa: S101 - as above
        self.to.send_headers(encode_fields(fields), is_end=True)

    def on_reset(self, code: ErrorCode | None) -> None:
        """Nothing is reset here."""

    def pause(self) -> None:
        """Nothing is slow here."""

    def resume(self) -> None:
        """Nothing is slow here."""


class _Relay:
    """A gateway between a caller and an engine whose frames were made before."""

    def __init__(self, *, with_deadline: bool) -> None:
        caller, engine = hpack.Encoder(), hpack.Encoder()
        self._requests, self._answers = [], []
        for number in range(_STREAMS):
            stream_id = 2 * number + 1
            deadline: Fields = ()
            if with_deadline:
                deadline = ((b"grpc-timeout", b"%dm" % (29_999 - number % 7)),)
            head = caller.encode([*REQUEST, *_MORE, *deadline])
            self._requests.append(
                frames.headers_frames(stream_id, head, is_end=False)
                + frames.frame(frames.DATA, frames.END_STREAM, stream_id, _MESSAGE)
            )
            self._answers.append(
                frames.headers_frames(stream_id, engine.encode(ANSWER), is_end=False)
                + frames.frame(frames.DATA, 0, stream_id, _MESSAGE)
                + frames.headers_frames(stream_id, engine.encode(TRAILERS), is_end=True)
            )
        self._head = encode_fields(REQUEST)
        self._begin()

    def _begin(self) -> None:
        self._turn = 0
        self._callers = CallersConnection(_sleep, self._accept)
        self._engines = EnginesConnection(_sleep, lambda _, __: None)
        self._callers.receive(frames.PREFACE + _GREETING)
        self._engines.receive(_GREETING)

    def _accept(self, stream: Stream, fields: Fields, is_end: bool) -> None:  # noqa: FBT001 - as it is called
        head = dict(fields)
        asked = self._engines.begin()
        asked.receiver = _Passing(stream)
        stream.receiver = _Passing(asked)
        more = ((b"authorization", head[b"authorization"]), (b"x-request-id", b"0" * 36))
        asked.send_headers(self._head + encode_fields(more), is_end=is_end)

    def once(self) -> None:
        """Pass one request on, and its answer back."""
        if self._turn == _STREAMS:
            self._begin()
        self._callers.receive(self._requests[self._turn])
        self._engines.take()
        self._engines.receive(self._answers[self._turn])
        self._callers.take()
        self._turn += 1
        assert not self._callers.streams  # noqa: S101 - it was answered


def _sleep() -> None:
    """Nobody is woken."""


def unary_relay(*, with_deadline: bool) -> Callable[[], object]:
    """Return a call that passes one request on."""
    return _Relay(with_deadline=with_deadline).once
