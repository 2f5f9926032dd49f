"""What an engine's failure means for the caller; pure."""

import pytest

from penstock.gateway.errors import (
    BAD_ANSWER,
    FAILED,
    MISCONFIGURED,
    OVERLOADED,
    REFUSED_BY_ENGINE,
)
from penstock.gateway.failure import error_in_answer, status_failure, without_credential
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
        (503, OVERLOADED),
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


def test_words_that_repeat_our_credential_are_dropped() -> None:
    """A careless engine's message gives nobody our credential."""
    line = b"authorization: Bearer sk-1234\r\n"
    told = Refusal(OVERLOADED, "no entry for sk-1234 today", retry_after_s=3)
    assert without_credential(told, line) == Refusal(OVERLOADED, retry_after_s=3)
    harmless = Refusal(FAILED, "out of memory")
    assert without_credential(harmless, line) is harmless
    assert without_credential(told, b"") is told
