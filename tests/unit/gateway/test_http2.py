"""HTTP/2 without sockets: windows, ends, what breaks a rule, and the bound of each flood."""

from collections.abc import Callable

import pytest
from tests.fakes.http2_ends import (
    ANSWER,
    END,
    HEAD,
    REQUEST,
    TRAILERS,
    Accepting,
    Asking,
    Recorder,
    exchange,
)

from penstock.gateway.http2 import frames
from penstock.gateway.http2.fields import FieldDecoder, Fields, Kind, encode_fields, kind_of
from penstock.gateway.http2.frames import ConnectionFault, ErrorCode, FrameReader, frame
from penstock.gateway.limits import (
    H2_CONTINUATIONS,
    H2_FIELDS_BYTES,
    H2_IDLE_FRAMES,
    H2_RESETS,
    H2_STREAM_BYTES,
    H2_STREAMS,
    H2_UNSENT_REPLIES,
    HEADER_FIELDS,
    WRITE_BUFFER_BYTES,
    WRITE_STALL_S,
)

GREETING = frames.PREFACE + frames.settings_frame({})
BLOCK = encode_fields(REQUEST)


def head(stream_id: int, *, is_end: bool = True, block: bytes = BLOCK) -> bytes:
    """Return a request's head."""
    return frames.headers_frames(stream_id, block, is_end=is_end)


def code_of(out: bytes) -> ErrorCode | None:
    """Return why a connection ended, from what it sent."""
    for kind, _, _, payload in FrameReader().read(out):
        if kind == frames.GOAWAY:
            return frames.read_code(int.from_bytes(payload[4:8], "big"))
    return None


def resets_of(out: bytes) -> dict[int, ErrorCode]:
    """Return the streams that were reset, and why."""
    return {
        stream_id: frames.read_code(frames.read_number(payload))
        for kind, _, stream_id, payload in FrameReader().read(out)
        if kind == frames.RST_STREAM
    }


def greeted(**how: bool) -> Accepting:
    """Return a server whose caller has greeted it."""
    served = Accepting(**how)
    served.connection.receive(GREETING)
    served.connection.take()
    return served


