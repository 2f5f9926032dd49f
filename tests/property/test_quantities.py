"""What an event counts on each meter, whatever an engine says (invariant I8)."""

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.metering.usage_events import make_event

from penstock.contract.usage import METERS, Meter, quantities

WHOLE = st.integers(min_value=-(2**40), max_value=2**63 - 1)
PART = st.none() | WHOLE
INPUT: tuple[Meter, ...] = ("input", "cached_input", "cache_write_input", "audio_input")
OUTPUT: tuple[Meter, ...] = ("output", "reasoning_output", "audio_output")


@given(
    inputs=WHOLE,
    outputs=WHOLE,
    parts=st.tuples(PART, PART, PART),
    written=st.tuples(PART, PART),
    has_answer=st.booleans(),
)
def test_no_token_is_counted_twice_or_lost(
    *,
    inputs: int,
    outputs: int,
    parts: tuple[int | None, int | None, int | None],
    written: tuple[int | None, int | None],
    has_answer: bool,
) -> None:
    """Classes are disjoint, never negative, and add up to what was read and written."""
    event = make_event(
        input_tokens=inputs,
        output_tokens=outputs,
        cached_input_tokens=parts[0],
        cache_write_input_tokens=parts[1],
        audio_input_tokens=parts[2],
        reasoning_output_tokens=written[0],
        audio_output_tokens=written[1],
        first_byte_at_ns=1 if has_answer else None,
        image_count=-1,
    )
    found = quantities(event)
    assert all(amount > 0 for amount in found.values())
    assert set(found) <= set(METERS)
    assert sum(found.get(meter, 0) for meter in INPUT) == max(inputs, 0)
    assert sum(found.get(meter, 0) for meter in OUTPUT) == max(outputs, 0)
    assert found.get("requests", 0) == has_answer
    if parts == (None, None, None):
        assert found.get("input", 0) == max(inputs, 0)
