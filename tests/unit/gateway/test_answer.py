"""Answers of our own, to the byte; pure."""

import json

import msgspec
import pytest
from tests.fakes.worker_process import PEPPER, build_runtime, make_snapshot

from penstock.contract.snapshot import Alias, Choice, Deployment, Route
from penstock.gateway.answer import (
    connection_line,
    error_answer,
    model_body,
    models_body,
    own_answer,
    plain_head,
    stream_head,
)
from penstock.gateway.dialects.errors import MODEL_NOT_FOUND, REFUSED_BY_ENGINE
from penstock.gateway.errors import DRAINING, FAILED, KEY_INVALID, METHOD_NOT_ALLOWED, OVERLOADED
from penstock.gateway.runtime import Principal
from penstock.kit.errors import Refusal

_RUNTIME = build_runtime(make_snapshot([1]), PEPPER)
_OPEN = Principal("key", "org-a", "project-a", None, None)
_BOUND = Principal("key", "org-a", "project-a", frozenset({"model-a", "not-there"}), None)
_NOBODY = Principal("key", "org-a", "project-a", frozenset(), None)


def _lines(answer: bytes) -> list[bytes]:
    return answer.partition(b"\r\n\r\n")[0].split(b"\r\n")


@pytest.mark.parametrize(
    ("keep_alive", "version", "line"),
    [
        (True, "1.1", b""),
        (False, "1.1", b"connection: close\r\n"),
        (True, "1.0", b"connection: keep-alive\r\n"),
        (False, "1.0", b"connection: close\r\n"),
    ],
)
def test_the_connection_line_says_what_differs(
    version: str, line: bytes, *, keep_alive: bool
) -> None:
    """Only what is not the version's own habit is said."""
    assert connection_line(keep_alive=keep_alive, version=version) == line


def test_an_answer_of_our_own_is_whole() -> None:
    """An answer has its length, type and id, and ends with its body."""
    assert own_answer(200, b"{}", b"id-1", b"") == (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: id-1\r\n"
        b"content-length: 2\r\n\r\n{}"
    )


def test_head_leaves_the_body_out() -> None:
    """The answer to HEAD is that to GET up to its body."""
    whole = own_answer(200, b"{}", b"id-1", b"")
    assert own_answer(200, b"{}", b"id-1", b"", is_head=True) == whole[:-2]


def test_no_content_has_no_length() -> None:
    """An answer with 204 has neither type nor length."""
    lines = _lines(own_answer(204, b"", b"id-1", b"", extra=b"allow: GET\r\n"))
    assert lines == [b"HTTP/1.1 204 No Content", b"x-request-id: id-1", b"allow: GET"]


def test_errors_speak_openais_dialect() -> None:
    """An error has the members that OpenAI's SDKs read, and our code beside them."""
    answer = error_answer(Refusal(MODEL_NOT_FOUND, param="model"), b"id-1", b"")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert json.loads(body) == {
        "error": {
            "message": MODEL_NOT_FOUND.public,
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
            "penstock_code": "err:gateway:request:model_not_found",
        }
    }
    assert b"content-length: %d" % len(body) in head
    assert b"x-penstock-error-code: err:gateway:request:model_not_found" in head


@pytest.mark.parametrize(
    ("refusal", "lines"),
    [
        (Refusal(KEY_INVALID), {b"www-authenticate: Bearer"}),
        (
            Refusal(DRAINING),
            {
                b"retry-after: 1",
                b"x-penstock-error-source: gateway",
                b"x-llm-d-request-dropped-reason: shutting-down",
            },
        ),
        (
            Refusal(OVERLOADED, retry_after_s=17),
            {b"retry-after: 17", b"x-llm-d-request-dropped-reason: rejected-saturated"},
        ),
        (
            Refusal(OVERLOADED, reason="evicted-priority"),
            {b"retry-after: 1", b"x-llm-d-request-dropped-reason: evicted-priority"},
        ),
        (Refusal(FAILED), {b"x-penstock-error-source: upstream", b"HTTP/1.1 502 Bad Gateway"}),
        (Refusal(MODEL_NOT_FOUND), {b"x-penstock-error-source: gateway"}),
    ],
)
def test_errors_have_their_headers(refusal: Refusal, lines: set[bytes]) -> None:
    """Each error carries the headers that belong to it."""
    assert lines <= set(_lines(error_answer(refusal, b"id-1", b"")))


def test_a_wrong_method_is_told_the_right_ones() -> None:
    """A 405 names what is allowed."""
    answer = error_answer(Refusal(METHOD_NOT_ALLOWED), b"id-1", b"", allow=b"POST, OPTIONS")
    assert b"allow: POST, OPTIONS" in _lines(answer)


@pytest.mark.parametrize("status", [400, 413, 415, 422, 499])
def test_an_engines_status_is_kept(status: int) -> None:
    """An engine's refusal goes out under its own status, known to us or not."""
    answer = error_answer(Refusal(REFUSED_BY_ENGINE, "too long"), b"id-1", b"", status=status)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b'"message":"too long"' in answer


