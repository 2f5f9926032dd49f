"""What engines answer in the words of Messages and Responses."""

import json
from typing import Any

import pytest

from penstock.gateway.dialects import messages, responses
from penstock.gateway.dialects.errors import (
    MEMBER_INVALID,
    MODEL_NOT_FOUND,
)
from penstock.gateway.dialects.openai_usage import Usage
from penstock.gateway.dialects.operations import telling_of
from penstock.gateway.errors import (
    KEY_INVALID,
    LIMITS_UNAVAILABLE,
    OVERLOADED,
    QUOTA_EXHAUSTED,
    RATE_EXCEEDED,
    TOTAL_TIMEOUT,
)
from penstock.kit.errors import ErrorCode, Refusal


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        ({"input_tokens": 3, "output_tokens": 4}, Usage(3, 4)),
        (
            {"input_tokens": 3, "output_tokens": 4, "cache_read_input_tokens": 10},
            Usage(13, 4, cached_input_tokens=10),
        ),
        (
            {
                "input_tokens": 3,
                "output_tokens": 4,
                "cache_read_input_tokens": 10,
                "cache_creation_input_tokens": 100,
                "output_tokens_details": {"thinking_tokens": 2},
            },
            Usage(113, 4, 10, 2, cache_write_input_tokens=100),
        ),
        (
            {"input_tokens": 3, "output_tokens": 4, "cache_read_input_tokens": None},
            Usage(3, 4),
        ),
        (
            {"input_tokens": 0, "output_tokens": 4, "cache_read_input_tokens": 9},
            Usage(9, 4, cached_input_tokens=9),
        ),
    ],
)
def test_input_that_caches_had_is_input(told: dict[str, Any], usage: Usage) -> None:
    """Anthropic tells input without what a cache had, or got: our input has both as its parts."""
    assert messages.read_usage(told) == (usage, ())


@pytest.mark.parametrize(
    ("told", "flag"),
    [
        ({"input_tokens": "3", "output_tokens": 4}, "usage_not_a_number"),
        ({"input_tokens": 3}, "usage_not_a_number"),
        ({"input_tokens": 10**15, "output_tokens": 4}, "usage_absurd"),
        ({"input_tokens": True, "output_tokens": 4}, "usage_not_a_number"),
        ({}, "usage_not_a_number"),
        ([], "usage_not_a_number"),
    ],
)
def test_figures_that_make_no_sense_are_not_booked(told: object, flag: str) -> None:
    """As of chats: they are dropped, and flagged."""
    assert messages.read_usage(told) == (None, (flag,))
    assert responses.read_usage(told) == (None, (flag,))


def test_odd_parts_harm_no_whole() -> None:
    """A part that is no count is left out, flagged; the rest counts."""
    told = {"input_tokens": 3, "output_tokens": 4, "cache_read_input_tokens": "x"}
    usage, flags = messages.read_usage(told)
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.cached_input_tokens) == (3, 4, None)
    assert flags == ("usage_not_a_number",)
    usage, flags = messages.read_usage(told | {"cache_read_input_tokens": -5})
    assert usage is not None
    assert (usage.input_tokens, usage.cached_input_tokens, flags) == (3, 0, ("usage_negative",))


def test_a_responses_parts_are_parts_of_its_input() -> None:
    """OpenAI tells input with what a cache had."""
    told = {
        "input_tokens": 30,
        "input_tokens_details": {"cached_tokens": 10, "cache_write_tokens": 5},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 8},
        "total_tokens": 39,
    }
    assert responses.read_usage(told) == (Usage(30, 9, 10, 8, cache_write_input_tokens=5), ())


def test_whole_answers_are_read() -> None:
    """Usage, the engine's name of it, and the tier by which it worked."""
    body = {
        "id": "m1",
        "usage": {"input_tokens": 1, "output_tokens": 2, "service_tier": "standard"},
    }
    reading = messages.read_message(json.dumps(body).encode())
    assert (reading.usage, reading.error) == (Usage(1, 2), None)
    assert (reading.answer_id, reading.service_tier) == ("m1", "standard")
    whole = {"id": "r1", "error": None, "status": "incomplete", "service_tier": "flex",
             "usage": {"input_tokens": 1, "output_tokens": 2}}  # fmt: skip
    reading = responses.read_response(json.dumps(whole).encode())
    assert (reading.usage, reading.error) == (Usage(1, 2), None)
    assert (reading.answer_id, reading.service_tier) == ("r1", "flex")


@pytest.mark.parametrize(
    "body",
    [
        {"type": "error", "error": {"type": "api_error", "message": "boom"}},
        {"type": "error", "message": "boom"},
    ],
)
def test_errors_under_200_are_errors_in_messages(body: dict[str, Any]) -> None:
    """Whatever usage stands beside it."""
    used = {"usage": {"input_tokens": 1, "output_tokens": 2}}
    assert messages.read_message(json.dumps(body | used).encode()).error is not None


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "boom"}},
        {"status": "failed", "error": None},
        {"status": "failed", "error": {"code": "server_error", "message": "boom"}},
        {"object": "error", "message": "boom", "code": 500},
    ],
)
def test_errors_under_200_are_errors_in_responses(body: dict[str, Any]) -> None:
    """Also where only the status says so."""
    used = {"usage": {"input_tokens": 1, "output_tokens": 2}}
    assert responses.read_response(json.dumps(body | used).encode()).error is not None


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (MODEL_NOT_FOUND, "not_found_error"),
        (MEMBER_INVALID, "invalid_request_error"),
        (KEY_INVALID, "authentication_error"),
        (RATE_EXCEEDED, "rate_limit_error"),
        (QUOTA_EXHAUSTED, "billing_error"),
        (OVERLOADED, "overloaded_error"),
        (LIMITS_UNAVAILABLE, "overloaded_error"),
        (TOTAL_TIMEOUT, "timeout_error"),
    ],
)
def test_errors_have_the_words_of_their_protocol(error: ErrorCode, word: str) -> None:
    """Anthropic's SDKs find their types, and ours beside them; others are told as before."""
    refusal = Refusal(error, "a\n\nb", "p")
    for path in (b"/v1/messages", b"/v1/messages/count_tokens"):
        told = json.loads(telling_of(path).body(refusal, b"req-1"))
        assert (told["type"], told["error"]["type"]) == ("error", word)
        assert told["error"]["penstock_code"] == error.code
        assert told["request_id"] == "req-1"
    told = json.loads(telling_of(b"/v1/responses").body(refusal, b"req-1"))
    assert told == json.loads(telling_of(b"/v1/chat/completions").body(refusal, b"req-1"))


@pytest.mark.parametrize(
    ("path", "name"),
    [(b"/v1/messages", b"error"), (b"/v1/responses", b"error"), (b"/v1/chat/completions", b"")],
)
def test_an_error_event_is_one_event(path: bytes, name: bytes) -> None:
    """The event that ends a stream has one data line with the error in it, and its name."""
    event = telling_of(path).event(Refusal(RATE_EXCEEDED, "a\n\nb"), b"req-1")
    head = b"event: error\ndata: " if name else b"data: "
    assert event.startswith(head + b"{")
    assert event.endswith(b"}\n\n")
    assert event.count(b"\n") == head.count(b"\n") + 2
    told = json.loads(event[len(head) :])
    assert told["error"]["message"] == "a\n\nb"
    assert told.get("type", "error") == "error"
