"""OpenAI's usage object: what engines say that an answer consumed, made sane. Pure.

Engines lie (docs/adr/0004 and the hazards of metering): a figure that makes no sense is dropped or
cut, and flagged, never booked. Parts stand in several places, by engine.
"""

import math
from collections.abc import Iterable
from typing import Any

import msgspec

from penstock.gateway.limits import SANE_TOKENS


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Token counts of one answer, made sane."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int | None = None
    reasoning_output_tokens: int | None = None
    flags: tuple[str, ...] = ()
    cache_write_input_tokens: int | None = None
    audio_input_tokens: int | None = None
    audio_output_tokens: int | None = None
    audio_seconds: int = 0
    characters: int = 0
    images: int = 0


class _InputDetails(msgspec.Struct, frozen=True, gc=False):
    cached_tokens: int | None = None
    audio_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_creation_tokens: int | None = None
    created_cache_tokens: int | None = None


class _OutputDetails(msgspec.Struct, frozen=True, gc=False):
    reasoning_tokens: int | None = None
    audio_tokens: int | None = None


class WireUsage(msgspec.Struct, frozen=True, gc=False):
    """A usage object whose members have the types that they should have."""

    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    reasoning_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


_INPUT_PARTS = (
    ("cached", (("prompt_tokens_details", "cached_tokens"), ("", "cache_read_input_tokens"))),
    (
        "cache_write",
        (
            ("", "cache_creation_input_tokens"),
            ("prompt_tokens_details", "cache_write_tokens"),
            ("prompt_tokens_details", "cache_creation_tokens"),
            ("prompt_tokens_details", "created_cache_tokens"),
        ),
    ),
    ("audio_input", (("prompt_tokens_details", "audio_tokens"),)),
)
"""Where engines say what parts the input has; the first that is there counts."""
_OUTPUT_PARTS = (
    (
        "reasoning",
        (("completion_tokens_details", "reasoning_tokens"), ("", "reasoning_tokens")),
    ),
    ("audio_output", (("completion_tokens_details", "audio_tokens"),)),
)
_AUDIO = frozenset({"audio_input", "audio_output"})
"""Audio may be cached or thought, too, and is then in two parts of an honest engine."""


_decode_usage = msgspec.json.Decoder(WireUsage).decode


def read_usage(raw: bytes) -> tuple[Usage | None, tuple[str, ...]]:
    """Return the usage that a member of any shape tells, if any, and what is odd about it."""
    if raw == b"null":
        return None, ()
    try:
        return checked(_decode_usage(raw))
    except (msgspec.ValidationError, UnicodeDecodeError):
        pass
    try:
        return sane_usage(msgspec.json.decode(raw))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None, ("usage_not_a_number",)  # e.g. a number that no type holds


def checked(wire: WireUsage) -> tuple[Usage | None, tuple[str, ...]]:
    """Return the usage of a well-typed object, or hand it to the lenient reader when it is odd."""
    inputs, outputs = wire.prompt_tokens, wire.completion_tokens
    if (
        wire.prompt_tokens_details is None
        and wire.completion_tokens_details is None
        and wire.reasoning_tokens is None
        and wire.cache_creation_input_tokens is None
        and wire.cache_read_input_tokens is None
        and 0 <= inputs <= SANE_TOKENS
        and 0 <= outputs <= SANE_TOKENS
    ):
        return Usage(inputs, outputs), ()
    return _checked_parts(wire) or sane_usage(msgspec.to_builtins(wire))


def _checked_parts(wire: WireUsage) -> tuple[Usage, tuple[str, ...]] | None:
    """Return the usage of an object with parts as most engines say them, if it makes sense."""
    inputs, outputs = wire.prompt_tokens, wire.completion_tokens
    cached = audio_input = reasoning = audio_output = None
    details = wire.prompt_tokens_details
    if details is not None:
        cached, audio_input = details.cached_tokens, details.audio_tokens
        written = details.cache_write_tokens, details.cache_creation_tokens
        if written != (None, None) or details.created_cache_tokens is not None:
            return None
    if wire.completion_tokens_details is not None:
        reasoning = wire.completion_tokens_details.reasoning_tokens
        audio_output = wire.completion_tokens_details.audio_tokens
    if reasoning is None:
        reasoning = wire.reasoning_tokens
    if (
        wire.cache_creation_input_tokens is None
        and wire.cache_read_input_tokens is None
        and 0 <= inputs <= SANE_TOKENS
        and 0 <= outputs <= SANE_TOKENS
        and _fits(cached, audio_input, inputs)
        and _fits(reasoning, audio_output, outputs)
    ):
        usage = Usage(inputs, outputs, cached, reasoning, (), None, audio_input, audio_output)
        return usage, ()
    return None


def _fits(part: int | None, other: int | None, whole: int) -> bool:
    one, two = part or 0, other or 0
    return one >= 0 and two >= 0 and one + two <= whole


def sane_usage(loose: Any) -> tuple[Usage | None, tuple[str, ...]]:
    """Make sense of a usage object of any shape; see the module's docstring."""
    if loose is None:
        return None, ()
    if not isinstance(loose, dict):
        return None, ("usage_not_a_number",)
    flags: set[str] = set()
    # What only ranks or scores is often told as a total.
    inputs = _sane_count(loose.get("prompt_tokens", loose.get("total_tokens")), flags)
    outputs = _sane_count(loose.get("completion_tokens", 0), flags)
    if inputs is None or outputs is None:
        return None, tuple(sorted(flags or {"usage_not_a_number"}))
    parts = _sane_parts(loose, _INPUT_PARTS, inputs, flags)
    parts |= _sane_parts(loose, _OUTPUT_PARTS, outputs, flags)
    found = tuple(sorted(flags))
    usage = Usage(
        inputs,
        outputs,
        parts["cached"],
        parts["reasoning"],
        found,
        parts["cache_write"],
        parts["audio_input"],
        parts["audio_output"],
    )
    return usage, found


_Places = Iterable[tuple[str, Iterable[tuple[str, str]]]]


def _sane_parts(
    loose: dict[str, Any], places: _Places, whole: int, flags: set[str]
) -> dict[str, int | None]:
    """Return the parts of a whole; those behind another one get what is left of it."""
    found: dict[str, int | None] = {}
    left = whole
    for name, members in places:
        part = _first_count(loose, members, flags)
        if part is not None and part > left:
            if part > whole or name not in _AUDIO:
                flags.add("usage_inconsistent")
            part = left
        left -= part or 0
        found[name] = part
    return found


def _first_count(
    loose: dict[str, Any], members: Iterable[tuple[str, str]], flags: set[str]
) -> int | None:
    for group, name in members:
        details = loose.get(group) if group else loose
        if isinstance(details, dict) and details.get(name) is not None:
            count = _sane_count(details[name], flags)
            if count is not None:
                return count
    return None


def _sane_count(value: Any, flags: set[str]) -> int | None:
    """Return a token count, 0 for a negative one, None for what is no count; flag both."""
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        flags.add("usage_not_a_number")
        return None
    if value < 0:
        flags.add("usage_negative")
        return 0
    if value > SANE_TOKENS:
        flags.add("usage_absurd")
        return None
    return value
