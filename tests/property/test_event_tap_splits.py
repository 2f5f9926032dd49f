"""Taps of named events over generated streams: what they show and find does not depend on reads."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.effort import tries
from tests.fakes.scripted_engine import cut

from penstock.contract.usage import Outcome
from penstock.gateway.dialects.openai_usage import Usage
from penstock.gateway.limits import ENDING_BYTES, INSPECTED_FRAME_BYTES, READ_BYTES
from penstock.gateway.measure import measure_stream
from penstock.gateway.tap_events import EventTap, MessagesTap, ResponsesTap

END_OF_FRAME = ["\n\n", "\r\n\r\n", "\r\r", "\n\r\n"]
TRICKY = [
    "message_stop",
    "response.completed",
    'event: error\ndata: {"type":"error"}',
    '"usage":{"input_tokens":9}',
    '"error"',
    "[DONE]",
    "grün 漢字 🦀",
    "",
]


@dataclass(frozen=True)
class Frame:
    """One event, and what a tap shall make of it."""

    content: bytes
    """With its blank line."""
    told: tuple[tuple[str, int], ...] = ()
    """Figures of its usage."""
    is_final: bool = False
    """Whether those are all, so that nothing has to be counted."""
    is_token: bool = False
    is_error: bool = False
    is_end: bool = False


ends = st.sampled_from(END_OF_FRAME)
texts = st.one_of(st.sampled_from(TRICKY), st.text(max_size=12))
counts = st.integers(0, 10**6)


def _event(payload: dict[str, Any], end: str, *, spaces: bool = False) -> bytes:
    separators = (", ", ": ") if spaces else (",", ":")
    data = json.dumps(payload, separators=separators, ensure_ascii=spaces)
    return f"event: {payload['type']}\ndata: {data}{end}".encode("utf-8", "surrogatepass")


remarks = st.builds(
    lambda text, end: Frame((text + end).encode()),
    st.sampled_from([": keep-alive", "event: ping\ndata: {}", "data: hello"]),
    ends,
)


@st.composite
def messages(draw: st.DrawFn) -> list[Frame]:
    """Return a stream of a message: cut off anywhere, or with an error in it, or whole."""
    figures = {"input_tokens": draw(counts), "cache_read_input_tokens": draw(counts)}
    spaces = draw(st.booleans())
    usage = figures | {"output_tokens": draw(st.integers(0, 3)), "cache_creation": None}
    start = {"type": "message_start", "message": {"id": "m1", "usage": usage}}
    told = tuple(sorted((name, value) for name, value in usage.items() if value is not None))
    frames = [Frame(_event(start, draw(ends), spaces=spaces), told)]
    for text in draw(st.lists(texts, max_size=5)):
        delta = {"type": "text_delta", "text": text}
        block = {"type": "content_block_delta", "index": 0, "delta": delta}
        frames.append(Frame(_event(block, draw(ends), spaces=spaces), is_token=True))
        frames += draw(st.lists(remarks, max_size=1))
    last = {"output_tokens": draw(counts)} | (figures if draw(st.booleans()) else {})
    end = {"type": "message_delta", "delta": {}, "usage": last}
    frames += [
        Frame(_event(end, draw(ends), spaces=spaces), tuple(sorted(last.items())), is_final=True),
        Frame(_event({"type": "message_stop"}, draw(ends)), is_end=True),
    ]
    error = {"type": "error", "error": {"type": "api_error", "message": "boom"}}
    return _ended(draw, frames, Frame(_event(error, draw(ends)), is_error=True))


@st.composite
def responses(draw: st.DrawFn) -> list[Frame]:
    """Return a stream of a response: cut off anywhere, or with a failure in it, or whole."""
    spaces = draw(st.booleans())
    begun = {"id": "r1", "status": "in_progress", "error": None, "usage": None}
    created = {"type": "response.created", "response": begun}
    frames = [Frame(_event(created, draw(ends), spaces=spaces))]
    for text in draw(st.lists(texts, max_size=5)):
        delta = {"type": "response.output_text.delta", "delta": text, "item_id": "i"}
        frames.append(Frame(_event(delta, draw(ends), spaces=spaces), is_token=True))
        frames += draw(st.lists(remarks, max_size=1))
    usage = {"input_tokens": draw(counts), "output_tokens": draw(counts)}
    kind = draw(st.sampled_from(["completed", "incomplete"]))
    whole = begun | {"status": kind, "usage": usage}
    last = {"type": f"response.{kind}", "response": whole}
    end = _event(last, draw(ends), spaces=spaces)
    frames.append(Frame(end, tuple(usage.items()), is_final=True, is_end=True))
    failed = begun | {"status": "failed", "error": {"message": "boom"}, "usage": usage}
    error: dict[str, Any] = draw(
        st.sampled_from(
            [
                {"type": "error", "code": "server_error", "message": "boom"},
                {"type": "response.failed", "response": failed},
            ]
        )
    )
    return _ended(draw, frames, Frame(_event(error, draw(ends)), is_error=True))


def _ended(draw: st.DrawFn, frames: list[Frame], error: Frame) -> list[Frame]:
    how = draw(st.sampled_from(["whole", "cut", "error"]))
    if how == "whole":
        return frames
    at = draw(st.integers(0, len(frames) - 1))
    return frames[:at] if how == "cut" else [*frames[:at], error, *frames[at:]]


def _run(tap: EventTap, pieces: Sequence[bytes]) -> bytes:
    out = b""
    for piece in pieces:
        out += tap.feed(piece)
        if tap.error is not None:
            return out
    return out + tap.finish()


def _total(frames: Sequence[Frame], name: str) -> int | None:
    return next((dict(f.told)[name] for f in reversed(frames) if name in dict(f.told)), None)


def _check(tap: EventTap, frames: Sequence[Frame], pieces: Sequence[bytes]) -> None:
    out = _run(tap, pieces)
    passed = list(takewhile(lambda frame: not frame.is_error, frames))
    whole = b"".join(frame.content for frame in passed)
    if len(passed) < len(frames):
        assert tap.error is not None, pieces
        assert out == whole, "nothing of an error is shown"
        assert not tap.is_inside_frame
        assert measure_stream("upstream_error", tap, 99)[0] == Usage(0, 0)
        return
    assert (tap.error, out) == (None, whole), pieces
    assert tap.frame_count == sum(frame.is_token for frame in passed), pieces
    assert tap.is_done is any(frame.is_end for frame in passed), pieces
    outcome: Outcome = "ok" if tap.is_done else "caller_gone"
    usage, source, flags = measure_stream(outcome, tap, 99)
    assert flags == ()
    cached = _total(passed, "cache_read_input_tokens")
    inputs = (_total(passed, "input_tokens") or 0) + (cached or 0)
    if any(frame.is_final for frame in passed):
        outputs = _total(passed, "output_tokens")
        assert (usage.input_tokens, usage.output_tokens, source) == (inputs, outputs, "engine")
        assert usage.cached_input_tokens == cached
    else:
        outputs = max(tap.frame_count, (_total(passed, "output_tokens") or 0) if inputs else 0)
        expected = (inputs or 99, outputs, "counted")
        assert (usage.input_tokens, usage.output_tokens, source) == expected, pieces


def _messages() -> MessagesTap:
    return MessagesTap(99)


STREAMS = pytest.mark.parametrize(
    ("make", "streams"),
    [(_messages, messages()), (ResponsesTap, responses())],
    ids=["messages", "responses"],
)


@STREAMS
@settings(max_examples=tries(40))
@given(data=st.data())
def test_one_cut_anywhere_changes_nothing(
    make: Callable[[], EventTap], streams: st.SearchStrategy[list[Frame]], data: st.DataObject
) -> None:
    """Cut in two at any byte, a stream comes out up to an error, with the same findings."""
    frames = data.draw(streams)
    content = b"".join(frame.content for frame in frames)
    for at in range(len(content) + 1):
        _check(make(), frames, cut(content, [at]))


@STREAMS
@settings(max_examples=tries(150))
@given(data=st.data())
def test_any_cuts_change_nothing(
    make: Callable[[], EventTap], streams: st.SearchStrategy[list[Frame]], data: st.DataObject
) -> None:
    """Cut anywhere any number of times, the same comes out with the same findings."""
    frames = data.draw(streams)
    content = b"".join(frame.content for frame in frames)
    boundaries = data.draw(st.lists(st.integers(0, len(content)), max_size=30))
    _check(make(), frames, cut(content, boundaries))
    _check(make(), frames, cut(content, range(len(content))))
    _check(make(), frames, [frame.content for frame in frames])


@settings(max_examples=tries(200))
@given(pieces=st.lists(st.binary(min_size=1, max_size=60), max_size=12))
def test_noise_passes(pieces: list[bytes]) -> None:
    """Bytes that are no stream at all come out as they went in."""
    for make in (_messages, ResponsesTap):
        assert _run(make(), pieces) == b"".join(pieces)


@pytest.mark.parametrize("read", [1_500, READ_BYTES])
def test_a_response_is_read_however_long_it_is(read: int) -> None:
    """The last event repeats all of the response: it passes as it comes, and its usage counts."""
    text = "x" * (INSPECTED_FRAME_BYTES - 1_000)
    usage = {"input_tokens": 7, "output_tokens": 8}
    whole = {"id": "r1", "status": "completed", "output": [text], "usage": usage}
    content = _event({"type": "response.completed", "response": whole}, "\n\n")
    tap, out = ResponsesTap(), b""
    for at in range(0, len(content), read):
        out += tap.feed(content[at : at + read])
        assert out == content[: at + read]
    assert (tap.usage, tap.is_done) == (Usage(7, 8), True)


TOOL = {"name": "f", "parameters": {"usage": {"input_tokens": 0, "output_tokens": 0}}}
USED = {"input_tokens": 7, "output_tokens": 8}


@pytest.mark.parametrize(
    ("members", "usage"),
    [
        ({"tools": [TOOL], "usage": USED, "user": None}, Usage(7, 8)),
        ({"usage": USED, "tools": [TOOL] * 3, "text": '"usage":{'}, Usage(7, 8)),
        ({"tools": [TOOL], "text": '\\","usage":{"input_tokens":0,"output_tokens":0}'}, None),
        ({"usage": USED, "instructions": "x" * ENDING_BYTES}, None),
        ({"usage": None}, None),
    ],
    ids=["last", "before", "only named so", "too far", "none"],
)
@pytest.mark.parametrize("end", ["\n\n", "\n\r\n", "\r\n\r\n"])
@pytest.mark.parametrize("over", [-1, 0, 2 * INSPECTED_FRAME_BYTES])
def test_the_end_of_a_response_that_is_too_long_is_known(
    members: dict[str, Any], usage: Usage | None, end: str, over: int
) -> None:
    """All of it came; its own usage counts, whatever else is called so."""
    whole = {"id": "r1", "output": ["x" * (INSPECTED_FRAME_BYTES + over)], **members}
    content = _event({"type": "response.completed", "response": whole, "sequence_number": 9}, end)
    for read in (INSPECTED_FRAME_BYTES, READ_BYTES, 50_001):
        tap = ResponsesTap()
        pieces = cut(content, range(0, len(content), read))
        assert _run(tap, pieces) == content
        assert (tap.usage, tap.is_done, tap.frame_count) == (usage, True, 0)


def test_a_long_response_that_is_cut_is_not_done() -> None:
    """Its name alone ends nothing, nor does a long event of another name."""
    whole = {"output": ["x" * (2 * INSPECTED_FRAME_BYTES)], "usage": USED}
    content = _event({"type": "response.completed", "response": whole}, "\n\n")
    other = content.replace(b"response.completed", b"response.in_progress")
    for cut_off in (content[:-1], other):
        tap = ResponsesTap()
        _run(tap, cut(cut_off, range(0, len(cut_off), READ_BYTES)))
        assert (tap.usage, tap.is_done) == (None, False)


@pytest.mark.parametrize("make", [_messages, ResponsesTap])
@pytest.mark.parametrize("kind", ["error", "response.failed"])
def test_an_error_of_any_length_is_one(make: Callable[[], EventTap], kind: str) -> None:
    """What is too long to be looked into is known by its name: nothing of it is shown."""
    event = _event({"type": kind, "message": "x" * (2 * INSPECTED_FRAME_BYTES)}, "\n\n")
    tap = make()
    assert _run(tap, cut(event, range(0, len(event), READ_BYTES))) == b""
    assert tap.error is not None


def test_what_was_told_first_counts_until_more_is_told() -> None:
    """Beginnings of messages know the input; figures that are none are flagged."""
    tap = _messages()
    usage = {"input_tokens": 5, "output_tokens": 1, "cache_creation_input_tokens": 2}
    tap.feed(_event({"type": "message_start", "message": {"id": "m", "usage": usage}}, "\n\n"))
    tap.feed(_event({"type": "message_stop"}, "\n\n"))
    found, source, flags = measure_stream("ok", tap, 99)
    assert (found.input_tokens, found.output_tokens, source) == (7, 1, "counted")
    assert flags == ("usage_missing",)
    tap = _messages()
    tap.feed(_event({"type": "content_block_delta", "index": 0}, "\n\n"))
    tap.feed(_event({"type": "message_delta", "usage": {"output_tokens": 3}}, "\n\n"))
    tap.feed(_event({"type": "message_stop"}, "\n\n"))
    expected = (Usage(99, 3, flags=("usage_missing",)), "counted", ("usage_missing",))
    assert measure_stream("ok", tap, 99) == expected, "as llama.cpp tells some"


def test_noughts_at_the_beginning_of_a_response_are_no_figures() -> None:
    """A response that is cut counts by its events, whatever its beginning told of usage."""
    tap = ResponsesTap()
    usage = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    begun = {"id": "r", "status": "in_progress", "usage": usage}
    tap.feed(_event({"type": "response.created", "response": begun}, "\n\n"))
    tap.feed(_event({"type": "response.output_text.delta", "delta": "a"}, "\n\n"))
    assert measure_stream("caller_gone", tap, 99) == (Usage(99, 1), "counted", ())


def test_figures_beside_tokens_count_as_far_as_they_go() -> None:
    """Dynamo guesses the input at first, and tells cumulative figures with each token."""
    tap = _messages()
    guess = {"input_tokens": 25, "output_tokens": 0, "cache_creation_input_tokens": 0}
    tap.feed(_event({"type": "message_start", "message": {"id": "m", "usage": guess}}, "\n\n"))
    for number in (1, 2):
        told = {"input_tokens": 9, "output_tokens": number, "cache_read_input_tokens": 64}
        delta = {"type": "content_block_delta", "index": 0, "delta": {}, "usage": told}
        tap.feed(_event(delta, "\n\n"))
    usage, source, flags = measure_stream("caller_gone", tap, 99)
    assert (usage, source, flags) == (
        Usage(73, 2, cached_input_tokens=64, cache_write_input_tokens=0),
        "engine",
        (),
    )
