"""Limits: more than is allowed is refused early, and costs the worker no memory."""

import time
from collections.abc import Iterator

import psutil
import pytest
from tests.fakes.http_rig import (
    CHAT,
    Rig,
    as_engine_sees,
    chat,
    chunk,
    get,
    request,
    running_rig,
)
from tests.fakes.raw_http import RawConnection

from penstock.gateway.limits import BODY_BYTES, HEADER_BYTES, HEADER_FIELDS, TARGET_BYTES

_TE = b"Transfer-Encoding: chunked"
_MIB = 1024 * 1024


def _rss_bytes(rig: Rig) -> int:
    found: int = psutil.Process(rig.worker.pid).memory_info().rss
    return found


def _pieces(content: bytes, size: int) -> list[bytes]:
    return [content[i : i + size] for i in range(0, len(content), size)]


_FIELDS_OF_REQUEST = 3
_ONE_FIELD = (b"X-Filler: " + b"x" * (HEADER_BYTES + 1024),)
_SOME_FIELDS = tuple(b"X-Filler-%d: " % n + b"x" * 1024 for n in range(65))
_ONE_COOKIE = (b"Cookie: " + b"a=b; " * 14_000,)


@pytest.mark.parametrize(
    "fields", [_ONE_FIELD, _SOME_FIELDS, _ONE_COOKIE], ids=["one", "some", "cookie"]
)
@pytest.mark.parametrize("size", [HEADER_BYTES * 2, 1000], ids=["at once", "trickled"])
def test_a_large_header_is_431(rig: Rig, fields: tuple[bytes, ...], size: int) -> None:
    """A header past 64 KiB is refused, however it arrives."""
    with rig.connect() as connection:
        for piece in _pieces(request(CHAT, *fields), size):
            connection.try_send(piece)
        answer = connection.read_answer()
        assert (answer.status, answer.code) == (431, "request:header_too_large")
        assert connection.read_to_end() == b""
    rig.expect_untouched()


@pytest.mark.parametrize("size", [HEADER_BYTES * 2, 1000], ids=["at once", "trickled"])
def test_a_header_within_its_limit_is_served(rig: Rig, size: int) -> None:
    """A header just below 64 KiB is served."""
    with rig.connect() as connection:
        connection.send_pieces(_pieces(request(CHAT, b"X-A: " + b"x" * (HEADER_BYTES - 512)), size))
        assert connection.read_answer().status == 200


def test_a_header_that_never_ends_is_431(rig: Rig) -> None:
    """A header of endless short lines is cut off at 64 KiB."""
    with rig.connect() as connection:
        connection.send(b"GET /health/live HTTP/1.1\r\n")
        for _ in range(200):
            connection.try_send(b"X-A: %b\r\n" % (b"x" * 1000))
        assert connection.read_answer().status == 431


def test_many_fields_are_431(rig: Rig) -> None:
    """A hundred header fields are served, one more is refused."""
    room = HEADER_FIELDS - _FIELDS_OF_REQUEST
    fields = [b"X-%d: a" % number for number in range(room + 1)]
    assert rig.ask(request(CHAT, *fields[:room])).status == 200
    rig.engine.seen.clear()
    answer = rig.ask(request(CHAT, *fields))
    assert (answer.status, answer.code) == (431, "request:header_too_large")
    rig.expect_untouched()


def test_many_trailers_are_431(rig: Rig) -> None:
    """Fields behind a chunked body count like those before it."""
    for count, status in ((HEADER_FIELDS - _FIELDS_OF_REQUEST, 200), (HEADER_FIELDS, 431)):
        trailers = b"".join(b"X-%d: a\r\n" % number for number in range(count))
        content = request(chunk(CHAT) + b"0\r\n" + trailers + b"\r\n", framing=_TE)
        assert rig.ask(content).status == status
    assert rig.bodies() == [as_engine_sees(CHAT)]


@pytest.mark.parametrize(
    "start",
    [b"0\r\nX-A: ", b"3;a="],
    ids=["trailer", "chunk extension"],
)
def test_what_surrounds_a_body_is_bounded(rig: Rig, start: bytes) -> None:
    """A trailer or chunk extension that never ends is cut off, and costs no memory."""
    with rig.connect() as connection:
        connection.send(request(chunk(CHAT) + start, framing=_TE))
        before = _rss_bytes(rig)
        for _ in range(16):
            connection.try_send(b"x" * _MIB)
        answer = connection.read_answer()
    assert (answer.status, answer.is_last) == (431, True)
    assert _rss_bytes(rig) - before < 4 * _MIB
    rig.expect_untouched()


@pytest.mark.parametrize("length", [TARGET_BYTES + 1024, HEADER_BYTES + 1024])
@pytest.mark.parametrize("size", [HEADER_BYTES * 2, 1000], ids=["at once", "trickled"])
def test_a_long_target_is_414(rig: Rig, length: int, size: int) -> None:
    """A target past 8 KiB is refused, however it arrives."""
    with rig.connect() as connection:
        for piece in _pieces(request(path=b"/v1/chat/completions?" + b"x" * length), size):
            connection.try_send(piece)
        answer = connection.read_answer()
        assert (answer.status, answer.code) == (414, "request:target_too_long")
        assert connection.read_to_end() == b""
    rig.expect_untouched()


