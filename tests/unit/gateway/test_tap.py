"""The tap on single frames; that cuts change nothing is tested in tests/property."""

import pytest
from tests.fakes.scripted_engine import DONE, ROLE, counts, token, usage_frame

from penstock.gateway.dialects.openai_usage import Usage
from penstock.gateway.tap import Tap

USAGE = usage_frame(counts(3, 4))


def test_a_bare_usage_chunk_is_hidden_and_read() -> None:
    """The chunk that was asked for in the caller's name is taken out and booked."""
    tap = Tap(hides_usage=True)
    assert tap.feed(ROLE + USAGE + DONE) == ROLE + DONE
    assert tap.usage == Usage(3, 4)


@pytest.mark.parametrize(
    "frame",
    [
        b'data: {"choices":[{"index":0}],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n',
        b'data: {"choices":null,"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n',
        b'data: {"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n',
        b'data: {"choices":5,"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n',
    ],
)
def test_what_is_no_bare_usage_chunk_is_shown_and_read(frame: bytes) -> None:
    """Usage beside anything else is booked, and its frame is relayed."""
    tap = Tap(hides_usage=True)
    assert tap.feed(frame) == frame
    assert tap.usage == Usage(3, 4)


@pytest.mark.parametrize(
    "frame",
    [
        token('"usage":{"prompt_tokens":9}'),
        token("[DONE]"),
        token('{"error":"boom"}'),
        b": data: [DONE]\n\n",
        b'data: {"choices":[{"usage":{"prompt_tokens":9},"error":"inner"}]}\n\n',
        b'data: {"choices":[{"index":0}],"error":null,"usage":null}\n\n',
        b'data: "usage" "error" and no JSON\n\n',
    ],
)
def test_words_inside_content_mean_nothing(frame: bytes) -> None:
    """What a model says about usage, errors and ends is content."""
    tap = Tap(hides_usage=True)
    assert tap.feed(frame) == frame
    assert (tap.usage, tap.error, tap.is_done, tap.flags) == (None, None, False, ())


@pytest.mark.parametrize("ending", [b"\n\n", b"\r\n\r\n", b" \n\n", b"\r\r", b""])
@pytest.mark.parametrize("start", [b"data: ", b"data:", b"event: end\ndata: "])
def test_the_end_is_seen_however_it_is_written(start: bytes, ending: bytes) -> None:
    """`[DONE]` ends a stream with any line ends, any space and even unfinished."""
    tap = Tap(hides_usage=True)
    shown = tap.feed(ROLE + start + b"[DONE]" + ending) + tap.finish()
    assert shown == ROLE + start + b"[DONE]" + ending
    assert tap.is_done
    assert tap.frame_count == 1


def test_usage_is_stripped_in_place() -> None:
    """Where usage is taken out of a frame, its other lines and its line ends stay."""
    frame = b'id: 7\r\ndata: {"a":[1, 2],"choices":[{}],"usage":{"prompt_tokens":1}}\r\n\r\n'
    tap = Tap(hides_usage=True, strips_usage=True)
    assert tap.feed(frame) == b'id: 7\r\ndata: {"a":[1, 2],"choices":[{}]}\r\n\r\n'
    assert tap.usage == Usage(1, 0)


def test_usage_is_stripped_from_data_over_two_lines() -> None:
    """A frame whose data is on two lines is written anew without its usage."""
    frame = b'data: {"choices":[{}],\ndata: "usage":{"prompt_tokens":1}}\n\n'
    tap = Tap(hides_usage=True, strips_usage=True)
    assert tap.feed(frame) == b'data: {"choices":[{}]}\n\n'


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (b'data: {"error": {"code": 1}}\n\n', b'{"code": 1}'),
        (b'data: {"error":"boom"}\n\n', b'"boom"'),
        (
            b'data: {"object":"error","message":"boom","code":500}\n\n',
            b' {"object":"error","message":"boom","code":500}',
        ),
        (b'event: error\ndata: {"message":"boom"}\n\n', b' {"message":"boom"}'),
    ],
    ids=["vllm", "triton", "sglang", "named"],
)
@pytest.mark.parametrize("before", [b"", ROLE + token("x")])
def test_an_error_ends_what_is_shown(before: bytes, frame: bytes, error: bytes) -> None:
    """Whatever its shape, neither an engine's error nor what is behind it is passed on."""
    tap = Tap(hides_usage=True)
    assert tap.feed(before + frame + b'data: {"error":"two"}\n\n' + DONE) == before
    assert (tap.error, tap.is_done) == (error, False)
    assert not tap.is_inside_frame


def test_a_first_frame_may_be_an_error_without_the_word() -> None:
    """Dynamo's says only by its code what it is."""
    tap = Tap(hides_usage=False)
    frame = b'data: {"message":"busy","type":"Overloaded","code":529}\n\n'
    assert tap.feed(frame) == b""
    assert tap.error is not None


def test_a_stream_of_nothing_is_empty() -> None:
    """Comments and other text are nothing that an engine answers; tokens, errors and ends are."""
    for content in (b"", b": ping\n\n", b"<html></html>", b"data: hello\n\n"):
        tap = Tap(hides_usage=True)
        if content:
            tap.feed(content)
        tap.finish()
        assert tap.is_empty, content
    for content in (ROLE, USAGE, DONE, b'data: {"error":"boom"}\n\n', USAGE.rstrip()):
        tap = Tap(hides_usage=True)
        tap.feed(content)
        tap.finish()
        assert not tap.is_empty, content


def test_a_lone_carriage_return_waits_for_what_follows() -> None:
    """A CR at the end of a read may be half a line end: its frame ends with the next byte."""
    tap = Tap(hides_usage=True)
    frame = USAGE.rstrip() + b"\r\r"
    assert tap.feed(frame) == b""
    assert tap.feed(ROLE) == ROLE
    assert tap.usage == Usage(3, 4)
