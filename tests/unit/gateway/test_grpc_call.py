"""Calls of one connection of a caller, without sockets: what their messages may take together."""

from types import SimpleNamespace
from typing import Any

import pytest
from tests.fakes.http2_ends import Asking, Recorder, exchange

from penstock.gateway.dialects.grpc import frame
from penstock.gateway.errors import BUG, CALLER_STALLED, CONNECTION_FULL
from penstock.gateway.grpc import call
from penstock.gateway.grpc.exchange import GrpcExchange
from penstock.gateway.grpc.reply import GrpcReply
from penstock.gateway.http2 import frames
from penstock.gateway.http2.ends import CallersConnection
from penstock.gateway.http2.fields import Fields, encode_fields
from penstock.gateway.http2.stream import Stream
from penstock.gateway.limits import H2_STREAM_BYTES, WRITE_STALL_S
from penstock.gateway.request import Request
from penstock.kit.errors import ErrorCode, Refusal
from penstock.kit.protobuf import length_field

MOST = 1_000
MESSAGE = frame(length_field(9, bytes(780)))
"""A question about health, with something in it that means nothing."""
HEAD = encode_fields(
    (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/grpc.health.v1.Health/Check"),
        (b"content-type", b"application/grpc"),
    )
)


class Pair:
    """A caller and a worker, on one connection.

    Args:
        call_type: What serves its calls.
    """

    def __init__(self, call_type: type[call.Call] = call.Call) -> None:
        """Connect them."""
        worker: Any = SimpleNamespace(
            now_s=lambda: 1.0,
            forwards_headers=False,
            refusal=lambda: None,
            unreadiness=lambda: None,
            event_ids=SimpleNamespace(next=lambda: "id"),
            note_refusal=lambda *_: None,
        )

        def accept(stream: Stream, fields: Fields, is_end: bool) -> None:  # noqa: FBT001 - as it is called
            self.calls.append(call_type(worker, stream))
            self.calls[-1].begin(fields, is_end=is_end)

        self.server = CallersConnection(lambda: None, accept)
        self.server.transport = SimpleNamespace()  # type: ignore[assignment]
        self.caller = Asking()
        self.calls: list[call.Call] = []

    def begin(self, data: bytes = b"") -> Recorder:
        """Begin a call with a piece of a message."""
        recorder = Recorder(self.caller.connection.begin())
        recorder.stream.send_headers(HEAD)
        self.send(recorder, data)
        return recorder

    def send(self, recorder: Recorder, data: bytes, *, is_end: bool = False) -> None:
        """Send a further piece."""
        recorder.stream.send_data(data, is_end=is_end)
        exchange(self.caller.connection, self.server)


@pytest.fixture(autouse=True)
def _few_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call, "GRPC_HELD_BYTES", MOST)


def _status(recorder: Recorder) -> bytes:
    """Return how a call ended."""
    fields = recorder.trailers or recorder.head
    assert fields is not None
    return dict(fields)[b"grpc-status"]


def test_messages_of_one_connection_are_bounded_together() -> None:
    """The one with which there are too many bytes is refused, the others go on."""
    pair = Pair()
    first = pair.begin(MESSAGE[:500])
    second = pair.begin(MESSAGE[:200])
    third = pair.begin(MESSAGE[:400])
    assert (_status(third), first.head, second.head) == (b"8", None, None)
    told = dict(third.trailers or third.head or ())
    assert told[b"x-penstock-error-code"] == b"err:gateway:request:connection_full"
    assert told[b"grpc-retry-pushback-ms"] == b"1000"
    pair.send(first, MESSAGE[500:], is_end=True)
    assert _status(first) == b"0"
    pair.send(second, MESSAGE[200:], is_end=True)
    assert _status(second) == b"0"
    assert pair.server.held_bytes == 0


def test_what_a_call_held_is_free_when_its_caller_leaves() -> None:
    """Whichever way a call ends, nothing of it counts any more."""
    pair = Pair()
    for _ in range(3):
        left = pair.begin(MESSAGE)
        assert pair.server.held_bytes == len(MESSAGE)
        left.stream.reset()
        exchange(pair.caller.connection, pair.server)
        assert pair.server.held_bytes == 0


def test_who_takes_nothing_of_an_answer_is_said_to_stall() -> None:
    """However little waits; who takes some has its time anew."""
    pair = Pair()
    gone: list[ErrorCode] = []
    left = pair.begin()
    left.holds = True
    served = pair.calls[0]
    served._exchange = SimpleNamespace(  # type: ignore[assignment]
        request_id="id",
        limit_lines=b"",
        pause=lambda: None,
        resume=lambda: None,
        sweep=lambda _: None,
        caller_gone=gone.append,
    )
    served.write(bytes(H2_STREAM_BYTES * 3 // 2 + 1))
    exchange(pair.caller.connection, pair.server)
    served.sweep(100.0)
    served.sweep(99.0 + WRITE_STALL_S)
    left.stream.consume(H2_STREAM_BYTES // 2)
    exchange(pair.caller.connection, pair.server)
    served.sweep(100.0 + WRITE_STALL_S)
    assert not gone
    served.sweep(100.0 + 2 * WRITE_STALL_S)
    assert gone == [CALLER_STALLED]
    exchange(pair.caller.connection, pair.server)
    assert left.resets == [frames.ErrorCode.CANCEL]


class Answered(GrpcExchange):
    """What an engine's answer is kept by, and how it failed."""

    def __init__(self, downstream: call.Call) -> None:
        """Begin with nothing of it."""
        self._downstream, self._stream, self._tap = downstream, None, None
        self._body, self._answer_bytes = [], 0
        self.is_settled = False
        self.errors: list[ErrorCode] = []

    def _fail(self, refusal: Refusal, **_: object) -> None:
        self.errors.append(refusal.error)


def test_answers_count_as_messages_do() -> None:
    """What engines answer to the calls of one connection is kept in the same room."""
    pair = Pair()
    one, other = pair.begin(MESSAGE[:500]), pair.begin()
    first, second = map(Answered, pair.calls)
    first.on_data(bytes(400), is_end=False)
    second.on_data(bytes(100), is_end=False)
    assert first.errors == second.errors == []
    second.on_data(bytes(1), is_end=False)
    assert (first.errors, second.errors) == ([], [CONNECTION_FULL])
    for left in (one, other):
        left.stream.reset()
        exchange(pair.caller.connection, pair.server)
    assert pair.server.held_bytes == 0


class Flawed(call.Call):
    """A call of whose failure nobody can be told."""

    @staticmethod
    def _told(refusal: Refusal, http_status: int | None) -> bytes:
        del http_status
        raise RuntimeError(refusal)


def test_a_bug_in_telling_of_an_error_ends_the_call() -> None:
    """Its caller does not wait: it is told of a bug, and so is who logs it."""
    pair = Pair(Flawed)
    asked = pair.begin()
    with pytest.raises(RuntimeError):
        pair.send(asked, frame(b"\xff"), is_end=True)
    exchange(pair.caller.connection, pair.server)
    assert _status(asked) == b"13"


def test_a_bug_before_an_error_is_told_is_told_itself() -> None:
    """A call whose answer has begun does not end well by it."""
    worker: Any = None
    downstream: Any = SimpleNamespace(write=lambda _: None)
    reply = GrpcReply(worker, downstream, Request(), b"id")
    reply.end_stream(b"the last message")
    reply.break_off()
    assert reply.refusal == Refusal(BUG)
    assert reply.last_bytes == b""
