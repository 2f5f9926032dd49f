"""HTTP/2 against other implementations at every cut, and against whatever may come."""

from itertools import cycle
from typing import Any

import h2.config
import h2.connection
import h2.events
import hpack
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.effort import tries
from tests.fakes.http2_ends import (
    ANSWER,
    HEAD,
    REQUEST,
    TRAILERS,
    Accepting,
    Asking,
    exchange,
)

from penstock.gateway.http2 import frames
from penstock.gateway.http2.connection import Connection
from penstock.gateway.http2.fields import FieldDecoder, encode_fields
from penstock.gateway.http2.frames import FRAME_BYTES, ConnectionFault, frame
from penstock.gateway.limits import H2_BLOCKS_KNOWN, H2_STREAMS

names = st.sampled_from([b"grpc-timeout", b"x", b"content-type", b"user-agent", b"authorization"])
values = st.one_of(st.binary(max_size=40), st.sampled_from([b"application/grpc", b"29m", b"1S"]))
lists = st.lists(st.tuples(names, values), max_size=8)


@given(st.lists(st.tuples(lists, st.none() | st.integers(0, 4096), st.booleans()), max_size=6))
@settings(max_examples=tries(60))
def test_blocks_are_read_as_another_writes_them(written: list[Any]) -> None:
    """What the library `hpack` writes is understood, its table of every size followed exactly."""
    encoder, decoder = hpack.Encoder(), FieldDecoder()
    for fields, size, is_coded in written * 2:
        if size is not None:
            encoder.header_table_size = size
        block = encoder.encode(fields, huffman=is_coded)
        assert list(decoder.decode(block)[0]) == fields


@given(st.lists(st.binary(max_size=60) | lists.map(encode_fields), max_size=6))
@settings(max_examples=tries(150))
def test_blocks_of_any_bytes_are_read_as_another_reads_them(blocks: list[bytes]) -> None:
    """Of arbitrary blocks we read what `hpack` reads, and refuse what it refuses."""
    ours, theirs = FieldDecoder(), hpack.Decoder()
    for block in blocks:
        try:
            expected = [tuple(field) for field in theirs.decode(block, raw=True)]
        except hpack.HPACKError:
            expected = None
        try:
            found = list(ours.decode(block)[0])
        except ConnectionFault:
            return
        assert found == expected
        assert found == [tuple(f) for f in hpack.Decoder().decode(encode_fields(found), raw=True)]


bodies = st.lists(st.sampled_from([0, 1, 100, 16_384, 16_385, 70_000, 300_000]), max_size=4)
cuts = st.lists(st.sampled_from([1, 2, 8, 9, 10, 23, 24, 500, 16_393, 10**6]), min_size=1)


def carry(data: bytes, to: Any, sizes: Any) -> list[Any]:
    """Hand bytes over in pieces; return what `h2` says to them."""
    told: list[Any] = []
    at = 0
    while at < len(data):
        size = next(sizes) if len(data) < 5_000 else max(400, next(sizes))
        told += (to.receive_data if hasattr(to, "receive_data") else to.receive)(
            data[at : at + size]
        ) or ()
        at += size
    return told


@given(bodies, cuts)
@settings(max_examples=tries(25))
def test_another_calls_us(sizes: list[int], pieces: list[int]) -> None:
    """Requests of `h2`, many at a time, are served whole at every cut, and answered whole."""
    served, at = Accepting(echoes=True), cycle(pieces)
    other = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
    other.initiate_connection()
    unsent: dict[int, bytes] = {}
    for number, size in enumerate(sizes):
        other.send_headers(2 * number + 1, list(REQUEST))
        unsent[2 * number + 1] = bytes(size)
    got = dict.fromkeys(unsent, 0)
    ended: set[int] = set()
    while len(ended) < len(sizes):
        for stream_id, body in list(unsent.items()):
            size = min(len(body), other.local_flow_control_window(stream_id), FRAME_BYTES)
            if size or not body:
                is_end = size == len(body)
                other.send_data(stream_id, body[:size], end_stream=is_end)
                unsent[stream_id] = body[size:]
                if is_end:
                    del unsent[stream_id]
        carry(other.data_to_send(), served.connection, at)
        for event in carry(served.connection.take(), other, at):
            if isinstance(event, h2.events.DataReceived):
                got[event.stream_id] += len(event.data)
                other.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.TrailersReceived):
                assert [tuple(field) for field in event.headers] == list(TRAILERS)
                ended.add(event.stream_id)
    assert got == {2 * number + 1: size for number, size in enumerate(sizes)}
    assert not served.connection.streams


