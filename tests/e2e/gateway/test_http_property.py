"""Whatever arrives, the worker lives, and only whole valid requests reach an engine."""

import json
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fakes.effort import tries
from tests.fakes.http_rig import CHAT, CREDENTIAL, Rig, chat, chunked, get, request
from tests.fakes.raw_http import Answer, IncompleteAnswerError
from tests.fakes.recording_engine import Seen
from tests.fakes.worker_process import KEY

_WAIT_S = 0.02
_STATUSES = {100, 200, 204, 400, 401, 404, 405, 408, 413, 414, 415, 417, 431, 505}
_VALID = (
    request(),
    chunked(),
    request(chat("x", stream=True)),
    request(chat("x", max_tokens=5), b"Expect: 100-continue"),
    request(b'{"model":"model-a","prompt":"x"}', path=b"/v1/completions"),
    request(key=None) + request(),
    get(b"/v1/models", key=KEY) + request(),
    request() + chunked() + get(b"/health/live"),
)
_INTERESTING = (
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"0", b"-1", b"\xff", b'"', b"{",
    b"}", b"[", b"]", b"\\u0061", b"\r\n\r\n", b"Content-Length: 0\r\n", b"Content-Length: 62\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Upgrade: h2c\r\n",
    b"Connection: Upgrade\r\n", b"Host: a\r\n", b"Expect: 100-continue\r\n", b" HTTP/1.0",
    b"HTTP/2.0", b"GET / HTTP/1.1\r\n", request(), chunked(),
)  # fmt: skip

_settings = settings(
    max_examples=tries(200),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def _mutated(draw: st.DrawFn) -> bytes:
    """Draw a valid request to which a few accidents happened."""
    content = draw(st.sampled_from(_VALID))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.sampled_from((0, 0, 1, 2, 10, 100))))
        piece = draw(st.sampled_from(_INTERESTING) | st.binary(max_size=4))
        content = content[:start] + piece + content[end:]
    return content


def _talk(rig: Rig, content: bytes, cuts: list[int]) -> list[Answer]:
    """Send the content in pieces and read what is answered within a moment."""
    answers = []
    with rig.connect(timeout_s=_WAIT_S) as connection:
        edges = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
        for start, end in pairwise(edges):
            connection.try_send(content[start:end])
        try:
            while True:
                answers.append(connection.read_answer())
        except (IncompleteAnswerError, TimeoutError):
            return answers


def _expect_sane(seen: Seen) -> None:
    """See that the engine got a whole request of our own making."""
    assert seen.line in {"POST /v1/chat/completions HTTP/1.1", "POST /v1/completions HTTP/1.1"}
    assert seen.header["authorization"] == f"Bearer {CREDENTIAL}"
    members = json.loads(seen.body)
    assert members["model"] == "served-model"
    assert members.get("messages") or members.get("prompt")
    assert members.get("stream", False) in {True, False, None}


def _expect_unharmed(rig: Rig, content: bytes, cuts: list[int]) -> None:
    rig.engine.seen.clear()
    for answer in _talk(rig, content, cuts):
        assert answer.status in _STATUSES
    for seen in rig.engine.seen:
        _expect_sane(seen)
    assert rig.ask(get(b"/health/live")).status == 200


@_settings
@given(content=st.binary(max_size=3000), cuts=st.lists(st.integers(0, 3000), max_size=3))
def test_arbitrary_bytes_harm_nothing(rig: Rig, content: bytes, cuts: list[int]) -> None:
    """Bytes of any kind crash nothing and reach no engine."""
    _expect_unharmed(rig, content, cuts)
    assert rig.engine.seen == []


@_settings
@given(content=_mutated(), cuts=st.lists(st.integers(0, 1000), max_size=3))
def test_damaged_requests_harm_nothing(rig: Rig, content: bytes, cuts: list[int]) -> None:
    """Damaged requests crash nothing, and what reaches an engine is whole and as it was judged."""
    _expect_unharmed(rig, content, cuts)


@_settings
@given(
    body=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=5)
            | st.dictionaries(
                st.sampled_from(
                    ("model", "messages", "stream", "n", "max_tokens", "stream_options")
                )
                | st.text(max_size=5),
                inner,
                max_size=6,
            )
        ),
        max_leaves=20,
    )
)
def test_arbitrary_json_harms_nothing(rig: Rig, body: object) -> None:
    """JSON of any shape is answered at once, and passed on only when it is a question."""
    content = json.dumps(body).encode()
    if isinstance(body, dict):
        content = json.dumps(json.loads(CHAT) | body).encode()
    rig.engine.seen.clear()
    answer = rig.ask(request(content))
    assert answer.status in {200, 400, 404}
    assert len(rig.engine.seen) == (answer.status == 200)
    for seen in rig.engine.seen:
        _expect_sane(seen)


def test_nothing_of_all_this_is_in_the_log(rig: Rig) -> None:
    """No request, however odd, is an error of the worker's."""
    log = rig.worker.log.read_text()
    assert "Traceback" not in log
    assert "level=ERROR" not in log
