"""What engines say in OpenAI's dialect, read leniently and booked strictly; pure."""

import msgspec
import pytest

from penstock.gateway.dialects.openai import (
    OPERATIONS,
    engine_word,
    error_status,
    error_text,
    read_answer,
    read_chunk,
)
from penstock.gateway.dialects.openai_usage import Usage
from penstock.gateway.limits import SANE_TOKENS

_HUGE = SANE_TOKENS + 1


def _answer(usage: str) -> bytes:
    return f'{{"choices":[],"usage":{usage}}}'.encode()


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        ('{"prompt_tokens":3,"completion_tokens":5}', Usage(3, 5)),
        ('{"prompt_tokens":3}', Usage(3, 0)),
        ('{"prompt_tokens":3.0,"completion_tokens":5.0}', Usage(3, 5)),
        (
            """{"prompt_tokens":9,"completion_tokens":8,"prompt_tokens_details":
            {"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":2}}""",
            Usage(9, 8, 4, 2),
        ),
        ('{"prompt_tokens":9,"completion_tokens":8,"reasoning_tokens":2}', Usage(9, 8, None, 2)),
        (
            """{"prompt_tokens":9,"completion_tokens":8,"prompt_tokens_details":null,
            "completion_tokens_details":{"reasoning_tokens":null},"x":{}}""",
            Usage(9, 8),
        ),
        (f'{{"prompt_tokens":{SANE_TOKENS},"completion_tokens":0}}', Usage(SANE_TOKENS, 0)),
        (
            '{"prompt_tokens":-3,"completion_tokens":5}',
            Usage(0, 5, flags=("usage_negative",)),
        ),
        (
            '{"prompt_tokens":3,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":9}}',
            Usage(3, 5, 3, None, ("usage_inconsistent",)),
        ),
        (
            '{"prompt_tokens":3,"completion_tokens":5,"reasoning_tokens":9}',
            Usage(3, 5, None, 5, ("usage_inconsistent",)),
        ),
        (
            '{"prompt_tokens":3,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":"a"}}',
            Usage(3, 5, flags=("usage_not_a_number",)),
        ),
        (
            f'{{"prompt_tokens":3,"completion_tokens":5,"reasoning_tokens":{_HUGE}}}',
            Usage(3, 5, flags=("usage_absurd",)),
        ),
        (
            '{"prompt_tokens":3,"completion_tokens":5,"prompt_tokens_details":[1]}',
            Usage(3, 5),
        ),
        (
            """{"prompt_tokens":9,"completion_tokens":8,"prompt_tokens_details":
            {"cached_tokens":4,"audio_tokens":5},"completion_tokens_details":
            {"reasoning_tokens":2,"audio_tokens":6}}""",
            Usage(9, 8, 4, 2, (), None, 5, 6),
        ),
        (  # what is cached may have been heard: audio is what is left
            """{"prompt_tokens":9,"completion_tokens":8,"prompt_tokens_details":
            {"cached_tokens":7,"audio_tokens":5}}""",
            Usage(9, 8, 7, None, (), None, 2, None),
        ),
        (
            """{"prompt_tokens":9,"completion_tokens":8,"cache_read_input_tokens":4,
            "cache_creation_input_tokens":5}""",
            Usage(9, 8, 4, None, (), 5),
        ),
        (
            """{"prompt_tokens":9,"completion_tokens":8,"prompt_tokens_details":
            {"cached_tokens":4,"cache_write_tokens":3}}""",
            Usage(9, 8, 4, None, (), 3),
        ),
        (
            """{"prompt_tokens":9,"completion_tokens":8,"prompt_tokens_details":
            {"created_cache_tokens":3}}""",
            Usage(9, 8, None, None, (), 3),
        ),
        (
            """{"prompt_tokens":9,"completion_tokens":8,"prompt_tokens_details":
            {"cached_tokens":4},"cache_creation_input_tokens":6}""",
            Usage(9, 8, 4, None, ("usage_inconsistent",), 5),
        ),
        (
            """{"prompt_tokens":9,"completion_tokens":8,"prompt_tokens_details":
            {"audio_tokens":10},"completion_tokens_details":{"audio_tokens":-1}}""",
            Usage(9, 8, None, None, ("usage_inconsistent", "usage_negative"), None, 9, 0),
        ),
        (
            """{"prompt_tokens":9,"completion_tokens":8,"cache_creation_input_tokens":true,
            "prompt_tokens_details":{"audio_tokens":0.5}}""",
            Usage(9, 8, flags=("usage_not_a_number",)),
        ),
    ],
)
def test_usage_is_read(usage: str, read: Usage) -> None:
    """Counts are read from answers and chunks alike; odd ones are made sane and flagged."""
    answer, chunk = read_answer(_answer(usage)), read_chunk(_answer(usage))
    assert answer.usage == read
    assert chunk is not None
    assert chunk.usage == read


