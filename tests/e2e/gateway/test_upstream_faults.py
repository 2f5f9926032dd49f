"""Engines that fail: what they answer, in whatever shape, becomes one typed error."""

import gzip
import json
import random

import pytest
from tests.fakes.scripted_engine import (
    CHAT,
    DONE,
    LAST_CHUNK,
    ROLE,
    STREAM_HEAD,
    ScriptedEngine,
    Talk,
    answer,
    chat,
    chunk,
    counts,
    token,
    usage_frame,
)
from tests.fakes.stream_caller import ask, chat_body
from tests.fakes.worker_process import WorkerProcess

from penstock.contract.usage import UsageEvent, quantities

pytestmark = pytest.mark.asyncio(loop_scope="module")

WORDS = "This model cannot do that."
VLLM = {"error": {"message": WORDS, "type": "BadRequestError", "param": None, "code": 400}}
SGLANG = {"object": "error", "message": WORDS, "type": "BadRequest", "param": None, "code": 400}
TRTLLM = {"error": WORDS}
DYNAMO = {"message": WORDS, "type": "Overloaded", "code": 529}
TRITON = {"error": WORDS}
SHAPES = {"vllm": VLLM, "sglang": SGLANG, "trtllm": TRTLLM, "dynamo": DYNAMO, "triton": TRITON}


class Case:
    """One exchange with a failing engine, and what became of it."""

    def __init__(self, engine: ScriptedEngine, worker: WorkerProcess) -> None:
        """Use this engine behind this worker."""
        self._engine = engine
        self._worker = worker

    async def play(self, *pieces: bytes, end: str = "", is_stream: bool = False) -> UsageEvent:
        """Have the engine send these pieces and then end like that; keep what the caller got."""

        async def script(talk: Talk) -> None:
            await talk.send(*pieces, pause_s=0.01)
            if end:
                getattr(talk, end)()

        self._engine.script = script
        requests, before = len(self._engine.requests), len(self._worker.events())
        self.answer = await ask(self._worker.port, "", chat_body(stream=is_stream))
        (event,) = self._worker.wait_events(before + 1)[before:]
        assert len(self._engine.requests) == requests + 1, "a request was sent twice"
        assert event.attempt_count == 1
        return event

    @property
    def code(self) -> str:
        """The gateway's code in the caller's answer."""
        return self.answer.code


@pytest.fixture
def case(engine: ScriptedEngine, worker: WorkerProcess) -> Case:
    """Return one exchange."""
    return Case(engine, worker)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, (400, "request:refused_by_engine", "refused", True)),
        (413, (413, "request:refused_by_engine", "refused", True)),
        (422, (422, "request:refused_by_engine", "refused", True)),
        (401, (502, "upstream:misconfigured", "upstream_error", False)),
        (403, (502, "upstream:misconfigured", "upstream_error", False)),
        (404, (502, "upstream:misconfigured", "upstream_error", False)),
        (429, (429, "upstream:overloaded", "upstream_error", True)),
        (503, (503, "upstream:unavailable", "upstream_error", True)),
        (529, (429, "upstream:overloaded", "upstream_error", True)),
        (500, (502, "upstream:failed", "upstream_error", True)),
        (502, (502, "upstream:failed", "upstream_error", True)),
    ],
)
async def test_every_status_and_shape_becomes_one_error(
    case: Case, shape: str, status: int, expected: tuple[int, str, str, bool]
) -> None:
    """The caller gets OpenAI's shape and the engine's words; nobody pays for it, nor for asking."""
    answered, code, outcome, is_told = expected
    event = await case.play(answer(SHAPES[shape], status), is_stream=status % 2 == 1)
    assert case.answer.status == answered
    assert case.code == code
    assert (case.answer.error["message"] == WORDS) is is_told
    assert case.answer.error.keys() >= {"message", "type", "param", "code"}
    downstream = outcome == "refused"
    source = "gateway" if downstream else "upstream"
    assert case.answer.header["x-penstock-error-source"] == source
    assert case.answer.header["x-penstock-error-code"] == f"err:gateway:{code}"
    assert ("retry-after" in case.answer.header) is (answered in (429, 503))
    assert (event.outcome, event.status, event.usage_source) == (outcome, answered, "estimated")
    assert not quantities(event)
    assert event.error_code == f"err:gateway:{code}"