def test_words_of_an_engine_cannot_leave_their_place() -> None:
    """Quotes and line ends in a message stay inside the JSON string."""
    words = 'a"}\r\n\r\nHTTP/1.1 200 OK\r\n\u2028'
    answer = error_answer(Refusal(FAILED, words), b"id-1", b"")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert json.loads(body)["error"]["message"] == words
    assert b"\r\n" not in body
    assert b"HTTP/1.1 200" not in head


def test_heads_of_relayed_answers() -> None:
    """A plain answer has its length; a stream is chunked, or ends with the connection."""
    assert _lines(plain_head(b"id-1", b"application/json", 5, b"")) == [
        b"HTTP/1.1 200 OK", b"content-type: application/json", b"x-request-id: id-1",
        b"content-length: 5",
    ]  # fmt: skip
    chunked = stream_head(b"id-1", b"text/event-stream", b"", is_chunked=True)
    assert b"transfer-encoding: chunked" in _lines(chunked)
    assert {b"cache-control: no-cache", b"x-accel-buffering: no"} <= set(_lines(chunked))
    old = stream_head(b"id-1", b"text/event-stream", b"connection: close\r\n", is_chunked=False)
    assert b"connection: close" in _lines(old)
    assert b"transfer-encoding" not in old
    assert chunked.endswith(b"\r\n\r\n")
    assert old.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("principal", "names"),
    [(_OPEN, ["model-a", "only-theirs"]), (_BOUND, ["model-a"]), (_NOBODY, [])],
)
def test_models_are_those_of_the_key(principal: Principal, names: list[str]) -> None:
    """The list of models is that of the key, sorted, in OpenAI's shape."""
    found = json.loads(models_body(_RUNTIME, principal, {}))
    assert found["object"] == "list"
    assert [model["id"] for model in found["data"]] == names
    for model in found["data"]:
        assert set(model) == {"id", "object", "created", "owned_by"}
        assert model["created"] == 1_750_000_000


def test_a_model_says_how_much_it_takes() -> None:
    """What an engine said of its model is said of the alias; of others nothing."""
    contexts = {("engine", "served-model"): 4096, ("other", "served-model"): 10}
    models = json.loads(models_body(_RUNTIME, _BOUND, contexts))["data"]
    assert [model["max_model_len"] for model in models] == [4096]
    found = model_body(_RUNTIME, _BOUND, b"/v1/models/model-a", {("engine", "another"): 5})
    assert isinstance(found, bytes)
    assert "max_model_len" not in json.loads(found)


@pytest.mark.parametrize("name", [b"model-a", b"model%2Da", b"%6D%6f%64%65%6c%2d%61"])
def test_a_model_is_found_by_its_name(name: bytes) -> None:
    """A model is the same however its path writes it."""
    found = model_body(_RUNTIME, _BOUND, b"/v1/models/" + name, {})
    assert isinstance(found, bytes)
    assert json.loads(found)["id"] == "model-a"


@pytest.mark.parametrize(
    "name", [b"", b"model", b"only-theirs", b"not-there", b"\xff", b"%ff", b"%", b"model-a%00"]
)
def test_other_models_are_not_there(name: bytes) -> None:
    """What the key may not use and what does not exist are the same."""
    found = model_body(_RUNTIME, _BOUND, b"/v1/models/" + name, {})
    assert found == Refusal(MODEL_NOT_FOUND, param="model")


def test_an_adapter_has_the_parent_that_its_caller_may_use() -> None:
    """An adapter is listed under the first alias of its model that the key may use, if any."""
    base = make_snapshot([1])
    snapshot = msgspec.structs.replace(
        base,
        deployments=(
            Deployment("base", "engine", "base"),
            Deployment("legal", "engine", "legal", adapter_of="base", adapter_path="/secret"),
        ),
        routes=(Route("base", (Choice("base"),)), Route("legal", (Choice("legal"),))),
        aliases=(
            Alias("a-closed", "base", is_open=False),
            Alias("big", "base"),
            Alias("bigger", "base"),
            Alias("legal", "legal"),
        ),
    )
    runtime = build_runtime(snapshot, PEPPER)

    def parents(*aliases: str) -> dict[str, str | None]:
        principal = Principal("key", "org-a", "project-a", frozenset(aliases) or None, None)
        lengths = {("engine", "base"): 4096}
        body = models_body(runtime, principal, lengths)
        assert b"secret" not in body
        listed = json.loads(body)["data"]
        assert {each["max_model_len"] for each in listed} == {4096}
        one = model_body(runtime, principal, b"/v1/models/legal", lengths)
        assert isinstance(one, bytes)
        assert json.loads(one) == listed[-1]
        return {each["id"]: each.get("parent") for each in listed}

    assert parents() == {"big": None, "bigger": None, "legal": "big"}
    assert parents("legal", "bigger") == {"bigger": None, "legal": "bigger"}
    assert parents("legal", "a-closed") == {"legal": None}
