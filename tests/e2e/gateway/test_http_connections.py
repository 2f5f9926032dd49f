"""Connections: kept alive, pipelined, invited to continue, and never poisoned."""

import threading

import pytest
from tests.fakes.http_rig import CHAT, Rig, as_engine_sees, chat, chunk, chunked, get, request
from tests.fakes.raw_http import RawConnection
from tests.fakes.worker_process import KEY

_CONTINUE = b"Expect: 100-continue"
_CLOSE = b"Connection: close"
_WRONG_KEY = "wrong"


def _delayed(text: str, delay_ms: int) -> bytes:
    return request(chat(text), b"x-emulator-ttft-ms: %d" % delay_ms)


def _id(number: int) -> bytes:
    return b"x-request-id: request-%d" % number


def test_a_connection_is_kept(rig: Rig) -> None:
    """Requests one after another share a connection, whatever their answers are."""
    with rig.connect() as connection:
        for content, status in (
            (request(), 200),
            (request(b"{}"), 400),
            (request(key=_WRONG_KEY), 401),
            (get(b"/nothing"), 404),
            (get(b"/health/live"), 200),
            (chunked(), 200),
        ):
            connection.send(content)
            answer = connection.read_answer()
            assert answer.status == status
            assert not answer.is_last


def test_a_caller_can_end_a_connection(rig: Rig) -> None:
    """Behind an answer to `Connection: close` the connection ends, and nothing is served."""
    for first in (request(CHAT, _CLOSE), get(b"/health/live", _CLOSE)):
        with rig.connect() as connection:
            connection.send(first + request())
            answers = connection.read_answers()
        assert [(each.status, each.is_last) for each in answers] == [(200, True)]
    assert rig.bodies() == [as_engine_sees(CHAT)]


def test_pipelined_requests_are_answered_in_order(rig: Rig) -> None:
    """Answers leave in the order of the requests, however long each engine takes."""
    with rig.connect() as connection:
        delays = (150, 50, 0)
        connection.send(
            b"".join(
                request(CHAT, _id(number), b"x-emulator-ttft-ms: %d" % delay)
                for number, delay in enumerate(delays)
            )
        )
        ids = [connection.read_answer().header["x-request-id"] for _ in delays]
    assert ids == ["request-0", "request-1", "request-2"]


def test_many_requests_may_be_pipelined(rig: Rig) -> None:
    """A hundred requests in one packet are all answered, in order."""
    with rig.connect() as connection:
        connection.send(b"".join(request(chat(str(n)), _id(n)) for n in range(100)))
        for number in range(100):
            answer = connection.read_answer()
            assert answer.status == 200
            assert answer.header["x-request-id"] == f"request-{number}"
    assert rig.bodies() == [as_engine_sees(chat(str(number))) for number in range(100)]


def test_more_requests_than_may_wait_are_answered_too(rig: Rig) -> None:
    """A caller that sends without end and reads late loses no answer."""
    count = 2_000
    with rig.connect() as connection:
        sender = threading.Thread(
            target=connection.send,
            args=(b"".join(get(b"/health/live", _id(n)) + request() for n in range(count)),),
        )
        sender.start()
        for number in range(count):
            assert connection.read_answer().header["x-request-id"] == f"request-{number}"
            assert connection.read_answer().status == 200
        sender.join()


def test_a_large_request_may_wait_its_turn(rig: Rig) -> None:
    """Requests with large bodies behind a slow answer are served whole and in order."""
    large = [chat(letter * 300_000) for letter in "ab"]
    content = _delayed("first", 100) + b"".join(map(request, large)) + get(b"/health/live")
    with rig.connect() as connection:
        sender = threading.Thread(target=connection.send, args=(content,))
        sender.start()
        assert [connection.read_answer().status for _ in range(4)] == [200] * 4
        sender.join()
    assert rig.bodies() == [as_engine_sees(each) for each in (chat("first"), *large)]