HEADLESS = encode_fields((*REQUEST[:2], *REQUEST[3:]))
PADDED_DATA = frames.PADDED
BREAKS: dict[str, tuple[bytes, ErrorCode]] = {
    "HTTP/1.1": (b"GET / HTTP/1.1\r\n\r\n", ErrorCode.PROTOCOL_ERROR),
    "no settings": (frames.PREFACE + head(1), ErrorCode.PROTOCOL_ERROR),
    "large frame": (GREETING + b"\0\x40\x01\0\0\0\0\0\1", ErrorCode.FRAME_SIZE_ERROR),
    "short ping": (GREETING + frame(frames.PING, 0, 0, b"1"), ErrorCode.FRAME_SIZE_ERROR),
    "ping on a stream": (
        GREETING + frame(frames.PING, 0, 1, b"12345678"),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "odd settings": (GREETING + frame(frames.SETTINGS, 0, 0, b"1"), ErrorCode.FRAME_SIZE_ERROR),
    "filled acknowledgement": (
        GREETING + frame(frames.SETTINGS, frames.ACK, 0, b"123456"),
        ErrorCode.FRAME_SIZE_ERROR,
    ),
    "large window": (
        GREETING + frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 2**31}),
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
    "small frames": (
        GREETING + frames.settings_frame({frames.MAX_FRAME_SIZE: 1}),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "window grows by nothing": (
        GREETING + frames.number_frame(frames.WINDOW_UPDATE, 0, 0),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "window beyond all": (
        GREETING + frames.number_frame(frames.WINDOW_UPDATE, 0, frames.MOST),
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
    "data on no stream": (GREETING + frame(frames.DATA, 0, 0, b""), ErrorCode.PROTOCOL_ERROR),
    "data nobody began": (GREETING + frame(frames.DATA, 0, 1, b""), ErrorCode.PROTOCOL_ERROR),
    "an even stream": (GREETING + head(2), ErrorCode.PROTOCOL_ERROR),
    "padding beyond": (
        GREETING + head(1, is_end=False) + frame(frames.DATA, PADDED_DATA, 1, b"\x05abc"),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "a push": (GREETING + frame(frames.PUSH_PROMISE, 4, 1, b"\0\0\0\2"), ErrorCode.PROTOCOL_ERROR),
    "a torn block": (
        GREETING + frame(frames.HEADERS, 0, 1, BLOCK) + frame(frames.PING, 0, 0, b"12345678"),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "a block of nothing": (
        GREETING + frame(frames.CONTINUATION, 4, 1, BLOCK),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "an entry that is not there": (GREETING + head(1, block=b"\xff"), ErrorCode.COMPRESSION_ERROR),
    "a large table": (
        GREETING + head(1, block=b"\x3f\xe1\x7f" + BLOCK),
        ErrorCode.COMPRESSION_ERROR,
    ),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_what_breaks_a_connection(broken: str) -> None:
    """The caller is told why, whole or byte by byte; its requests are told that it is gone."""
    data, code = BREAKS[broken]
    for size in (len(data), 1):
        served = Accepting()
        served.connection.take()
        for at in range(0, len(data), size):
            served.connection.receive(data[at : at + size])
        assert served.connection.is_dead
        assert code_of(served.connection.take()) is code
        assert all(recorder.resets == [None] for _, recorder in served.requests)
        assert not served.connection.streams


NO_WINDOW = frames.number_frame(frames.WINDOW_UPDATE, 1, 0)
STREAM_BREAKS: dict[str, tuple[bytes, ErrorCode]] = {
    "no path": (head(1, block=HEADLESS), ErrorCode.PROTOCOL_ERROR),
    "large fields": (
        head(1, block=BLOCK + encode_fields(((b"x", b"y" * H2_FIELDS_BYTES),))),
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
    "many fields": (
        head(1, block=BLOCK + encode_fields(((b"x", b""),)) * HEADER_FIELDS),
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
    "two heads": (head(1, is_end=False) * 2, ErrorCode.PROTOCOL_ERROR),
    "trailers go on": (
        head(1, is_end=False) + head(1, is_end=False, block=END),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "data behind the end": (head(1) + frame(frames.DATA, 0, 1, b"x"), ErrorCode.STREAM_CLOSED),
    "window of nothing": (head(1) + NO_WINDOW, ErrorCode.PROTOCOL_ERROR),
    "window beyond all": (
        head(1) + frames.number_frame(frames.WINDOW_UPDATE, 1, frames.MOST),
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
    "more than its window": (
        head(1, is_end=False) + frame(frames.DATA, 0, 1, bytes(16_384)) * 17,
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
}


@pytest.mark.parametrize("broken", STREAM_BREAKS)
def test_what_breaks_a_stream(broken: str) -> None:
    """Only the stream ends, and its user is told; another one is served."""
    data, code = STREAM_BREAKS[broken]
    served = greeted(holds=True)
    served.connection.receive(data)
    assert resets_of(served.connection.take()) == {1: code}
    assert [recorder.resets for _, recorder in served.requests] in ([], [[code]])
    served.connection.receive(head(3))
    assert list(served.connection.streams) == [3]


def ping(number: int) -> bytes:
    """Return a ping."""
    return frame(frames.PING, 0, 0, number.to_bytes(8, "big"))


FLOODS: dict[str, Callable[[int], bytes]] = {
    "pings": ping,
    "settings": lambda _: frames.settings_frame({}),
    "windows": lambda _: frames.number_frame(frames.WINDOW_UPDATE, 0, 1),
    "priorities": lambda n: frame(frames.PRIORITY, 0, 2 * n + 1, b"12345"),
    "unknown frames": lambda n: frame(100 + n % 100, 0, n, b"?"),
    "empty data": lambda n: frame(frames.DATA, 0, 1, b"") if n else head(1, is_end=False),
    "resets of what is over": lambda n: (
        frames.number_frame(frames.RST_STREAM, 1, 8) if n else head(1)
    ),
    "rapid resets": lambda n: (
        head(2 * n + 1) + frames.number_frame(frames.RST_STREAM, 2 * n + 1, 8)
    ),
    "resets that we are made to send": lambda n: (
        head(2 * n + 1) + frames.number_frame(frames.WINDOW_UPDATE, 2 * n + 1, 0)
    ),
    "malformed requests": lambda n: head(2 * n + 1, block=HEADLESS),
    "more streams than are allowed": lambda n: head(2 * n + 1, is_end=False),
    "continuations": lambda n: frame(frames.CONTINUATION if n else frames.HEADERS, 0, 1, b""),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_floods_end(flood: str) -> None:
    """Frames that have us work for nothing end the connection, within the bounds of a second."""
    served = greeted()
    most = H2_IDLE_FRAMES + H2_STREAMS * 5 + 10
    for number in range(most):
        served.connection.receive(FLOODS[flood](number))
        served.connection.take() if not served.connection.is_dead else None
        if served.connection.is_dead:
            break
    assert served.connection.is_dead
    assert len(served.connection.streams) == 0
    assert len(served.requests) <= max(H2_RESETS, H2_STREAMS) + 1


def test_bounds_of_floods() -> None:
    """They end for the reason that is named; what is done in time does not add up."""
    served = greeted()
    for number in range(H2_IDLE_FRAMES * 3):
        served.connection.receive(ping(number))
        served.connection.take()
        if number % (H2_IDLE_FRAMES // 4) == 0:
            served.connection.sweep(0.0)
    assert not served.connection.is_dead
    while not served.connection.is_dead:
        served.connection.receive(ping(0))
        if not served.connection.is_dead:
            served.connection.take()
    assert code_of(served.connection.take()) is ErrorCode.ENHANCE_YOUR_CALM


def test_pings_whose_answers_are_not_read() -> None:
    """What the answers to pings take is bounded even where pings are worth their while."""
    served = greeted()
    for number in range(H2_UNSENT_REPLIES + 1):
        served.connection.receive(ping(number) + head(2 * number + 1, is_end=False))
        if served.connection.is_dead:
            break
        for stream in list(served.connection.streams.values()):
            served.connection.forget(stream, ErrorCode.NO_ERROR)
    assert served.connection.is_dead


def test_a_header_block_of_many_frames() -> None:
    """A block may continue so often as is named, and is then understood as one."""
    served = greeted()
    pieces = [BLOCK[at : at + 8] for at in range(0, len(BLOCK), 8)][:H2_CONTINUATIONS]
    pieces[-1] += BLOCK[sum(len(piece) for piece in pieces) :]
    for number, piece in enumerate(pieces):
        kind = frames.CONTINUATION if number else frames.HEADERS
        flags = frames.END_HEADERS if piece is pieces[-1] else 0
        served.connection.receive(frame(kind, flags, 1, piece))
    assert [fields for fields, _ in served.requests] == [REQUEST]


def test_a_block_that_unfolds() -> None:
    """Few bytes that mean many end the connection before they are unfolded."""
    decoder = FieldDecoder()
    big = b"\x40\x01x" + b"\x7f\xa1\x1e" + b"y" * 4_000
    decoder.decode(big)
    with pytest.raises(ConnectionFault) as fault:
        decoder.decode(b"\xbe" * 16_000)
    assert fault.value.code is ErrorCode.ENHANCE_YOUR_CALM


KINDS: list[tuple[Fields, Kind]] = [
    (REQUEST, Kind.REQUEST),
    (ANSWER, Kind.ANSWER),
    (TRAILERS, Kind.TRAILERS),
    ((), Kind.TRAILERS),
    ((*REQUEST, (b":path", b"/")), Kind.MALFORMED),
    (((b"te", b"trailers"), *REQUEST), Kind.MALFORMED),
    (((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"")), Kind.MALFORMED),
    ((*REQUEST, (b"connection", b"close")), Kind.MALFORMED),
    ((*REQUEST, (b"Upper", b"x")), Kind.MALFORMED),
    ((*REQUEST, (b"", b"x")), Kind.MALFORMED),
    ((*REQUEST, (b"te", b"gzip")), Kind.MALFORMED),
    ((*REQUEST, (b"x", b"a\r\nb: c")), Kind.MALFORMED),
    ((*REQUEST, (b"x", b" a")), Kind.MALFORMED),
    (((b":status", b"20"),), Kind.MALFORMED),
    (((b":status", b"200"), (b":path", b"/")), Kind.MALFORMED),
    (((b":other", b"200"),), Kind.MALFORMED),
]


@pytest.mark.parametrize(("fields", "kind"), KINDS)
def test_which_fields_can_be_what(fields: Fields, kind: Kind) -> None:
    """A list of fields is a request's head, an answer's, trailers, or nothing that may be."""
    assert kind_of(fields) is kind
    assert FieldDecoder().decode(encode_fields(fields))[0] == fields


def test_who_sends_more_than_is_taken_waits() -> None:
    """Past what the peer takes nothing is sent; the sender is told to wait, and to go on."""
    asking, served = Asking(), Accepting(holds=True)
    asked = asking.ask(bytes(H2_STREAM_BYTES + WRITE_BUFFER_BYTES + 1))
    exchange(asking.connection, served.connection)
    recorder = served.requests[0][1]
    assert len(recorder.data) == H2_STREAM_BYTES
    assert (asked.stream.unsent_bytes, asked.pauses) == (WRITE_BUFFER_BYTES + 1, 1)
    other = asking.ask(b"x")
    exchange(asking.connection, served.connection)
    assert served.requests[1][1].data == b"x"
    assert not other.pauses
    recorder.stream.consume(H2_STREAM_BYTES)
    exchange(asking.connection, served.connection)
    assert (asked.stream.unsent_bytes, asked.resumes) == (0, 1)
    assert recorder.is_end


def test_a_peer_that_takes_nothing_more() -> None:
    """A stream whose rest is not taken for a time is given up, and both ends are told."""
    asking, served = Asking(), Accepting(holds=True)
    asked = asking.ask(bytes(H2_STREAM_BYTES + 1))
    exchange(asking.connection, served.connection)
    asking.connection.sweep(100.0)
    asking.connection.sweep(99.0 + WRITE_STALL_S)
    assert not asked.resets
    asking.connection.sweep(100.0 + WRITE_STALL_S)
    exchange(asking.connection, served.connection)
    assert asked.resets == served.requests[0][1].resets == [ErrorCode.CANCEL]


def test_a_window_that_shrinks() -> None:
    """Settings that take a window back below nothing are obeyed, and so is what opens it."""
    asking = Asking()
    asking.connection.receive(frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 100}))
    asked = asking.ask(b"x" * 150)
    asking.connection.receive(frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 10}))
    assert asked.stream.window == -90
    asking.connection.receive(frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 50}))
    assert asked.stream.unsent_bytes == 50
    asking.connection.receive(frames.number_frame(frames.WINDOW_UPDATE, 1, 100))
    assert asked.stream.unsent_bytes == 0


def test_a_paused_connection_makes_no_data() -> None:
    """While its socket takes nothing more, data waits in its streams; then all go on in turn."""
    asking, served = Asking(), Accepting()
    asking.connection.is_paused = True
    asked = [asking.ask(b"x" * 40_000) for _ in range(3)]
    exchange(asking.connection, served.connection)
    assert [len(recorder.data) for _, recorder in served.requests] == [0, 0, 0]
    asking.connection.resume()
    exchange(asking.connection, served.connection)
    assert [len(recorder.data) for _, recorder in served.requests] == [40_000] * 3
    assert not any(each.stream.unsent_bytes for each in asked)


def test_early_answers_end_both_sides() -> None:
    """An answer that ends before its request has the rest of that given up, by whoever sees it."""
    asking, served = Asking(), Accepting(holds=True)
    asked = asking.ask(bytes(H2_STREAM_BYTES * 2))
    exchange(asking.connection, served.connection)
    stream = served.requests[0][1].stream
    stream.send_headers(HEAD + END, is_end=True)
    assert stream.is_closed
    exchange(asking.connection, served.connection)
    assert asked.head == (*ANSWER, *TRAILERS)
    assert asked.is_end
    assert not asked.resets
    assert not asking.connection.streams


def test_a_stream_that_has_ended_is_not_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is done with an answer as it ends tells its engine nothing: both sides have ended."""
    asking, served = Asking(), Accepting(echoes=True)
    exchange(asking.connection, served.connection)
    asked = asking.ask(b"x")
    monkeypatch.setattr(asked, "on_trailers", lambda _: asked.stream.reset())
    served.connection.receive(asking.connection.take())
    asking.connection.receive(served.connection.take())
    assert asking.closed == [(1, ErrorCode.NO_ERROR)]
    assert asking.connection.take() == b""
    early = asking.ask(is_end=False)
    asking.connection.take()
    early.stream.reset()
    assert resets_of(asking.connection.take()) == {3: ErrorCode.CANCEL}


def test_interim_answers_are_passed_over() -> None:
    """Answers like 103 before the answer say nothing; one that is the end breaks the stream."""
    asking = Asking()
    asking.connection.receive(frames.settings_frame({}))
    first, second = asking.ask(), asking.ask()
    early = encode_fields(((b":status", b"103"),))
    asking.connection.receive(head(1, is_end=False, block=early) + head(1, block=HEAD))
    asking.connection.receive(head(3, is_end=True, block=early))
    assert first.head == ANSWER
    assert second.resets == [ErrorCode.PROTOCOL_ERROR]


def test_draining_serves_what_was_begun() -> None:
    """Requests that were sent before a caller knew are served; later ones are surely refused."""
    asking, served = Asking(), Accepting()
    asked = asking.ask(is_end=False)
    exchange(asking.connection, served.connection)
    served.connection.drain()
    served.connection.drain()
    crossing = asking.ask()
    exchange(asking.connection, served.connection)
    assert asking.connection.is_going_away
    assert served.connection.is_going_away
    assert not asking.connection.has_room
    for _, recorder in served.requests:
        recorder.stream.send_headers(HEAD + END, is_end=True)
    exchange(asking.connection, served.connection)
    assert asked.is_end
    assert crossing.is_end
    assert served.connection.is_finished
    assert asking.connection.is_finished


def test_an_engine_that_goes_away() -> None:
    """What an engine surely did not begin is told so; what it began may end."""
    asking = Asking()
    asking.connection.receive(frames.settings_frame({}))
    kept, refused = asking.ask(), asking.ask()
    asking.connection.receive(frames.goaway_frame(1, ErrorCode.NO_ERROR))
    assert refused.resets == [ErrorCode.REFUSED_STREAM]
    asking.connection.receive(head(1, block=HEAD))
    assert kept.is_end
    assert asking.closed == [(3, ErrorCode.REFUSED_STREAM), (1, ErrorCode.NO_ERROR)]


def test_an_engine_allows_few_streams() -> None:
    """No more streams begin than an engine allows, and none beyond our own bound."""
    asking = Asking()
    assert asking.connection.most_streams == H2_STREAMS
    asking.connection.receive(frames.settings_frame({frames.MAX_CONCURRENT_STREAMS: 2}))
    asking.ask()
    assert asking.connection.has_room
    asking.ask()
    assert not asking.connection.has_room


def test_a_peer_without_a_table_is_told_that_we_have_none() -> None:
    """Who wants a smaller table sees its size at the start of our next block (RFC 7541, 4.2)."""
    asking = Asking()
    asking.connection.take()
    asking.connection.receive(frames.settings_frame({frames.HEADER_TABLE_SIZE: 0}))
    asking.ask()
    asking.ask()
    blocks = [
        payload
        for kind, _, _, payload in FrameReader().read(asking.connection.take())
        if kind == frames.HEADERS
    ]
    assert blocks == [b"\x20" + BLOCK, BLOCK]


def test_who_is_told_of_an_end_may_end_others() -> None:
    """A stream that another one's user ended is not ended again when their connection is lost."""
    asking = Asking()
    asking.connection.receive(frames.settings_frame({}))
    first, second, third = (asking.ask(is_end=False) for _ in range(3))

    class Ending(Recorder):
        """Ends its neighbour with itself."""

        def on_reset(self, code: ErrorCode | None) -> None:
            super().on_reset(code)
            second.stream.reset()

    ending = Ending(first.stream)
    asking.connection.lost()
    assert ending.resets == third.resets == [None]
    assert second.resets == []
    assert not asking.connection.streams
