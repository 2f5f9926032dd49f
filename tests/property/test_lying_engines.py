"""Whatever an engine claims to have used, what is booked makes sense."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from penstock.contract.usage import Meter, UsageEvent, quantities
from penstock.gateway.dialects.messages import read_message
from penstock.gateway.dialects.openai import read_answer, read_chunk
from penstock.gateway.dialects.openai_usage import Usage
from penstock.gateway.dialects.responses import read_response
from penstock.gateway.limits import SANE_TOKENS
from penstock.gateway.tap import Tap
from penstock.gateway.tap_events import MessagesTap

_FLAGS = {"usage_negative", "usage_not_a_number", "usage_absurd", "usage_inconsistent"}
_NAMES = (
    "prompt_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details",
    "cached_tokens", "reasoning_tokens", "audio_tokens", "cache_write_tokens",
    "cache_creation_tokens", "created_cache_tokens", "cache_creation_input_tokens",
    "cache_read_input_tokens", "usage", "error", "choices", "id", "service_tier",
    "input_tokens", "output_tokens", "input_tokens_details", "output_tokens_details",
    "thinking_tokens",
)  # fmt: skip

_odd = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10)
    | st.sampled_from((-1, 10**12, 10**30, 0.5, "7", "", SANE_TOKENS, SANE_TOKENS + 1))
)  # fmt: skip
_anything = st.recursive(
    _odd,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=5)
    ),
    max_leaves=12,
)
_figure = st.integers(0, 9) | _odd
_parts = st.dictionaries(st.sampled_from(_NAMES), _figure, max_size=4)
_likely = st.fixed_dictionaries(
    {"prompt_tokens": _figure, "completion_tokens": _figure},
    optional={
        "prompt_tokens_details": _parts | _figure,
        "completion_tokens_details": _parts | _figure,
        "reasoning_tokens": _figure,
        "cache_creation_input_tokens": _figure,
        "cache_read_input_tokens": _figure,
    },
)
_likely_elsewhere = st.fixed_dictionaries(
    {"input_tokens": _figure, "output_tokens": _figure},
    optional={
        "input_tokens_details": _parts | _figure,
        "output_tokens_details": _parts | _figure,
        "cache_creation_input_tokens": _figure,
        "cache_read_input_tokens": _figure,
    },
)
"""Objects that are nearly right: what is odd about them is a figure or two."""


def _check(usage: Usage) -> None:
    assert set(usage.flags) <= _FLAGS
    for whole, *parts in (
        (
            usage.input_tokens,
            usage.cached_input_tokens,
            usage.cache_write_input_tokens,
            usage.audio_input_tokens,
        ),
        (usage.output_tokens, usage.reasoning_output_tokens, usage.audio_output_tokens),
    ):
        assert 0 <= whole <= SANE_TOKENS
        assert all(part is None or part >= 0 for part in parts)
        assert sum(part or 0 for part in parts) <= whole


def _event(usage: Usage) -> UsageEvent:
    return UsageEvent(
        *("id", "id", "org", "project", "key", "alias", "served", "engine", "chat"),
        is_stream=False,
        outcome="ok",
        status=200,
        error_code=None,
        usage_source="engine",
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        reasoning_output_tokens=usage.reasoning_output_tokens,
        attempt_count=1,
        started_at_ns=1,
        first_byte_at_ns=2,
        finished_at_ns=3,
        cache_write_input_tokens=usage.cache_write_input_tokens,
        audio_input_tokens=usage.audio_input_tokens,
        audio_output_tokens=usage.audio_output_tokens,
    )


@given(_anything | _likely)
def test_no_usage_is_ever_senseless(usage: object) -> None:
    """Figures are between nothing and a sane amount, parts are disjoint, answers are as chunks."""
    body = msgspec.json.encode({"usage": usage})
    chunk = read_chunk(body)
    assert chunk is not None
    answer = read_answer(body)
    assert (answer.usage, answer.flags) == (chunk.usage, chunk.flags)
    if chunk.usage is None:
        assert set(chunk.flags) <= _FLAGS
        assert chunk.flags or usage is None
        return
    _check(chunk.usage)
    counted = quantities(_event(chunk.usage))
    assert all(amount > 0 for amount in counted.values())
    inputs: tuple[Meter, ...] = ("input", "cached_input", "cache_write_input", "audio_input")
    assert sum(counted.get(meter, 0) for meter in inputs) == chunk.usage.input_tokens
    outputs: tuple[Meter, ...] = ("output", "reasoning_output", "audio_output")
    assert sum(counted.get(meter, 0) for meter in outputs) == chunk.usage.output_tokens


@given(_anything | _likely_elsewhere)
def test_no_usage_of_other_protocols_is_senseless(usage: object) -> None:
    """The same holds of Messages and Responses, and of what is told before an answer's end."""
    body = msgspec.json.encode({"usage": usage})
    for reading in (read_message(body), read_response(body)):
        assert set(reading.flags) <= _FLAGS
        assert reading.usage is not None or reading.flags or usage is None
        if reading.usage is not None:
            _check(reading.usage)
    tap = MessagesTap(99)
    start = {"type": "message_start", "message": {"id": "m", "usage": usage}}
    tap.feed(b"event: message_start\ndata: %b\n\n" % msgspec.json.encode(start))
    tap.feed(b'data: {"type":"content_block_delta"}\n\n' * 3)
    counted = tap.counted
    assert set(counted.flags) <= _FLAGS
    assert 0 < counted.input_tokens <= SANE_TOKENS
    assert 3 <= counted.output_tokens <= SANE_TOKENS
    quantities(_event(counted))


@given(
    st.lists(_likely | _anything, min_size=1, max_size=4),
    st.integers(1, 40),
)
def test_usage_that_comes_often_is_what_was_said_last(claims: list[object], size: int) -> None:
    """However often a stream says it, and wherever it is cut, the last sane figures count."""
    frames = [
        b"data: %b\n\n" % msgspec.json.encode({"id": f"c{number}", "choices": [], "usage": claim})
        for number, claim in enumerate(claims)
    ]
    stream = b"".join(frames) + b"data: [DONE]\n\n"
    tap = Tap(hides_usage=True)
    for start in range(0, len(stream), size):
        tap.feed(stream[start : start + size])
    tap.finish()
    readings = [read_chunk(frame[6:]) for frame in frames]
    found = [reading.usage for reading in readings if reading is not None and reading.usage]
    assert tap.usage == (found[-1] if found else None)
    if tap.usage is not None:
        _check(tap.usage)
