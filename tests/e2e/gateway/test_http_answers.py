"""What every answer carries, what none does, and what passes to the engine."""

import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.fakes.http_rig import CHAT, CREDENTIAL, Rig, chat, get, request, running_rig
from tests.fakes.raw_http import Answer, ask
from tests.fakes.worker_process import KEY, OTHER_KEY, make_snapshot, running_worker

from penstock.gateway.limits import BODY_BYTES

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_PROMPT = "canary-prompt-5e0b77"
_SECRETS = (KEY, OTHER_KEY, CREDENTIAL, _PROMPT)

ANSWERS = {
    200: request(),
    204: get(b"/v1/models", method=b"OPTIONS"),
    400: request(b"{}"),
    401: request(key="wrong"),
    404: get(b"/nothing"),
    405: request(method=b"PUT"),
    413: request(b"", framing=b"Content-Length: %d" % (BODY_BYTES + 1)),
    414: get(b"/" + b"x" * 9000),
    415: request(CHAT, b"Content-Encoding: br"),
    417: request(CHAT, b"Expect: x"),
    422: request(CHAT, b"x-emulator-status: 422"),
    431: request(CHAT, *(b"X-%d: a" % n for n in range(101))),
    502: request(CHAT, b"x-emulator-status: 500"),
    429: request(CHAT, b"x-emulator-status: 429"),
    503: request(CHAT, b"x-emulator-status: 503"),
    505: request(version=b"2.0"),
}


def _with_id(content: bytes, request_id: bytes) -> bytes:
    return content.replace(b"\r\n", b"\r\nx-request-id: " + request_id + b"\r\n", 1)


@pytest.mark.parametrize("status", ANSWERS)
def test_every_answer_has_an_id(rig: Rig, status: int) -> None:
    """Every answer names its request, and no two requests alike."""
    ids = set()
    for _ in range(3):
        answer = rig.ask(ANSWERS[status])
        assert answer.status == status
        assert [name for name, _ in answer.fields].count("x-request-id") == 1
        assert _UUID.fullmatch(answer.header["x-request-id"])
        ids.add(answer.header["x-request-id"])
    assert len(ids) == 3


def test_malformed_requests_have_an_id(rig: Rig) -> None:
    """Even what is no HTTP gets an answer that can be asked about."""
    assert _UUID.fullmatch(rig.ask(b"junk\r\n\r\n").header["x-request-id"])


@pytest.mark.parametrize("status", [each for each in ANSWERS if each not in {431, 505}])
def test_the_callers_id_is_kept(rig: Rig, status: int) -> None:
    """A sane id of the caller's comes back on whatever answer it gets."""
    answer = rig.ask(_with_id(ANSWERS[status], b"mine-17"))
    assert (answer.status, answer.header["x-request-id"]) == (status, "mine-17")


@pytest.mark.parametrize("request_id", [b"a", b"x" * 128, b"req_1.2:3~4-5", b"0" * 36])
def test_a_sane_id_is_passed_on(rig: Rig, request_id: bytes) -> None:
    """The engine gets the caller's id too, so that all logs tell of the same request."""
    answer = rig.ask(_with_id(request(), request_id))
    assert answer.header["x-request-id"] == request_id.decode()
    assert [seen.header["x-request-id"] for seen in rig.engine.seen] == [request_id.decode()]


@pytest.mark.parametrize(
    "request_id",
    [b"", b"x" * 129, b"a b", b"a\tb", b'a"b', b"a'b", b"a/b", b"a,b", b"a;b", b"a\\b", b"<b>",
     b"{}", b"%0d", b"\xe9", b"\xc2\x9b31m"],
)  # fmt: skip
def test_an_insane_id_is_replaced(rig: Rig, request_id: bytes) -> None:
    """An id that could mean something to a log, a shell or a page is not repeated anywhere."""
    answer = rig.ask(_with_id(request(), request_id))
    own = answer.header["x-request-id"]
    assert _UUID.fullmatch(own)
    assert [seen.header["x-request-id"] for seen in rig.engine.seen] == [own]


@pytest.mark.parametrize("status", [each for each in ANSWERS if each >= 400])
def test_errors_name_their_code(rig: Rig, status: int) -> None:
    """Every error says in body and header which one it is, and which side failed."""
    answer = rig.ask(ANSWERS[status])
    error = answer.error
    assert re.fullmatch(r"err:gateway:[a-z_]+:[a-z_]+", error["penstock_code"])
    assert answer.header["x-penstock-error-code"] == error["penstock_code"]
    is_upstream = error["penstock_code"].startswith("err:gateway:upstream:")
    assert answer.header["x-penstock-error-source"] == ("upstream" if is_upstream else "gateway")
    assert int(answer.header["content-length"]) == len(answer.body)
    assert ("retry-after" in answer.header) is (status in (429, 503))
    assert ("allow" in answer.header) is (status == 405)
    assert ("www-authenticate" in answer.header) is (status == 401)


