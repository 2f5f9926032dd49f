"""What an engine's failure means for the caller; pure."""

import msgspec
import pytest

from penstock.gateway.dialects.errors import CONTEXT_EXCEEDED, REFUSED_BY_ENGINE
from penstock.gateway.errors import BAD_ANSWER, FAILED, MISCONFIGURED, OVERLOADED, UNAVAILABLE
from penstock.gateway.failure import (
    dropped,
    error_in_answer,
    redacted,
    status_failure,
    too_long,
)
from penstock.kit.errors import ErrorCode, Refusal

_BODY = b'{"error":{"message":"its words"}}'


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, REFUSED_BY_ENGINE),
        (413, REFUSED_BY_ENGINE),
        (415, REFUSED_BY_ENGINE),
        (422, REFUSED_BY_ENGINE),
        (429, OVERLOADED),
        (503, UNAVAILABLE),
        (529, OVERLOADED),
        (402, FAILED),
        (418, FAILED),
        (500, FAILED),
        (599, FAILED),
        (201, BAD_ANSWER),
        (204, BAD_ANSWER),
        (302, BAD_ANSWER),
    ],
)
def test_statuses_have_their_meaning(status: int, error: ErrorCode) -> None:
    """Each status means one error, and the engine's words go with it."""
    assert status_failure(status, _BODY, None) == Refusal(error, "its words")


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_our_access_is_our_own_matter(status: int) -> None:
    """What an engine says of our credential or path is not told to the caller."""
    assert status_failure(status, _BODY, None) == Refusal(MISCONFIGURED)


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        (None, None),
        (b"0", 0),
        (b"17", 17),
        (b"999999", 999_999),
        (b"1000000", None),
        (b"9" * 5_000, None),
        (b"-1", None),
        (b"1.5", None),
        (b"", None),
        (b"Wed, 21 Oct 2026 07:28:00 GMT", None),
    ],
)
def test_waits_are_passed_on(retry_after: bytes | None, seconds: int | None) -> None:
    """An overloaded engine's wait is passed on when it is one."""
    assert status_failure(429, _BODY, retry_after).retry_after_s == seconds


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff\xfe", b"[" * 100_000])
def test_failures_without_words_have_ours(body: bytes) -> None:
    """Where an engine says nothing that can be read, our own sentence stands."""
    assert status_failure(500, body, None).message == FAILED.public


@pytest.mark.parametrize(
    ("raw", "error", "text"),
    [
        (b'{"message":"a","code":400}', REFUSED_BY_ENGINE, "a"),
        (b'{"message":"a","code":429}', OVERLOADED, "a"),
        (b'{"message":"a","code":500}', FAILED, "a"),
        (b'{"message":"a"}', FAILED, "a"),
        (b'"a"', FAILED, "a"),
        (b"{}", FAILED, ""),
    ],
)
def test_errors_under_200_have_their_meaning(raw: bytes, error: ErrorCode, text: str) -> None:
    """An error object under HTTP 200 is the error that it says it is."""
    assert error_in_answer(raw) == Refusal(error, text)


@pytest.mark.parametrize(
    "words",
    [
        "The engine is currently busy, please try again later.",
        "The request queue is full.",
        "Aborted by a higher priority request.",
        "inference request exceeds maximum queue size",
        "Service temporarily overloaded",
    ],
)
def test_busy_engines_are_told_from_those_that_are_not_there(words: str) -> None:
    """A 503 with which an engine refuses for want of room is one to come again after."""
    body = msgspec.json.encode({"object": "error", "message": words, "code": 503})
    assert status_failure(503, body, b"2") == Refusal(OVERLOADED, words, retry_after_s=2)
    assert error_in_answer(body) == Refusal(OVERLOADED, words)
    assert error_in_answer(b'{"message":"no healthy upstream","code":503}').error is UNAVAILABLE


def test_words_that_repeat_our_credential_are_dropped() -> None:
    """A careless engine's message gives nobody our credential."""
    line = b"authorization: Bearer sk-1234\r\n"
    told = Refusal(OVERLOADED, "no entry for sk-1234 today", retry_after_s=3)
    assert redacted(told, line, ()) == Refusal(OVERLOADED, retry_after_s=3)
    harmless = Refusal(FAILED, "out of memory")
    assert redacted(harmless, line, ()) is harmless
    assert redacted(told, b"", ()) is told


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("connect to 10.1.2.3:8000 failed", "connect to [address] failed"),
        ("http://u:p@gpu-7:8000/v1?x=1 is down", "[address] is down"),
        ("tcp://etcd:2379: refused", "[address] refused"),
        ("no route to [fe80::1]:80 now", "no route to [address] now"),
        ("worker vllm-0.vllm.ai.svc.cluster.local:8000 died", "worker [address] died"),
        ("node gpu-7 lost", "node [address] lost"),
        ("use v1.2.3.4.5 or 3.5 or 0.1.2", "use v1.2.3.4.5 or 3.5 or 0.1.2"),
        ("max_tokens [1:2] at 12:30", "max_tokens [1:2] at 12:30"),
    ],
)
def test_engines_tell_nobody_where_they_are(said: str, shown: str) -> None:
    """Addresses in an engine's words are replaced; versions and figures stay."""
    told = redacted(Refusal(FAILED, said, "n", 3), b"", ["gpu-7"])
    assert told == Refusal(FAILED, shown, "n", 3)


@pytest.mark.parametrize(
    ("status", "words", "most", "tokens", "is_so"),
    [
        (400, "This model's maximum context length is 4096 tokens.", None, 5_000, True),
        (400, "The input (9 tokens) is longer than the model's context length (4).", 4, 1, True),
        (400, "temperature must be positive", 100, 5_000, False),
        (500, "Failed to generate", 4_096, 5_000, True),
        (500, "Failed to generate", 4_096, 4_000, False),
        (500, "Failed to generate", None, 5_000, False),
        (503, "busy", 4_096, 5_000, False),
        (404, "maximum context length", 4_096, 5_000, False),
    ],
)
def test_too_long_requests(
    status: int, words: str, most: int | None, tokens: int, *, is_so: bool
) -> None:
    """An engine says that a request is too long, or fails with one that is."""
    refusal = status_failure(status, msgspec.json.encode({"message": words}), None)
    told = too_long(refusal, most, tokens)
    assert (told.error is CONTEXT_EXCEEDED) is is_so
    assert told == refusal or is_so


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (None, ""),
        (b"evicted", "evicted"),
        (b"rejected-ttl-expired", "rejected-ttl-expired"),
        (b"", ""),
        (b"Rejected", ""),
        (b"rejected-", ""),
        (b"rejected at 10.0.0.1", ""),
        (b"gpu7.internal", ""),
        (b"\xff", ""),
        (b"a" * 65, ""),
    ],
)
def test_only_a_word_is_a_reason(said: bytes | None, reason: str) -> None:
    """What is said of why a request was dropped is shown when it can hold nothing else."""
    refusal = dropped(Refusal(OVERLOADED, "full: 10.0.0.1", retry_after_s=3), said)
    shown = redacted(refusal, b"", ())
    assert shown == Refusal(OVERLOADED, "full: [address]", None, 3, reason)
    secret = b"Authorization: Bearer full"
    assert redacted(refusal, secret, ()) == Refusal(OVERLOADED, "", None, 3, reason)
