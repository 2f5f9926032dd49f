"""The tap over generated streams: what it shows and finds does not depend on the reads."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.effort import tries
from tests.fakes.scripted_engine import counts, cut

from penstock.gateway.dialects.openai_usage import Usage
from penstock.gateway.limits import HELD_FRAME_BYTES, INSPECTED_FRAME_BYTES, READ_BYTES
from penstock.gateway.tap import Tap

END_OF_FRAME = ["\n\n", "\r\n\r\n", "\r\r", "\n\r\n", "\r\n\n", "\n\r", "\r\n\r", "\r\r\n"]
"""Every pair of line ends that is a blank line; CR LF is one line end and not two."""
TRICKY = [
    '"usage"',
    '"usage":{"prompt_tokens":9}',
    '"error"',
    '{"error":{}}',
    "[DONE]",
    "data: [DONE]",
    '"choices":[]',
    "grün 漢字 🦀",
    "\u2028",
    "",
]


@dataclass(frozen=True)
class Frame:
    """One frame, and what the tap shall make of it."""

    content: bytes
    """With its blank line."""
    is_hidden: bool = False
    """A bare usage chunk."""
    stripped: bytes | None = None
    """What a caller sees that asked for no usage at all; the content when None."""
    usage: Usage | None = None
    error: bytes | None = None
    is_done: bool = False
    is_counted: bool = False


def _dump(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _choices(text: str) -> list[dict[str, Any]]:
    return [{"index": 0, "delta": {"content": text}}]


texts = st.one_of(st.sampled_from(TRICKY), st.text(max_size=12))
ends = st.sampled_from(END_OF_FRAME)
figures = st.builds(counts, st.integers(0, 10**6), st.integers(0, 10**6))
spaces = st.sampled_from(["", " "])


def _usage(figure: dict[str, Any]) -> Usage:
    return Usage(figure["prompt_tokens"], figure["completion_tokens"])


@st.composite
def tokens(draw: st.DrawFn) -> Frame:
    """Return a frame with choices: plain, named, with nulls, over two lines, or not UTF-8."""
    members: dict[str, Any] = {"id": "c1", "choices": _choices(draw(texts))}
    if draw(st.booleans()):
        members["usage"] = None
    if draw(st.booleans()):
        members["error"] = None
    payload = _dump(members).encode("utf-8", "surrogatepass")
    kind = draw(st.sampled_from(["plain", "named", "lines", "bytes"]))
    before = b"event: message\nid: 7\nretry: 10\n" if kind == "named" else b""
    if kind == "lines":
        payload = payload.replace(b',"', b',\ndata: "', 1)
    elif kind == "bytes":
        payload = payload.replace(b'"c1"', b'"\x00\xff\xe6\xbc"')
    start = b"data:" + draw(spaces).encode()
    return Frame(before + start + payload + draw(ends).encode(), is_counted=True)


@st.composite
def token_with_usage(draw: st.DrawFn) -> Frame:
    """Return a frame with choices and cumulative usage."""
    figure, text = draw(figures), draw(texts)
    end = draw(ends)
    whole = _dump({"id": "c1", "choices": _choices(text), "usage": figure})
    rest = _dump({"id": "c1", "choices": _choices(text)})
    return Frame(
        f"data: {whole}{end}".encode("utf-8", "surrogatepass"),
        stripped=f"data: {rest}{end}".encode("utf-8", "surrogatepass"),
        usage=_usage(figure),
        is_counted=True,
    )


@st.composite
def bare_usage(draw: st.DrawFn) -> Frame:
    """Return a bare usage chunk, its members in either order, written loosely."""
    figure = draw(figures)
    members: dict[str, Any] = {"choices": [], "usage": figure, "id": "c1"}
    if draw(st.booleans()):
        members = dict(reversed(members.items()))
    separators = draw(st.sampled_from([(",", ":"), (", ", ": ")]))
    payload = json.dumps(members, separators=separators)
    content = f"data: {payload}{draw(ends)}".encode()
    return Frame(content, is_hidden=True, usage=_usage(figure))


@st.composite
def errors(draw: st.DrawFn) -> Frame:
    """Return an error event, named or not."""
    error = draw(st.sampled_from(["boom", {"message": "boom", "code": 400}, {}]))
    before = draw(st.sampled_from(["", "event: error\n"]))
    content = f"{before}data: {_dump({'error': error})}{draw(ends)}".encode()
    return Frame(content, error=_dump(error).encode())


@st.composite
def remarks(draw: st.DrawFn) -> Frame:
    """Return a comment, or a frame whose data is no JSON."""
    text = draw(st.sampled_from([": keep-alive", ":", "event: ping", "data: hello", "retry: 3"]))
    return Frame((text + draw(ends)).encode())


done = st.builds(lambda end: Frame(f"data: [DONE]{end}".encode(), is_done=True), ends)


@st.composite
def transcripts(draw: st.DrawFn) -> list[Frame]:
    """Return a stream: usage anywhere, also twice and behind `[DONE]`; maybe cut off at its end."""
    kinds = st.one_of(tokens(), bare_usage(), token_with_usage(), remarks(), errors())
    found = draw(st.lists(kinds, max_size=7))
    found += draw(st.lists(done, max_size=1))
    found += draw(st.lists(bare_usage(), max_size=2))
    is_cut_off = draw(st.booleans())
    if found and is_cut_off:
        last = found[-1]
        if last.stripped is None:
            content = last.content.rstrip(b"\r\n")
            found[-1] = Frame(
                content, last.is_hidden, None, last.usage, last.error, last.is_done, last.is_counted
            )
    return found


def _before_error(frames: Sequence[Frame]) -> list[Frame]:
    return list(takewhile(lambda frame: frame.error is None, frames))


def _expected(frames: Sequence[Frame], *, hides: bool, strips: bool) -> bytes:
    """Return what comes out of whole frames before an error."""
    frames = _before_error(frames)
    shown = [frame for frame in frames if not (hides and frame.is_hidden)]
    return b"".join(
        frame.stripped if strips and frame.stripped is not None else frame.content
        for frame in shown
    )


def _run(tap: Tap, pieces: Sequence[bytes]) -> bytes:
    out = b""
    for piece in pieces:
        out += tap.feed(piece)
        if tap.error is not None:
            return out
    return out + tap.finish()


def _check(frames: Sequence[Frame], pieces: Sequence[bytes], *, hides: bool, strips: bool) -> None:
    tap = Tap(hides_usage=hides, strips_usage=strips)
    out, expected = _run(tap, pieces), _expected(frames, hides=hides, strips=strips)
    found_errors = [frame for frame in frames if frame.error is not None]
    if found_errors and tap.is_inside_frame:  # it began before the word came
        assert found_errors[0].content.startswith(out.removeprefix(expected)), pieces
        assert b"error" not in out.removeprefix(expected).removeprefix(b"event: error"), pieces
    else:
        assert out == expected, pieces
    frames = [*_before_error(frames), *found_errors[:1]]
    usages = [frame.usage for frame in frames if frame.usage is not None]
    assert tap.usage == (usages[-1] if usages else None), pieces
    assert tap.error == (found_errors[0].error if found_errors else None), pieces
    assert tap.is_done is any(frame.is_done for frame in frames), pieces
    assert tap.flags == (), pieces
    counted = [f for f in frames if f.is_counted or (f.is_hidden and not hides)]
    assert tap.frame_count == len(counted), pieces


modes = pytest.mark.parametrize(
    ("hides", "strips"), [(True, False), (False, False), (True, True), (False, True)]
)


@modes
@settings(max_examples=tries(40))
@given(frames=transcripts())
def test_one_cut_anywhere_changes_nothing(
    frames: list[Frame], *, hides: bool, strips: bool
) -> None:
    """Cut in two at any byte, a stream less its hidden chunks comes out, with the same findings."""
    content = b"".join(frame.content for frame in frames)
    for at in range(len(content) + 1):
        _check(frames, cut(content, [at]), hides=hides, strips=strips)


@modes
@settings(max_examples=tries(200))
@given(frames=transcripts(), data=st.data())
def test_any_cuts_change_nothing(
    frames: list[Frame], data: st.DataObject, *, hides: bool, strips: bool
) -> None:
    """Cut anywhere any number of times, the same comes out with the same findings."""
    content = b"".join(frame.content for frame in frames)
    boundaries = data.draw(st.lists(st.integers(0, len(content)), max_size=len(content)))
    _check(frames, cut(content, boundaries), hides=hides, strips=strips)
    _check(frames, cut(content, range(len(content))), hides=hides, strips=strips)


@settings(max_examples=tries(100))
@given(frames=transcripts(), data=st.data())
def test_what_comes_out_is_always_a_beginning(frames: list[Frame], data: st.DataObject) -> None:
    """Nothing is passed on out of order, and what is held back is less than a held frame."""
    content = b"".join(frame.content for frame in frames)
    boundaries = data.draw(st.lists(st.integers(0, len(content)), max_size=20))
    expected = _expected(frames, hides=True, strips=False)
    hidden = sum(len(frame.content) for frame in _before_error(frames)) - len(expected)
    tap, out, fed = Tap(hides_usage=True), b"", 0
    for piece in cut(content, boundaries):
        out += tap.feed(piece)
        fed += len(piece)
        assert expected.startswith(out)
        if tap.error is not None:
            break
        assert fed - len(out) <= hidden + HELD_FRAME_BYTES


@settings(max_examples=tries(100))
@given(content=st.binary(max_size=400), data=st.data())
def test_a_caller_that_asked_gets_every_byte_at_once(content: bytes, data: st.DataObject) -> None:
    """With nothing to hide, whatever is fed comes out of the same call."""
    tap = Tap(hides_usage=False)
    boundaries = data.draw(st.lists(st.integers(0, len(content)), max_size=20))
    for piece in cut(content, boundaries):
        assert tap.feed(piece) == piece
    assert tap.finish() == b""


@settings(max_examples=tries(200))
@given(pieces=st.lists(st.binary(min_size=1, max_size=60), max_size=12))
def test_noise_passes(pieces: list[bytes]) -> None:
    """Bytes that are no stream at all come out as they went in."""
    assert _run(Tap(hides_usage=True, strips_usage=True), pieces) == b"".join(pieces)
    assert _run(Tap(hides_usage=True), pieces) == b"".join(pieces)


@settings(max_examples=tries(60))
@given(text=texts, at=st.integers(0, 200), usage=figures)
def test_a_frame_with_choices_is_passed_on_from_its_first_choice(
    text: str, at: int, usage: dict[str, Any]
) -> None:
    """Once a choice has begun, every byte of its frame goes on with the read that brought it."""
    frame = f"data: {_dump({'id': 'c1', 'choices': _choices(text), 'usage': usage})}\n\n"
    content = frame.encode("utf-8", "surrogatepass")
    begun = content.index(b'"choices":[{') + len(b'"choices":[{')
    at = min(max(at, begun), len(content) - 1)
    tap = Tap(hides_usage=True)
    assert tap.feed(content[:at]) == content[:at]
    assert tap.is_inside_frame
    assert tap.feed(content[at:]) == content[at:]
    assert not tap.is_inside_frame
    assert tap.usage == _usage(usage)


@pytest.mark.parametrize("size", [HELD_FRAME_BYTES - 60, HELD_FRAME_BYTES + 1, 3_000_000])
@pytest.mark.parametrize("read", [1_000, READ_BYTES, 10_000_000])
@pytest.mark.parametrize("strips", [False, True])
def test_large_frames_are_held_within_their_bound(size: int, read: int, *, strips: bool) -> None:
    """Frames of any size pass whole, and neither more than the bound is held nor kept of them."""
    large = b'data: {"id":"' + b"x" * size + b'","choices":[{"index":0}]}\n\n'
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n'
    content = large + large + usage + b"data: [DONE]\n\n"
    tap, out = Tap(hides_usage=True, strips_usage=strips), b""
    bound = INSPECTED_FRAME_BYTES if strips else HELD_FRAME_BYTES
    for fed in range(0, len(content), read):
        piece = content[fed : fed + read]
        out += tap.feed(piece)
        assert min(fed + read, len(content)) - len(out) <= bound + len(usage)
        assert len(tap._carry) <= INSPECTED_FRAME_BYTES
    assert out + tap.finish() == large + large + b"data: [DONE]\n\n"
    assert tap.usage == Usage(1, 2)
    assert tap.is_done
    assert tap.frame_count == 2


@pytest.mark.parametrize("read", [500, READ_BYTES])
def test_an_overlong_usage_chunk_is_shown_and_counted(read: int) -> None:
    """What is too long to be held back as a usage chunk is shown, and its figures count."""
    padding = b"x" * HELD_FRAME_BYTES
    content = b'data: {"choices":[],"usage":{"prompt_tokens":1},"pad":"' + padding + b'"}\n\n'
    tap = Tap(hides_usage=True)
    assert _run(tap, cut(content, range(0, len(content), read))) == content
    assert tap.usage == Usage(1, 0)
