"""Framing: every request is read in one way, or refused and its connection closed.

Source of the cases: RFC 9112, sections 2.2, 3, 5, 6 and 7.1, and the published request smuggling
techniques (CL.TE, TE.CL, TE.TE, CL.0, chunk extensions, line ends).
"""

import pytest
from tests.fakes.http_rig import CHAT, Rig, as_engine_sees, chunk, get, request
from tests.fakes.raw_http import Answer

_SIZE = b"%x" % len(CHAT)
_LENGTH = b"Content-Length: %d" % len(CHAT)
_TE = b"Transfer-Encoding: chunked"
_CHUNKS = chunk(CHAT) + chunk(b"")
_SEEN = as_engine_sees(CHAT)
_SECOND = request(b'{"model":"model-a","messages":["second"]}')
_SECOND_SEEN = b'{"model":"served-model","messages":["second"]}'


def _te(line: bytes, *more: bytes) -> bytes:
    return request(_CHUNKS, *more, framing=line)


def _raw_chunks(body: bytes) -> bytes:
    return request(body, framing=_TE)


def _first_chunk(line: bytes, end: bytes = b"\r\n") -> bytes:
    return _raw_chunks(line + CHAT + end + b"0\r\n\r\n")


REFUSED = {
    # two lengths, or none that can be trusted
    "length, then coding": _te(_LENGTH, _TE),
    "coding, then length": _te(_TE, _LENGTH),
    "length 0, then coding": _te(b"Content-Length: 0", _TE),
    "coding, then length 0": _te(_TE, b"Content-Length: 0"),
    "two equal lengths": request(CHAT, _LENGTH),
    "two different lengths": request(CHAT, b"Content-Length: 3"),
    "list of equal lengths": request(framing=b"Content-Length: %d, %d" % ((len(CHAT),) * 2)),
    "list of different lengths": request(framing=b"Content-Length: 0, %d" % len(CHAT)),
    "length with plus": request(framing=b"Content-Length: +%d" % len(CHAT)),
    "negative length": request(framing=b"Content-Length: -1"),
    "length past 64 bits": request(framing=b"Content-Length: 18446744073709551616"),
    "length past all sense": request(framing=b"Content-Length: " + b"9" * 100),
    "length of many zeros": request(framing=b"Content-Length: " + b"0" * 5_000 + b"62"),
    "hexadecimal length": request(framing=b"Content-Length: 0x3e"),
    "length with underscore": request(framing=b"Content-Length: 6_2"),
    "length with inner space": request(framing=b"Content-Length: 6 2"),
    "fractional length": request(framing=b"Content-Length: 62.0"),
    "empty length": request(framing=b"Content-Length:"),
    "space before the length's colon": request(framing=b"Content-Length : %d" % len(CHAT)),
    "tab before the length's colon": request(framing=b"Content-Length\t: %d" % len(CHAT)),
    # transfer codings other than chunked
    "gzip, chunked": _te(b"Transfer-Encoding: gzip, chunked"),
    "chunked, gzip": _te(b"Transfer-Encoding: chunked, gzip"),
    "gzip": _te(b"Transfer-Encoding: gzip"),
    "xchunked": _te(b"Transfer-Encoding: xchunked"),
    "chunkedx": _te(b"Transfer-Encoding: chunkedx"),
    "identity": _te(b"Transfer-Encoding: identity"),
    "identity with a length": request(CHAT, b"Transfer-Encoding: identity"),
    "chunked twice in a line": _te(b"Transfer-Encoding: chunked, chunked"),
    "chunked in two lines": _te(_TE, _TE),
    "chunked, then identity": _te(_TE, b"Transfer-Encoding: identity"),
    "identity, then chunked": _te(b"Transfer-Encoding: identity", _TE),
    "empty element, chunked": _te(b"Transfer-Encoding: ,chunked"),
    "empty coding": _te(b"Transfer-Encoding:"),
    "quoted chunked": _te(b'Transfer-Encoding: "chunked"'),
    "chunked with parameter": _te(b"Transfer-Encoding: chunked;q=1"),
    "vertical tab before chunked": _te(b"Transfer-Encoding: \x0bchunked"),
    "vertical tab behind chunked": _te(b"Transfer-Encoding: chunked\x0b"),
    "space before the coding's colon": _te(b"Transfer-Encoding : chunked"),
    "folded coding": _te(b"Transfer-Encoding:\r\n chunked"),
    "chunked in HTTP/1.0": request(_CHUNKS, framing=_TE, version=b"1.0"),
    # chunk sizes and ends
    "chunk size with plus": _first_chunk(b"+" + _SIZE + b"\r\n"),
    "chunk size with 0x": _first_chunk(b"0x" + _SIZE + b"\r\n"),
    "negative chunk size": _first_chunk(b"-" + _SIZE + b"\r\n"),
    "chunk size past 64 bits": _first_chunk(b"1" + b"0" * 15 + _SIZE + b"\r\n"),
    "no chunk size": _first_chunk(b"\r\n"),
    "space before the chunk size": _first_chunk(b" " + _SIZE + b"\r\n"),
    "space behind the chunk size": _first_chunk(_SIZE + b" \r\n"),
    "chunk size with underscore": _first_chunk(b"3_e\r\n"),
    "chunk longer than its size": _first_chunk(b"3\r\n"),
    "no line end behind a chunk": _first_chunk(_SIZE + b"\r\n", b""),
    "LF behind a chunk size": _first_chunk(_SIZE + b"\n"),
    "CR behind a chunk size": _first_chunk(_SIZE + b"\r"),
    "LF behind a chunk": _first_chunk(_SIZE + b"\r\n", b"\n"),
    "LF behind the last size": _raw_chunks(chunk(CHAT) + b"0\n\r\n"),
    "LF at the body's end": _raw_chunks(chunk(CHAT) + b"0\r\n\n"),
    "LF in a chunk extension": _first_chunk(_SIZE + b";a\nb\r\n"),
    "CR in a chunk extension": _first_chunk(_SIZE + b";a\rb\r\n"),
    "NUL in a chunk extension": _first_chunk(_SIZE + b";a\0b\r\n"),
    "empty chunk extension": _first_chunk(_SIZE + b";\r\n"),
    "LF in a trailer": _raw_chunks(chunk(CHAT) + b"0\r\nX-A: 1\n\r\n"),
    "length in a trailer": _raw_chunks(chunk(CHAT) + b"0\r\nContent-Length: 3\r\n\r\n"),
    "coding in a trailer": _raw_chunks(chunk(CHAT) + b"0\r\n" + _TE + b"\r\n\r\n"),
    # line ends, white space, characters
    "LF behind the request line": request().replace(b"1.1\r\n", b"1.1\n"),
    "LF behind a field": request().replace(b"gateway\r\n", b"gateway\n"),
    "LF at the header's end": request().replace(b"\r\n\r\n", b"\r\n\n"),
    "LF everywhere": request().replace(b"\r\n", b"\n"),
    "CR behind a field": request().replace(b"gateway\r\n", b"gateway\r"),
    "CR in a value": request(CHAT, b"X-A: a\rb"),
    "CR before the line end": request(CHAT, b"X-A: a\r"),
    "folded field": request(CHAT, b"X-A: a\r\n b"),
    "field folded with a tab": request(CHAT, b"X-A: a\r\n\tb"),
    "first field indented": request(host=b" Host: gateway"),
    "NUL in a value": request(CHAT, b"X-A: a\0b"),
    "NUL in a name": request(CHAT, b"X\0A: a"),
    "control character in a value": request(CHAT, b"X-A: a\x01b"),
    "DEL in a value": request(CHAT, b"X-A: a\x7fb"),
    "space in a name": request(CHAT, b"X A: a"),
    "space before the colon": request(CHAT, b"X-A : a"),
    "empty name": request(CHAT, b": a"),
    "no colon": request(CHAT, b"X-A"),
    "bracket in a name": request(CHAT, b"X(A: a"),
    "high character in a name": request(CHAT, b"X\xe9: a"),
    # the request line
    "unknown method": request(method=b"JUNK"),
    "known method and more": request(method=b"POSTED"),
    "lower-case method": request(method=b"post"),
    "no method": request(method=b""),
    "space before the method": b" " + request(),
    "tab behind the method": request().replace(b"POST ", b"POST\t"),
    "space behind the version": request().replace(b"1.1\r\n", b"1.1 \r\n"),
    "lower-case version": request().replace(b" HTTP/", b" http/"),
    "version without dot": request(version=b"11"),
    "version with three digits": request(version=b"1.11"),
    "unknown version": request(version=b"1.2"),
    "TLS greeting": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "control character in the target": request(path=b"/v1/chat\x01"),
    "NUL in the target": request(path=b"/v1/chat\0"),
    "DEL in the target": request(path=b"/v1/chat\x7f"),
    "tab in the target": request(path=b"/v1/chat\t"),
    "CR in the target": request(path=b"/v1/chat\r"),
    "LF in the target": request(path=b"/v1/chat\n"),
    "space in the target": request(path=b"/v1/chat completions"),
    "high character in the target": request(path=b"/v1/chat\xe9"),
    "target with backslashes": request(path=rb"\v1\chat\completions"),
    "target without slash": request(path=b"v1/chat/completions"),
}