@pytest.mark.parametrize("status", ANSWERS)
def test_answers_tell_nothing_of_the_house(rig: Rig, status: int) -> None:
    """No answer names software, versions, addresses, or headers of the engine's own."""
    answer = rig.ask(ANSWERS[status])
    assert set(answer.header) <= {
        "allow", "connection", "content-length", "content-type", "retry-after",
        "www-authenticate", "x-llm-d-request-dropped-reason", "x-penstock-error-code",
        "x-penstock-error-source", "x-request-id",
    }  # fmt: skip
    for word in (b"127.0.0.1", b"uvloop", b"httptools", b"llhttp", b"Python", b"Traceback", b".py"):
        assert word not in answer.raw
    assert str(rig.engine.port).encode() not in answer.raw


def test_health_is_told(rig: Rig) -> None:
    """Probes get a short JSON answer."""
    assert rig.ask(get(b"/health/live")).body == b'{"status":"live"}'
    assert rig.ask(get(b"/health/ready")).body == b'{"status":"ready"}'


def test_a_plain_answer_is_the_engines_own(rig: Rig) -> None:
    """A plain answer is relayed byte for byte."""
    body = rig.ask(request()).body
    assert json.loads(body)["choices"][0]["message"]["content"] == "hi"
    assert b'"prompt_tokens":3,"completion_tokens":5' in body


_SPOOFED = (
    b"Connection: keep-alive, x-hop",
    b"Keep-Alive: timeout=5",
    b"X-Hop: a",
    b"TE: trailers",
    b"Trailer: X-A",
    b"Proxy-Authorization: Basic a",
    b"Proxy-Connection: keep-alive",
    b"Cookie: session=a",
    b"X-Organization: org-b",
    b"X-Tenant-Id: org-b",
    b"X-User: admin",
    b"OpenAI-Organization: org-b",
    b"OpenAI-Project: p-b",
    b"X-Forwarded-For: 10.0.0.1",
    b"X-Forwarded-Host: evil",
    b"X-Forwarded-Proto: https",
    b"X-Forwarded-Prefix: /admin",
    b"X-Real-IP: 10.0.0.1",
    b"Forwarded: for=10.0.0.1",
    b"X-Original-URL: /admin",
    b"X-Rewrite-URL: /admin",
    b"X-HTTP-Method-Override: DELETE",
    b"X-Custom-Host: evil",
    b"X-Portkey-Custom-Host: evil",
    b"Accept-Encoding: gzip",
    b"User-Agent: a",
    b"x_emulator_ttft_ms: 1",
)
_OWN_FIELDS = {
    "host", "content-type", "accept-encoding", "authorization", "x-request-id", "content-length",
}  # fmt: skip


@pytest.mark.parametrize("field", [b"x-api-key: ", b"api-key: ", b"Authorization: Bearer "])
def test_no_header_of_the_caller_reaches_the_engine(rig: Rig, field: bytes) -> None:
    """The engine gets our own header with our own credential, whatever the caller sends."""
    content = request(CHAT, field + KEY.encode(), *_SPOOFED, host=b"Host: evil", key=None)
    assert rig.ask(content).status == 200
    (seen,) = rig.engine.seen
    assert {name for name, _ in seen.fields} == _OWN_FIELDS
    assert len(seen.fields) == len(_OWN_FIELDS)
    assert seen.header["host"] == f"127.0.0.1:{rig.engine.port}"
    assert seen.header["authorization"] == f"Bearer {CREDENTIAL}"
    assert seen.header["accept-encoding"] == "identity"


def test_configured_headers_reach_the_engine(rig: Rig) -> None:
    """Headers that the upstream's configuration names are passed on, under their own name."""
    assert rig.ask(request(CHAT, b"X-Emulator-Note:  a b ")).status == 200
    (seen,) = rig.engine.seen
    assert seen.header["x-emulator-note"] == "a b"
    assert {name for name, _ in seen.fields} == _OWN_FIELDS | {"x-emulator-note"}