def test_own_answers_wait_for_relayed_ones(rig: Rig) -> None:
    """What needs no engine is still answered behind what came before it."""
    with rig.connect() as connection:
        connection.send(
            _delayed("slow", 80) + get(b"/health/live") + get(b"/nothing") + request(b"junk")
        )
        statuses = [connection.read_answer().status for _ in range(4)]
    assert statuses == [200, 200, 404, 400]


@pytest.mark.parametrize(
    ("refused", "status"),
    [
        (request(b"{}"), 400),
        (request(key=_WRONG_KEY), 401),
        (request(path=b"/nothing"), 404),
        (request(method=b"PUT"), 405),
        (request(CHAT, b"Content-Encoding: gzip"), 415),
        (request(CHAT, b"Expect: something"), 417),
    ],
)
def test_a_refusal_is_behind_and_before_others(rig: Rig, refused: bytes, status: int) -> None:
    """The request behind a refused one is served right, or its connection was closed."""
    with rig.connect() as connection:
        connection.send(request(chat("before")) + refused + request(chat("after"), _CLOSE))
        answers = connection.read_answers()
    assert [each.status for each in answers[:2]] == [200, status]
    seen = [as_engine_sees(chat("before"))]
    if answers[1].is_last:
        assert len(answers) == 2
    else:
        assert [each.status for each in answers[2:]] == [200]
        seen.append(as_engine_sees(chat("after")))
    assert rig.bodies() == seen


def test_junk_behind_a_slow_request_harms_it_not(rig: Rig) -> None:
    """An answer under way is completed before the connection ends over what followed."""
    for junk in (b"\0junk", b"POST /v1/chat/completions HTTP/1.1\r\nA : b\r\n\r\n"):
        with rig.connect() as connection:
            connection.send(_delayed("slow", 80) + junk + request())
            answers = connection.read_answers()
        assert [each.status for each in answers] == [200, 400]
    assert len(rig.bodies()) == 2


_SECOND = request(chat("second"), _CLOSE)
_INNER = request(b'{"model":"model-a","messages":["smuggled"]}')
"""A body that is a request itself: a server that forgets to read it serves it."""


@pytest.mark.parametrize("size", [0, 70_000, 400_000])
@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("is_expected", [False, True], ids=["plain", "expect"])
@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/nothing"], ids=["401", "404"])
def test_an_early_answer_poisons_nothing(
    rig: Rig, path: bytes, size: int, *, is_chunked: bool, is_expected: bool
) -> None:
    """The body of a refused request is never taken for a request."""
    body = _INNER * (size // len(_INNER) + 1)
    content = request(
        chunk(body) + chunk(b"") if is_chunked else body,
        *([_CONTINUE] if is_expected else []),
        path=path,
        key=_WRONG_KEY,
        framing=b"Transfer-Encoding: chunked" if is_chunked else None,
    )
    with rig.connect() as connection:
        connection.try_send(content + _SECOND)
        answers = connection.read_answers()
    assert answers[0].status in {401, 404}
    if answers[0].is_last:
        assert len(answers) == 1
        assert rig.bodies() == []
    else:
        assert [each.status for each in answers[1:]] == [200]
        assert rig.bodies() == [as_engine_sees(chat("second"))]
    rig.engine.seen.clear()
    rig.expect_untouched()


def test_a_body_is_asked_for_once_its_header_is_accepted(rig: Rig) -> None:
    """`Expect: 100-continue` gets 100 before any of the body, then the answer."""
    head, body = request(CHAT, _CONTINUE)[: -len(CHAT)], CHAT
    with rig.connect() as connection:
        connection.send(head)
        assert connection.read_answer().status == 100
        assert connection.is_silent(0.05)
        connection.send(body)
        assert connection.read_answer().status == 200
        connection.send(request())
        assert connection.read_answer().status == 200
    assert rig.bodies() == [as_engine_sees(CHAT)] * 2


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (request(CHAT, _CONTINUE, key=_WRONG_KEY), 401),
        (request(CHAT, _CONTINUE, key=None), 401),
        (request(CHAT, _CONTINUE, path=b"/nothing"), 404),
        (request(CHAT, _CONTINUE, method=b"PUT"), 405),
        (request(CHAT, _CONTINUE, framing=b"Content-Length: 99999999"), 413),
        (request(CHAT, _CONTINUE, b"Content-Encoding: gzip"), 415),
        (request(CHAT, b"Expect: 200-ok"), 417),
    ],
)
def test_a_body_is_not_asked_for_when_its_header_is_refused(
    rig: Rig, content: bytes, status: int
) -> None:
    """A refused header is answered at once, without 100 and without waiting for the body."""
    with rig.connect() as connection:
        connection.send(content[: -len(CHAT)])
        answers = connection.read_answers()
    assert [(each.status, each.is_last) for each in answers] == [(status, True)]
    rig.expect_untouched()