@pytest.mark.parametrize(
    ("usage", "flags"),
    [
        ("null", ()),
        ('"many"', ("usage_not_a_number",)),
        ("[1,2]", ("usage_not_a_number",)),
        ("{}", ("usage_not_a_number",)),
        ('{"prompt_tokens":"3","completion_tokens":5}', ("usage_not_a_number",)),
        ('{"prompt_tokens":3.5,"completion_tokens":5}', ("usage_not_a_number",)),
        ('{"prompt_tokens":true,"completion_tokens":5}', ("usage_not_a_number",)),
        ('{"prompt_tokens":null,"completion_tokens":5}', ("usage_not_a_number",)),
        ('{"prompt_tokens":3,"completion_tokens":null}', ("usage_not_a_number",)),
        (f'{{"prompt_tokens":{_HUGE},"completion_tokens":5}}', ("usage_absurd",)),
        ('{"prompt_tokens":1e300,"completion_tokens":5}', ("usage_absurd",)),
        (f'{{"prompt_tokens":"a","completion_tokens":{10**30}}}',
         ("usage_absurd", "usage_not_a_number")),
    ],
)  # fmt: skip
def test_senseless_usage_is_none(usage: str, flags: tuple[str, ...]) -> None:
    """Figures that make no sense are dropped, and it is said which sense they lack."""
    answer, chunk = read_answer(_answer(usage)), read_chunk(_answer(usage))
    assert (answer.usage, answer.flags) == (None, flags)
    assert chunk is not None
    assert (chunk.usage, chunk.flags) == (None, flags)


@pytest.mark.parametrize(
    ("members", "names"),
    [
        ('"id":"chatcmpl-1","service_tier":"flex"', ("chatcmpl-1", "flex")),
        ('"id":null,"service_tier":null', ("", "")),
        ('"id":7,"service_tier":["flex"]', ("", "")),
        ('"id":"a\\u0000b","service_tier":"\\n"', ("", "")),
        (f'"id":"{"x" * 129}","service_tier":"{"x" * 33}"', ("", "")),
        (f'"id":"{"x" * 128}","service_tier":"{"x" * 32}"', ("x" * 128, "x" * 32)),
        ('"id":"\u00e9"', ("", "")),
    ],
)
def test_names_of_engines_are_read(members: str, names: tuple[str, str]) -> None:
    """The engine's words for the answer and its tier are kept, if they may stand in records."""
    body = f'{{{members},"usage":{{"prompt_tokens":3,"completion_tokens":5}}}}'.encode()
    answer, chunk = read_answer(body), read_chunk(body)
    assert chunk is not None
    assert (answer.answer_id, answer.service_tier) == names
    assert (chunk.answer_id, chunk.service_tier) == names
    assert answer.usage == chunk.usage == Usage(3, 5)