@pytest.mark.parametrize(
    ("value", "is_passed"),
    [
        (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", True),
        (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", False),
        (b"00-" + b"0" * 9000, False),
        (b"x", False),
    ],
)
def test_a_trace_goes_on_when_it_is_one(rig: Rig, value: bytes, *, is_passed: bool) -> None:
    """A well-formed `traceparent` is passed on, and nothing else under its name."""
    assert rig.ask(request(CHAT, b"Traceparent: " + value)).status == 200
    (seen,) = rig.engine.seen
    assert seen.header.get("traceparent") == (value.decode() if is_passed else None)


@pytest.mark.parametrize(
    "path",
    [b"/v1/chat/completions?x=%0d%0aX-A:%20b", b"http://evil:1/v1/chat/completions?a=b#c"],
)
def test_the_target_is_our_own(rig: Rig, path: bytes) -> None:
    """The engine's target is the operation's, without anything of the caller's."""
    assert rig.ask(request(path=path)).status == 200
    assert [seen.line for seen in rig.engine.seen] == ["POST /v1/chat/completions HTTP/1.1"]


def _all_ways(rig: Rig) -> Iterator[Answer]:
    """Send the prompt in every way that can go wrong."""
    body = chat(_PROMPT)
    yield rig.ask(request(body))
    yield rig.ask(request(chat(_PROMPT, stream=True)))
    for key in (OTHER_KEY, KEY + "x", KEY[:-1], CREDENTIAL):
        yield rig.ask(request(body, key=key))
    yield rig.ask(request(body, b"x-api-key: " + OTHER_KEY.encode()))
    yield rig.ask(request(body[:-1]))
    yield rig.ask(request(chat(_PROMPT, max_tokens=-1)))
    yield rig.ask(request(chat(_PROMPT, model=KEY)))
    yield rig.ask(request(chat(_PROMPT, model=_PROMPT)))
    yield rig.ask(request(body, path=b"/v1/" + KEY.encode()))
    yield rig.ask(get(b"/v1/models/" + _PROMPT.encode(), key=KEY))
    yield rig.ask(b"GET /" + KEY.encode() + b"\x01")
    yield rig.ask(request(body, b"Transfer-Encoding: chunked"))
    for status in (400, 401, 403, 404, 418, 422, 429, 500, 503):
        yield rig.ask(request(body, b"x-emulator-status: %d" % status))


def test_no_secret_is_in_an_answer_or_a_log(rig: Rig) -> None:
    """Keys, credentials and prompts are in no answer and no line of the log, whatever fails."""
    for answer in _all_ways(rig):
        assert [secret for secret in _SECRETS if secret.encode() in answer.raw] == []
    assert any(CREDENTIAL in seen.header["authorization"] for seen in rig.engine.seen)
    log = rig.worker.log.read_text()
    assert [secret for secret in _SECRETS if secret in log] == []
    assert "Traceback" not in log


def test_the_journal_holds_no_secret(rig: Rig) -> None:
    """What is recorded of a request is its figures, not its words."""
    assert rig.ask(request(chat(_PROMPT))).status == 200
    kept = b"".join(
        path.read_bytes() for path in rig.worker.folder.glob("journal/*/*") if path.is_file()
    )
    assert b"project-a" in kept
    assert [secret for secret in _SECRETS if secret.encode() in kept] == []


@contextmanager
def _refusing_port() -> Iterator[int]:
    """Hold a port that nobody listens on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        yield port


def test_trouble_behind_us_is_503(tmp_path_factory: pytest.TempPathFactory) -> None:
    """An engine that is away is 503 with Retry-After, never the caller's fault."""
    folder = tmp_path_factory.mktemp("away")
    with (
        _refusing_port() as port,
        running_worker(folder, [], snapshot=make_snapshot([port])) as worker,
    ):
        answer = ask(worker.port, request())
    assert (answer.status, answer.code) == (503, "upstream:connect_failed")
    assert int(answer.header["retry-after"]) > 0
    assert answer.header["x-penstock-error-source"] == "upstream"
    assert str(port).encode() not in answer.raw


def test_a_worker_that_drains_ends_its_connections(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """From SIGTERM on the answer under way is a connection's last, and nothing is admitted."""
    with running_rig(tmp_path_factory.mktemp("drain")) as rig, rig.connect() as connection:
        connection.send(request(chat("slow"), b"x-emulator-hold: 1"))
        give_up_at_s = time.monotonic() + 20
        while not rig.engine.seen:
            assert time.monotonic() < give_up_at_s
            time.sleep(0.01)
        connection.send(get(b"/health/ready") + request(chat("late")))
        os.kill(rig.worker.pid, signal.SIGTERM)
        while "gateway.draining" not in rig.worker.log.read_text():
            assert time.monotonic() < give_up_at_s
            time.sleep(0.01)
        rig.engine.release()
        answers = connection.read_answers()
        assert [(each.status, each.is_last) for each in answers] == [(200, True)]
        assert len(rig.bodies()) == 1
        assert rig.worker.process.wait(20) == 0