BAD_HOSTS = {
    "none": b"",
    "two": b"Host: gateway\r\nHost: gateway",
    "empty": b"Host:",
    "path and query": b"Host: a/b?x=",
    "user": b"Host: a@b",
    "space": b"Host: a b",
    "list": b"Host: a,b",
    "port that is none": b"Host: a:80x",
    "percent sign": b"Host: a%00b",
    "backslash": rb"Host: a\b",
    "scheme": b"Host: http://a",
    "fragment": b"Host: a#b",
}

ACCEPTED = {
    "chunked": _te(_TE),
    "chunked in capitals": _te(b"TRANSFER-ENCODING: CHUNKED"),
    "chunked behind a tab": _te(b"Transfer-Encoding:\tchunked"),
    "chunked before a space": _te(b"Transfer-Encoding: chunked "),
    "many chunks": _raw_chunks(b"".join(chunk(b"%c" % each) for each in CHAT) + chunk(b"")),
    "chunk size in capitals": _first_chunk(_SIZE.upper() + b"\r\n"),
    "chunk size with zeros": _first_chunk(b"0" * 20 + _SIZE + b"\r\n"),
    "chunk extension": _first_chunk(_SIZE + b";a=b\r\n"),
    "quoted chunk extension": _first_chunk(_SIZE + b';a="b;c"\r\n'),
    "trailer": _raw_chunks(chunk(CHAT) + b"0\r\nX-A: 1\r\n\r\n"),
    "key in a trailer": _raw_chunks(chunk(CHAT) + b"0\r\nAuthorization: Bearer x\r\n\r\n"),
    "length with zeros": request(framing=b"Content-Length: 00%d" % len(CHAT)),
    "length before a space": request(framing=b"Content-Length: %d " % len(CHAT)),
    "high character in a value": request(CHAT, b"X-A: a\xffb"),
    "names in capitals": request(CHAT, host=b"HOST: gateway"),
    "host before white space": request(host=b"Host: gateway \t"),
    "host with port": request(host=b"Host: gateway:8080"),
    "host that is an address": request(host=b"Host: [::1]:8080"),
    "empty lines before": b"\r\n\r\n" + request(),
    "absolute target": request(path=b"http://other/v1/chat/completions"),
    "absolute target with port": request(path=b"HTTP://[::1]:99/v1/chat/completions?x=1"),
    "query": request(path=b"/v1/chat/completions?api-version=1"),
}  # fmt: skip