def test_a_pipelined_body_is_asked_for_at_its_turn(rig: Rig) -> None:
    """Behind a slow answer, 100 comes after that answer and not inside it."""
    head = request(CHAT, _CONTINUE)[: -len(CHAT)]
    with rig.connect() as connection:
        connection.send(_delayed("slow", 50) + head)
        assert [connection.read_answer().status for _ in range(2)] == [200, 100]
        connection.send(CHAT)
        assert connection.read_answer().status == 200


def test_a_body_that_did_not_wait_needs_no_invitation(rig: Rig) -> None:
    """A caller that sends its body anyway gets its answer."""
    with rig.connect() as connection:
        connection.send(request(CHAT, _CONTINUE, _CLOSE))
        assert [each.status for each in connection.read_answers()] in ([200], [100, 200])
    assert rig.bodies() == [as_engine_sees(CHAT)]


@pytest.mark.parametrize("path", [b"/health/live", b"/health/ready", b"/v1/models"])
def test_head_is_get_without_the_body(rig: Rig, path: bytes) -> None:
    """HEAD gets the header of GET, its length too, and no body."""
    whole = rig.ask(get(path, _id(1), key=KEY))
    with rig.connect() as connection:
        connection.send(get(path, _id(1), method=b"HEAD", key=KEY) + get(b"/health/live"))
        answer = connection.read_answer(is_head=True)
        assert (answer.status, answer.fields) == (whole.status, whole.fields)
        assert connection.read_answer().status == 200
    assert whole.body


@pytest.mark.parametrize("path", [b"/nothing", b"/v1/chat/completions", b"/v1/models"])
def test_head_of_a_refusal_has_no_body(rig: Rig, path: bytes) -> None:
    """HEAD that is refused leaves the connection in step."""
    with rig.connect() as connection:
        connection.send(get(path, method=b"HEAD") + get(b"/health/live"))
        assert connection.read_answer(is_head=True).status in {401, 404, 405}
        assert connection.read_answer().body == b'{"status":"live"}'


_READ, _POST = "GET, HEAD, OPTIONS", "POST, OPTIONS"


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        (b"/v1/chat/completions", _POST),
        (b"/v1/completions", _POST),
        (b"/v1/embeddings", _POST),
        (b"/v1/models", _READ),
        (b"/v1/models/model-a", _READ),
        (b"/health/live", _READ),
        (b"/health/ready", _READ),
    ],
)
def test_methods_are_told(rig: Rig, path: bytes, allow: str) -> None:
    """OPTIONS names the methods of a path; the others get 405 with the same names."""
    answer = rig.ask(get(path, method=b"OPTIONS"))
    assert (answer.status, answer.header["allow"], answer.body) == (204, allow, b"")
    for method in (b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"TRACE", b"PROPFIND"):
        if method.decode() not in allow:
            answer = rig.ask(get(path, method=method))
            assert (answer.status, answer.header["allow"]) == (405, allow)
            assert answer.code == "request:method_not_allowed"
    rig.expect_untouched()