@given(bodies, cuts)
@settings(max_examples=tries(25))
def test_we_call_another(sizes: list[int], pieces: list[int]) -> None:
    """Our requests, many at a time, arrive at `h2` whole, and its answers at us, at every cut."""
    asking, at = Asking(), cycle(pieces)
    config = h2.config.H2Configuration(client_side=False, header_encoding=None)
    other = h2.connection.H2Connection(config)
    other.initiate_connection()
    asked = [asking.ask(bytes(size)) for size in sizes]
    got = {recorder.stream.id: 0 for recorder in asked}
    while not all(recorder.is_end for recorder in asked):
        for event in carry(asking.connection.take(), other, at):
            if isinstance(event, h2.events.RequestReceived):
                assert [tuple(field) for field in event.headers] == list(REQUEST)
            elif isinstance(event, h2.events.DataReceived):
                got[event.stream_id] += len(event.data)
                other.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                other.send_headers(event.stream_id, list(ANSWER))
                other.send_data(event.stream_id, bytes(10_000), pad_length=7)
                other.send_headers(event.stream_id, list(TRAILERS), end_stream=True)
        carry(other.data_to_send(), asking.connection, at)
    assert list(got.values()) == sizes
    assert all((r.head, r.trailers) == (ANSWER, TRAILERS) for r in asked)
    assert [len(recorder.data) for recorder in asked] == [10_000] * len(sizes)
    assert not asking.connection.streams


numbers = st.sampled_from([0, 1, 1, 2, 3, 5, 7, 2**31 - 1])
blocks = st.sampled_from(
    [
        encode_fields(REQUEST),
        HEAD,
        encode_fields(TRAILERS),
        b"",
        b"\x40\x01a\x01b",
        b"\xbe",
        b"\xff",
    ]
)
payloads = st.one_of(
    blocks,
    st.sampled_from(
        [bytes(4), bytes(8), b"\xff" * 4, b"\0\0\0\1", bytes(6), b"\0\4\x7f\xff\xff\xff"]
    ),
    st.binary(max_size=20),
)
some_frames = st.one_of(
    st.builds(frame, st.integers(0, 10), st.integers(0, 255), numbers, payloads),
    st.builds(frame, st.just(1), st.sampled_from([4, 5]), numbers, blocks),
    st.builds(frame, st.just(0), st.sampled_from([0, 1]), numbers, st.just(bytes(16_000))),
)


def held_bytes(connection: Connection) -> int:
    """Return what a connection keeps of what came, and what it has to send."""
    reader = connection._reader
    return len(reader._rest) + len(reader._block) + sum(map(len, connection._out))


@given(st.lists(some_frames | st.binary(max_size=30), max_size=40), st.booleans(), st.data())
@settings(max_examples=tries(150))
def test_nothing_that_comes_breaks_us(sent: list[bytes], is_client: bool, data: Any) -> None:  # noqa: FBT001 - drawn
    """Any frames in any order are served, refused or ended, and what is kept has its bound."""
    end: Accepting | Asking = Asking() if is_client else Accepting()
    connection = end.connection
    greeting = frames.settings_frame({})
    connection.receive(greeting if is_client else frames.PREFACE + greeting)
    asked = [end.ask(b"x" * 100, is_end=False) for _ in range(3)] if isinstance(end, Asking) else []
    for piece in sent:
        size = data.draw(st.integers(1, len(piece) or 1))
        connection.receive(piece[:size])
        connection.receive(piece[size:])
        assert len(connection.streams) <= H2_STREAMS
        assert len(connection._decoder._known) <= H2_BLOCKS_KNOWN
        assert held_bytes(connection) <= 200_000
    recorders = asked or [recorder for _, recorder in getattr(end, "requests", ())]
    assert all(len(recorder.resets) <= 1 for recorder in recorders)
    assert all(
        r.resets or r.stream.is_closed or r.stream.id in connection.streams for r in recorders
    )
    other = Accepting() if is_client else Asking()
    if not connection.is_dead:
        exchange(connection, other.connection)