NO_PATHS = (
    b"//v1/chat/completions",
    b"/v1//chat/completions",
    b"/v1/../v1/chat/completions",
    b"/v1/./chat/completions",
    b"/v1/%2e%2e/v1/chat/completions",
    b"/v1/%63hat/completions",
    b"/v1/chat%2fcompletions",
    b"/v1/chat/completions;x=1",
    b"/v1/chat/completions.",
    b"/v1/chat/completions/",
    b"/v1/chat/completions#x",
    b"/v1/chat/completions%00",
    b"/V1/chat/completions",
    b"/v1/chat",
    b"/",
    b"http://other",
    b"http:///v1/chat/completions",
    b"http://user@other/v1/chat/completions",
    b"ftp://other/v1/chat/completions",
)


def _all_answers(rig: Rig, content: bytes, *, is_trickled: bool) -> list[Answer]:
    """Send `content` whole or byte by byte, and read until the worker closes."""
    with rig.connect() as connection:
        if is_trickled:
            for i in range(len(content)):
                connection.try_send(content[i : i + 1])
        else:
            connection.try_send(content)
        return connection.read_answers()


def _expect_refused(rig: Rig, content: bytes, status: int, code: str) -> None:
    for tail, is_trickled in ((_SECOND, False), (_SECOND, True)):
        answers = _all_answers(rig, content + tail, is_trickled=is_trickled)
        assert [(each.status, each.code) for each in answers] == [(status, code)]
        assert answers[0].is_last
    rig.expect_untouched()


@pytest.mark.parametrize("name", REFUSED)
def test_doubtful_framing_is_refused(rig: Rig, name: str) -> None:
    """What could be read in two ways is 400, closes the connection, and nothing is served."""
    _expect_refused(rig, REFUSED[name], 400, "request:malformed")