@pytest.mark.parametrize("method", [b"GET", b"POST", b"HEAD", b"OPTIONS", b"DELETE"])
def test_unknown_paths_are_404(rig: Rig, method: bytes) -> None:
    """An unknown path is 404 whatever the method, and tells nothing of keys."""
    is_head = method == b"HEAD"
    answer = rig.ask(get(b"/v1/nothing", method=method), is_head=is_head)
    assert answer.status == 404
    assert "allow" not in answer.header


@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
def test_a_request_may_be_cut_anywhere(rig: Rig, *, is_chunked: bool) -> None:
    """A request that arrives in two parts, cut at any byte, is the same request."""
    content = chunked() if is_chunked else request()
    with rig.connect() as connection:
        for cut in range(1, len(content)):
            connection.send_pieces([content[:cut], content[cut:]])
            assert connection.read_answer().status == 200
    assert rig.bodies() == [as_engine_sees(CHAT)] * (len(content) - 1)


def test_a_chunked_body_reaches_the_engine_with_a_length(rig: Rig) -> None:
    """The engine gets one whole body with its length, however it was cut."""
    body = chat("x" * 1000)
    content = request(
        b"".join(chunk(body[i : i + 7]) for i in range(0, len(body), 7)) + chunk(b""),
        framing=b"Transfer-Encoding: chunked",
    )
    assert rig.ask(content).status == 200
    (seen,) = rig.engine.seen
    assert seen.body == as_engine_sees(body)
    assert seen.header["content-length"] == str(len(seen.body))
    assert "transfer-encoding" not in seen.header


def test_old_callers_are_answered_and_closed(rig: Rig) -> None:
    """HTTP/1.0 without more gets a whole answer, then the end of the connection."""
    with rig.connect() as connection:
        connection.send(request(version=b"1.0", host=b"") + request())
        answers = connection.read_answers()
    assert [(each.status, each.is_last) for each in answers] == [(200, True)]
    assert "transfer-encoding" not in answers[0].header


def test_old_callers_may_keep_the_connection(rig: Rig) -> None:
    """HTTP/1.0 with keep-alive is told that the connection stays."""
    with rig.connect() as connection:
        for _ in range(2):
            connection.send(request(CHAT, b"Connection: keep-alive", version=b"1.0"))
            answer = connection.read_answer()
            assert (answer.status, answer.header["connection"]) == (200, "keep-alive")


@pytest.mark.parametrize("field", [b"Connection: close", b"Connection: keep-alive"])
def test_streams_of_old_callers_end_with_the_connection(rig: Rig, field: bytes) -> None:
    """An HTTP/1.0 caller gets a stream without chunk framing, to the connection's end."""
    body = chat("x", stream=True)
    with rig.connect() as connection:
        connection.send(request(body, field, version=b"1.0"))
        answer = connection.read_answer()
    assert answer.is_last
    assert "transfer-encoding" not in answer.header
    assert answer.body.startswith(b"data: {")
    assert answer.body.endswith(b"data: [DONE]\n\n")


def test_streams_keep_the_connection(rig: Rig) -> None:
    """An HTTP/1.1 stream is chunked, and the next request is served on its connection."""
    with rig.connect() as connection:
        connection.send(request(chat("x", stream=True)) + request())
        stream = connection.read_answer()
        assert stream.header["transfer-encoding"] == "chunked"
        assert stream.header["content-type"] == "text/event-stream"
        assert stream.body.endswith(b"data: [DONE]\n\n")
        assert connection.read_answer().status == 200


def test_a_caller_that_leaves_harms_nobody(rig: Rig) -> None:
    """Connections that end in the middle of a request leave the worker as it was."""
    content = request()
    for cut in range(0, len(content), 7):
        with RawConnection(rig.port) as connection:
            connection.send(content[:cut])
    rig.expect_untouched()
