"""What a request consumed when it ended, and how that is known. Pure."""

from penstock.contract.usage import Outcome, UsageSource
from penstock.gateway.dialects.openai import Operation, Reading, engine_word
from penstock.gateway.dialects.openai_usage import Usage
from penstock.gateway.limits import BYTES_PER_TOKEN
from penstock.gateway.tap import Tap

_NOTHING = Usage(0, 0)
_WORKED = frozenset({"ok", "caller_gone", "interrupted"})
"""Outcomes in which the engine worked for the caller even if it never said how much."""

Measure = tuple[Usage, UsageSource, tuple[str, ...]]


def measure_stream(outcome: Outcome, tap: Tap, estimated_input_tokens: int) -> Measure:
    """Return what a stream consumed.

    One that an engine ended with an error consumed nothing that is to be paid for. Else its last
    figures count, they are cumulative. Without them each frame relayed counts as one output token,
    as engines send them; the first one only names the role.

    Args:
        outcome: How it ended.
        tap: What passed.
        estimated_input_tokens: From the size of the request, >= 0.
    """
    if tap.error is not None:
        return _NOTHING, "counted", ()
    if tap.usage is not None:
        return tap.usage, "engine", tap.usage.flags
    counted = tap.counted
    if counted is not None:
        return counted, "counted", counted.flags
    flags = tap.flags or (("usage_missing",) if outcome == "ok" else ())
    return (
        Usage(estimated_input_tokens, max(0, tap.frame_count - tap.lead_frames)),
        "counted",
        flags,
    )


def measure_plain(
    outcome: Outcome,
    reading: Reading | None,
    operation: Operation,
    *,
    estimated_input_tokens: int,
    answer_bytes: int,
    was_sent: bool,
) -> Measure:
    """Return what a request with a plain answer, or with none, consumed.

    Args:
        outcome: How it ended.
        reading: What a whole answer says; None when there is none.
        operation: What was asked for.
        estimated_input_tokens: From the size of the request, >= 0.
        answer_bytes: Size of what the engine answered.
        was_sent: Whether the engine got the request at all.
    """
    usage, flags = (None, ()) if reading is None else (reading.usage, reading.flags)
    if usage is not None:
        return usage, "engine", usage.flags
    if not operation.has_usage:
        return _NOTHING, "counted", flags
    if not was_sent or outcome not in _WORKED:
        return _NOTHING, "estimated", flags
    if outcome == "ok":
        flags = flags or ("usage_missing",)
    output_tokens = answer_bytes // BYTES_PER_TOKEN if operation.has_output else 0
    return Usage(estimated_input_tokens, output_tokens), "estimated", flags


def engines_names(
    tap: Tap | None, reading: Reading | None, header_id: bytes | None, own_id: str
) -> tuple[str, str]:
    """Return what the engine calls a request and its service tier, "" for what it did not say.

    Args:
        tap: Of a stream.
        reading: Of a whole plain answer.
        header_id: `x-request-id` of the answer, for want of a name in it.
        own_id: What we called the request: an engine that repeats it names nothing.
    """
    engines_id = tier = ""
    if reading is not None:
        engines_id, tier = reading.answer_id, reading.service_tier
    elif tap is not None:
        engines_id, tier = tap.read_names()
    if not engines_id and header_id is not None:
        engines_id = engine_word(header_id, own_id)
    return engines_id, tier