@pytest.mark.parametrize("name", BAD_HOSTS)
def test_doubtful_hosts_are_refused(rig: Rig, name: str) -> None:
    """A missing, doubled or malformed Host is 400 and closes the connection."""
    _expect_refused(rig, request(host=BAD_HOSTS[name]), 400, "request:host_invalid")


@pytest.mark.parametrize("version", [b"2.0", b"0.9"])
def test_other_versions_are_refused(rig: Rig, version: bytes) -> None:
    """Another HTTP version is 505 and closes the connection."""
    _expect_refused(rig, request(version=version), 505, "request:version_unsupported")


def test_a_request_line_without_version_is_refused(rig: Rig) -> None:
    """HTTP/0.9 is not spoken."""
    content = request().replace(b" HTTP/1.1", b"")
    _expect_refused(rig, content, 505, "request:version_unsupported")


@pytest.mark.parametrize("name", ACCEPTED)
@pytest.mark.parametrize("is_trickled", [False, True], ids=["at once", "byte by byte"])
def test_plain_framing_is_read_exactly(rig: Rig, name: str, *, is_trickled: bool) -> None:
    """What can be read in one way only reaches the engine as it is, and so does the next."""
    last = _SECOND.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    answers = _all_answers(rig, ACCEPTED[name] + last, is_trickled=is_trickled)
    assert [each.status for each in answers] == [200, 200]
    assert rig.bodies() == [_SEEN, _SECOND_SEEN]


@pytest.mark.parametrize("path", NO_PATHS, ids=bytes.decode)
def test_paths_are_compared_exactly(rig: Rig, path: bytes) -> None:
    """What another server could take for one of our paths is 404, and the connection goes on."""
    with rig.connect() as connection:
        connection.send(request(path=path) + _SECOND)
        refused = connection.read_answer()
        assert (refused.status, refused.code) == (404, "request:not_found")
        assert connection.read_answer().status == 200
    assert rig.bodies() == [_SECOND_SEEN]


@pytest.mark.parametrize(
    "target", [b"a:443", b"/v1/chat/completions", b"/health/live", b"*", b"http://a/v1/models"]
)
def test_connect_opens_no_tunnel(rig: Rig, target: bytes) -> None:
    """CONNECT is refused and nothing behind it is served."""
    content = b"CONNECT %b HTTP/1.1\r\nHost: a:443\r\n\r\n" % target
    answers = _all_answers(rig, content + _SECOND, is_trickled=False)
    assert len(answers) == 1
    assert answers[0].status in {400, 404, 405}
    assert answers[0].is_last
    rig.expect_untouched()


@pytest.mark.parametrize("framing", [None, _TE], ids=["length", "chunked"])
@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
@pytest.mark.parametrize("is_trickled", [False, True], ids=["at once", "byte by byte"])
def test_an_offered_upgrade_is_declined(
    rig: Rig, framing: bytes | None, protocol: bytes, *, is_trickled: bool
) -> None:
    """A request that offers an upgrade is served as HTTP/1.1, body and all, as the last one."""
    fields = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: " + protocol)
    content = request(CHAT if framing is None else _CHUNKS, *fields, framing=framing)
    for second in (_SECOND, content):
        answers = _all_answers(rig, content + second, is_trickled=is_trickled)
        assert [each.status for each in answers] == [200]
        assert answers[0].is_last
        assert "upgrade" not in answers[0].header
    assert rig.bodies() == [_SEEN] * 2


def test_an_offered_upgrade_without_body_is_declined(rig: Rig) -> None:
    """A GET that offers a websocket is answered as the plain GET that it is."""
    content = get(b"/health/live", b"Connection: Upgrade", b"Upgrade: websocket")
    answers = _all_answers(rig, content + b"\x81\x85junk" + _SECOND, is_trickled=False)
    assert [each.status for each in answers] == [200]
    rig.expect_untouched()


def test_an_upgrade_that_is_not_asked_for_changes_nothing(rig: Rig) -> None:
    """An Upgrade field without its Connection option leaves the body where it is."""
    assert rig.ask(request(CHAT, b"Upgrade: h2c")).status == 200
    assert rig.bodies() == [_SEEN]


@pytest.mark.parametrize("size", [1, 10, 100])
def test_a_body_that_is_too_short_is_waited_for(rig: Rig, size: int) -> None:
    """A body shorter than its length is never taken for whole."""
    with rig.connect() as connection:
        connection.send(request(framing=b"Content-Length: %d" % (len(CHAT) + size)))
        assert connection.is_silent(0.05)
    rig.expect_untouched()
