"""Request bodies: what they ask for, and which are refused."""

import msgspec
import pytest

from penstock.emulator.generation import BadBodyError, Operation, parse_body


def test_a_chat_is_read() -> None:
    """Model, maximum, choices and stream options of a chat are read; unknown members are not."""
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "12345678", "name": "x"}],
        "max_tokens": 7,
        "n": 2,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "temperature": 0.5,
    }
    read = parse_body("chat", msgspec.json.encode(body))
    assert (read.model, read.max_output_tokens, read.choices) == ("m", 7, 2)
    assert read.is_stream
    assert read.asks_usage
    assert read.is_usage_continuous


@pytest.mark.parametrize(
    ("content", "tokens"),
    [
        ("", 1),
        ("1234", 1),
        ("12345", 2),
        ("水" * 8, 2),
        (None, 1),
        ([{"type": "text", "text": "12345678"}, {"type": "image_url", "image_url": {}}], 2),
    ],
)
def test_input_tokens_are_a_quarter_of_the_characters(content: object, tokens: int) -> None:
    """Four characters, not bytes, make a token, and there is at least one."""
    body = {"model": "m", "messages": [{"role": "user", "content": content}]}
    assert parse_body("chat", msgspec.json.encode(body)).input_tokens == tokens


def test_the_newer_maximum_wins() -> None:
    """`max_completion_tokens` goes before `max_tokens`."""
    body = b'{"model":"m","messages":[{"role":"user"}],"max_tokens":1,"max_completion_tokens":2}'
    assert parse_body("chat", body).max_output_tokens == 2


@pytest.mark.parametrize(
    ("prompt", "choices", "tokens"),
    [("12345678", 2, 2), (["1234", "12345678"], 4, 3), ([1, 2, 3], 2, 3), ([[1], [2, 3]], 4, 3)],
)
def test_completions_take_prompts_of_any_form(prompt: object, choices: int, tokens: int) -> None:
    """Each prompt has `n` choices; token ids count as they are."""
    read = parse_body("completions", msgspec.json.encode({"model": "m", "prompt": prompt, "n": 2}))
    assert (read.choices, read.input_tokens) == (choices, tokens)


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        ("chat", b""),
        ("chat", b"{"),
        ("chat", b"\xef\xbb\xbf{}"),
        ("chat", b"[]"),
        ("chat", b'{"messages":[{"role":"user","content":"x"}]}'),
        ("chat", b'{"model":"m","messages":[]}'),
        ("chat", b'{"model":"m","messages":[{"role":"user","content":"\xff"}]}'),
        ("chat", b'{"model":"m","messages":[{"role":"user"}],"max_tokens":-1}'),
        ("chat", b'{"model":"m","messages":[{"role":"user"}],"max_tokens":"9"}'),
        ("chat", b'{"model":"m","messages":[{"role":"user"}],"n":129}'),
        ("chat", b'{"model":"m","messages":' + b"[" * 100_000),
        ("completions", b'{"model":"m","prompt":[]}'),
        ("completions", b'{"model":"m","prompt":[1,"x"]}'),
        ("completions", b'{"model":"m","prompt":["x","y"],"n":65}'),
        ("embeddings", b'{"model":"m","input":"x","encoding_format":"text"}'),
        ("embeddings", b'{"model":"m","input":"x","dimensions":0}'),
    ],
)
def test_bad_bodies_are_refused(operation: Operation, body: bytes) -> None:
    """What is no JSON, misses a member or has one out of range is refused."""
    with pytest.raises(BadBodyError):
        parse_body(operation, body)