def test_a_target_within_its_limit_is_served(rig: Rig) -> None:
    """A target of exactly 8 KiB is served."""
    path = b"/v1/chat/completions?"
    assert rig.ask(request(path=path + b"x" * (TARGET_BYTES - len(path)))).status == 200


def test_a_body_that_says_it_is_too_large_is_413(rig: Rig) -> None:
    """A length past 32 MiB is refused at the header, and nothing of the body is kept."""
    before = _rss_bytes(rig)
    with rig.connect() as connection:
        connection.send(request(b"", framing=b"Content-Length: %d" % (33 * _MIB)))
        answer = connection.read_answer()
        assert (answer.status, answer.code) == (413, "request:body_too_large")
        assert answer.is_last
        for _ in range(33):
            connection.try_send(b"x" * _MIB)
        assert _rss_bytes(rig) - before < 4 * _MIB
    rig.expect_untouched()


def test_a_chunked_body_that_grows_too_large_is_413(rig: Rig) -> None:
    """A chunked body is refused as soon as it is past 32 MiB."""
    with rig.connect() as connection:
        connection.send(request(b"", framing=_TE))
        for _ in range(34):
            connection.try_send(chunk(b" " * _MIB))
        answer = connection.read_answer()
        assert (answer.status, answer.code) == (413, "request:body_too_large")
    rig.expect_untouched()


def test_a_body_of_exactly_the_limit_is_served(rig: Rig) -> None:
    """A body of 32 MiB reaches the engine whole."""
    body = chat("x" * (BODY_BYTES - len(chat(""))))
    assert len(body) == BODY_BYTES
    assert rig.ask(request(body)).status == 200
    assert rig.bodies() == [as_engine_sees(body)]


@pytest.mark.parametrize("framing", [b"Content-Length: %d" % (30 * _MIB), _TE])
@pytest.mark.parametrize("path", [b"/health/live", b"/v1/models", b"/nothing"])
def test_bodies_that_nobody_wants_are_not_kept(rig: Rig, framing: bytes, path: bytes) -> None:
    """The body of a request without an operation is read and dropped, never collected."""
    before = _rss_bytes(rig)
    with rig.connect() as connection:
        connection.try_send(get(path, framing)[:-2] + b"\r\n")
        for _ in range(28):
            connection.try_send(chunk(b"x" * _MIB) if framing is _TE else b"x" * _MIB)
        assert _rss_bytes(rig) - before < 4 * _MIB
        connection.read_answer()


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"br", b"zstd", b"gzip, gzip"])
def test_compressed_bodies_are_415(rig: Rig, coding: bytes) -> None:
    """A compressed body is refused, not unpacked."""
    answer = rig.ask(request(CHAT, b"Content-Encoding: " + coding))
    assert (answer.status, answer.code) == (415, "request:encoding_unsupported")
    rig.expect_untouched()


def test_an_uncompressed_body_may_say_so(rig: Rig) -> None:
    """`Content-Encoding: identity` means nothing and is taken."""
    assert rig.ask(request(CHAT, b"Content-Encoding: Identity")).status == 200


@pytest.fixture(scope="module")
def small_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Start a worker that takes four connections."""
    with running_rig(tmp_path_factory.mktemp("small"), max_connections=4) as rig:
        yield rig


def test_too_many_connections_are_503(small_rig: Rig) -> None:
    """A connection too many is told to come back; one that ends makes room."""
    held = [RawConnection(small_rig.port) for _ in range(4)]
    for connection in held:
        connection.send(get(b"/health/live"))
        assert connection.read_answer().status == 200
    with small_rig.connect() as connection:
        answer = connection.read_answer()
        assert (answer.status, answer.code) == (503, "capacity:connections_exhausted")
        assert int(answer.header["retry-after"]) > 0
        assert answer.is_last
        assert connection.read_to_end() == b""
    held[0].send(request())
    assert held[0].read_answer().status == 200
    held.pop().close()
    give_up_at_s = time.monotonic() + 20
    while small_rig.ask(get(b"/health/live")).status != 200:
        assert time.monotonic() < give_up_at_s, "nobody has room"
    for connection in held:
        connection.close()


@pytest.mark.slow
def test_a_header_has_ten_seconds(rig: Rig) -> None:
    """A header that trickles in is cut off with 408 after 10 s, not later for each byte."""
    with rig.connect(timeout_s=30) as connection:
        started_s = time.monotonic()
        connection.send(b"GET /health/live HTTP/1.1\r\n")
        while time.monotonic() - started_s < 9.0:
            connection.send(b"X-A: b\r\n")
            time.sleep(0.5)
        answer = connection.read_answer()
        took_s = time.monotonic() - started_s
    assert (answer.status, answer.code) == (408, "request:header_timeout")
    # From its last byte on it would be 18 s.
    assert 9.5 < took_s < 15.0