@pytest.mark.parametrize(
    ("value", "word"),
    [(b"req-1", "req-1"), (b"ours", ""), (b"", ""), (b"x" * 129, ""), (b"\xe9", ""), (b"a\tb", "")],
)
def test_a_header_names_a_request_unless_it_repeats_ours(value: bytes, word: str) -> None:
    """What an engine only echoes says nothing; what is no word is left out."""
    assert engine_word(value, "ours") == word


@pytest.mark.parametrize(
    ("error", "present"),
    [("null", None), ("{}", b"{}"), ('{"message":"a"}', b'{"message":"a"}'), ('"a"', b'"a"'),
     ("false", b"false")],
)  # fmt: skip
def test_errors_are_seen(error: str, present: bytes | None) -> None:
    """An `error` that is there and not null is one, whatever its shape."""
    body = f'{{"error":{error}}}'.encode()
    chunk = read_chunk(body)
    assert chunk is not None
    assert read_answer(body).error == chunk.error == present


@pytest.mark.parametrize(
    ("choices", "has_choices"),
    [('"choices":[{}]', True), ('"choices":[]', False), ('"choices":[ ]', False), ('"x":1', True)],
)
def test_bare_chunks_are_told_apart(choices: str, *, has_choices: bool) -> None:
    """A chunk with an empty list of choices carries nothing for the reader."""
    chunk = read_chunk(f"{{{choices}}}".encode())
    assert chunk is not None
    assert chunk.has_choices is has_choices


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'"a"', b"{", b"17", b"null"])
def test_what_is_no_object_is_no_answer(body: bytes) -> None:
    """Neither an answer nor a chunk is anything but a JSON object."""
    with pytest.raises(msgspec.DecodeError):
        read_answer(body)
    assert read_chunk(body) is None


def test_a_damaged_chunk_is_no_failure() -> None:
    """A chunk that cannot be read is passed on, its figures are not taken."""
    assert read_chunk(b'{"x":' + b"[" * 100_000) is None
    for usage in (b'{"a":"\xff"}', b'"\xff"', b'{"prompt_tokens":1e999}'):
        chunk = read_chunk(b'{"usage":%b}' % usage)
        assert chunk is not None
        assert (chunk.usage, chunk.flags) == (None, ("usage_not_a_number",))


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b'{"error":{"message":"a"}}', "a"),
        (b'{"message":"a"}', "a"),
        (b'{"error":"a"}', "a"),
        (b'{"detail":"a"}', "a"),
        (b'"a"', "a"),
        (b'{"error":{"message":{"message":"a"}}}', "a"),
        (b'{"error":{"message":"%b"}}' % (b"x" * 5_000), "x" * 1_000),
        (b'{"error":{"message":17}}', ""),
        (b'{"detail":[{"msg":"a"}]}', ""),
        (b"{}", ""),
        (b"[]", ""),
        (b"null", ""),
        (b"", ""),
        (b"<html>", ""),
        (b'{"error":"\xff"}', ""),
        (b"[" * 100_000, ""),
    ],
)
def test_words_of_engines_are_found(raw: bytes, text: str) -> None:
    """An engine's words are found in any of the known shapes, cut, or left out."""
    assert error_text(raw) == text


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b'{"code":400}', 400),
        (b'{"error":{"code":503}}', 503),
        (b'{"code":"400"}', None),
        (b'{"code":200}', None),
        (b'{"code":600}', None),
        (b'{"code":true}', None),
        (b"[]", None),
        (b"", None),
        (b"[" * 100_000, None),
    ],
)
def test_statuses_of_errors_are_found(raw: bytes, status: int | None) -> None:
    """An error's own status is an integer of HTTP, or none."""
    assert error_status(raw) == status


def test_operations_are_found_by_their_path() -> None:
    """Each operation is listed under the path that it names."""
    assert {path: operation.path.encode() for path, operation in OPERATIONS.items()} == {
        path: path for path in OPERATIONS
    }