@pytest.mark.parametrize("status", [429, 503, 529])
async def test_the_engines_retry_after_is_passed_on(case: Case, status: int) -> None:
    """How long an overloaded engine wants to be left alone is what the caller is told."""
    await case.play(answer(DYNAMO, status, "retry-after: 17"))
    assert case.answer.header["retry-after"] == "17"
    await case.play(answer(DYNAMO, status, "retry-after: Fri, 31 Dec 1999 23:59:59 GMT"))
    assert case.answer.header["retry-after"] == "1"


@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize(
    ("name", "content", "end"),
    [
        ("html", answer(b"<html>Login</html>", kind="text/html"), ""),
        ("html without end", b"HTTP/1.1 200 OK\r\n\r\n<html>Login</html>", "close"),
        ("empty", answer(b""), ""),
        ("empty without end", b"HTTP/1.1 200 OK\r\n\r\n", "close"),
        ("empty stream", STREAM_HEAD + LAST_CHUNK, ""),
        ("no content", b"HTTP/1.1 204 No Content\r\n\r\n", ""),
        ("array", answer([1, 2]), ""),
        ("cut JSON", answer(b'{"choices":['), ""),
        ("compressed", answer(gzip.compress(b"{}", mtime=0), 200, "content-encoding: gzip"), ""),
        ("compressed and not said", answer(gzip.compress(b"{}", mtime=0)), ""),
        ("not HTTP", b"SSH-2.0-OpenSSH_9.2p1\r\n", ""),
        ("not HTTP, then the end", b"\x15\x03\x01\x00\x02\x02\x50", "close"),
        ("header without end", b"HTTP/1.1 200 OK\r\n" + b"x-a: " + b"b" * 200_000, ""),
        ("many fields", b"HTTP/1.1 200 OK\r\n" + b"x-a: bcdefghij\r\n" * 10_000, ""),
        ("switching", b"HTTP/1.1 101 Ok\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n", ""),
        ("redirect", answer({}, 302, "location: http://127.0.0.1:1/"), ""),
    ],
)
async def test_nonsense_is_a_bad_answer(
    case: Case, name: str, content: bytes, end: str, *, is_stream: bool
) -> None:
    """What is no answer of a model server is a 502 that nobody pays for."""
    event = await case.play(content, end=end, is_stream=is_stream)
    assert case.answer.status == 502, name
    assert case.code == "upstream:bad_answer"
    assert (event.outcome, quantities(event)) == ("upstream_error", {})


@pytest.mark.parametrize("is_long", [True, False])
async def test_a_stream_of_something_else_never_ends_well(case: Case, *, is_long: bool) -> None:
    """A page that calls itself a stream is an error to the caller, however much of it came."""
    page = b"<p>Login</p>" * (2_000 if is_long else 1)
    event = await case.play(STREAM_HEAD, chunk(page), LAST_CHUNK, is_stream=True)
    assert case.code == "upstream:bad_answer"
    assert case.answer.is_complete is (case.answer.status == 502)
    assert case.answer.status == (200 if is_long else 502)
    assert (event.outcome, event.output_tokens) == ("upstream_error", 0)


async def test_a_compressed_stream_is_a_bad_answer(case: Case) -> None:
    """A stream that is compressed though nobody asked for it is not relayed as if it were not."""
    head = STREAM_HEAD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n")
    noise = random.Random("noise").randbytes(30_000).hex()
    content = gzip.compress(ROLE + token(noise) + DONE)
    event = await case.play(head, chunk(content), LAST_CHUNK, is_stream=True)
    assert (case.answer.status, case.code) == (502, "upstream:bad_answer")
    assert event.outcome == "upstream_error"


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        answer(CHAT | {"usage": counts(1, 2)})[:-9],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(b'{"choices":[')[:-4],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(b'{"choices":['),
    ],
    ids=["nothing", "half a head", "short body", "half a chunk", "no last chunk"],
)
async def test_an_answer_that_breaks_off_is_an_error(case: Case, content: bytes, end: str) -> None:
    """An engine that closes or resets before its answer is whole is a 502 that nobody pays for."""
    event = await case.play(content, end=end)
    assert (case.answer.status, case.code) == (502, "upstream:closed_early")
    assert (event.outcome, quantities(event)) == ("upstream_error", {})


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize(
    "last",
    [
        chunk(token("y")),
        chunk(token("y"))[:-20],
        chunk(b'data: {"choices":[{"delta":'),
        chunk(b'data: {"id":"c"'),
        b"",
    ],
    ids=["between frames", "inside a chunk", "inside a frame", "inside a held frame", "at once"],
)
async def test_a_stream_that_breaks_off_never_ends_well(case: Case, last: bytes, end: str) -> None:
    """A stream whose engine dies ends with an error event and without a regular end."""
    event = await case.play(
        STREAM_HEAD, chunk(ROLE) + chunk(token("x")), last, end=end, is_stream=True
    )
    assert case.answer.status == 200
    assert not case.answer.is_complete
    assert case.answer.body.startswith(ROLE + token("x"))
    assert b"[DONE]" not in case.answer.body
    assert case.code == "upstream:closed_early"
    assert (event.outcome, event.usage_source, event.status) == ("upstream_error", "counted", 200)
    assert 1 <= event.output_tokens <= 2


async def test_garbage_inside_a_stream_never_ends_well(case: Case) -> None:
    """A stream whose framing breaks ends with an error event and without a regular end."""
    event = await case.play(
        STREAM_HEAD, chunk(ROLE) + chunk(token("x")), b"zz\r\nboom", is_stream=True
    )
    assert not case.answer.is_complete
    assert case.code == "upstream:bad_answer"
    assert event.outcome == "upstream_error"


@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (VLLM, 400, "request:refused_by_engine"),
        ({"error": WORDS}, 502, "upstream:failed"),
        ({"error": {"message": WORDS, "code": 503}}, 503, "upstream:unavailable"),
        ({"error": {"message": WORDS, "code": 429}}, 429, "upstream:overloaded"),
        ({"error": {"message": WORDS, "code": "boom"}}, 502, "upstream:failed"),
        (SGLANG, 400, "request:refused_by_engine"),
        (DYNAMO, 429, "upstream:overloaded"),
    ],
)
async def test_an_error_under_200_is_an_error(
    case: Case, error: object, status: int, code: str, *, is_stream: bool
) -> None:
    """An error object under HTTP 200, plain or as the first event, is answered as an error."""
    event_bytes = b"data: %b\n\n" % json.dumps(error).encode()
    if is_stream:
        event = await case.play(
            STREAM_HEAD, chunk(event_bytes), chunk(DONE) + LAST_CHUNK, is_stream=True
        )
    else:
        event = await case.play(answer(error))
    assert (case.answer.status, case.code) == (status, code)
    assert case.answer.error["message"] == WORDS
    assert case.answer.is_complete
    assert event.outcome == ("refused" if status == 400 else "upstream_error")
    assert not quantities(event)


@pytest.mark.parametrize("shape", SHAPES)
async def test_an_error_later_in_a_stream_ends_it_well(case: Case, shape: str) -> None:
    """Its words come in our shape without addresses, then the regular end; nobody pays for it."""
    error = json.dumps(SHAPES[shape]).replace(WORDS, f"{WORDS} See 10.1.2.3:80.").encode()
    before = ROLE + token("x") + token("y") + usage_frame(counts(5, 2))
    event = await case.play(
        STREAM_HEAD,
        chunk(before),
        chunk(b"event: error\ndata: %b\n\n" % error) + chunk(DONE) + LAST_CHUNK,
        is_stream=True,
    )
    shown = ROLE + token("x") + token("y")
    assert case.answer.body.startswith(shown + b'data: {"error":{"message":')
    assert case.answer.body.endswith(b"}\n\n" + DONE)
    assert case.answer.is_complete
    assert case.answer.error["message"] == f"{WORDS} See [address]."
    assert case.code == "upstream:failed"
    assert (event.outcome, event.status) == ("upstream_error", 200)
    assert event.error_code == "err:gateway:upstream:failed"
    assert not quantities(event)


@pytest.mark.parametrize("is_stream", [True, False])
async def test_informational_answers_are_passed_over(case: Case, *, is_stream: bool) -> None:
    """100 Continue and 103 Early Hints before the answer change nothing."""
    hints = (
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\ncontent-type: text/html\r\nlink: </a>\r\n\r\n",
    )
    rest = (
        (STREAM_HEAD, chunk(ROLE + usage_frame(counts(1, 2)) + DONE), LAST_CHUNK)
        if is_stream
        else (chat(counts(1, 2)),)
    )
    event = await case.play(*hints, *rest, is_stream=is_stream)
    assert case.answer.status == 200
    assert case.answer.is_complete
    assert (event.outcome, event.usage_source, event.output_tokens) == ("ok", "engine", 2)


async def test_an_answer_that_is_too_large_is_an_error(case: Case) -> None:
    """A plain answer past the bound is given up and not held."""
    piece = b"x" * 1_000_000
    event = await case.play(
        b'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n"\r\n', *[chunk(piece)] * 70
    )
    assert (case.answer.status, case.code) == (502, "upstream:bad_answer")
    assert event.outcome == "upstream_error"
