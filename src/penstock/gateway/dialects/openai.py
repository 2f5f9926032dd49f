"""OpenAI's dialect: operations, usage objects, error bodies.

Shapes are OpenAI's public API reference; what engines really send is read leniently, since
engines lie (docs/adr/0004 and the hazards of metering): a figure that makes no sense is dropped
and flagged, never booked.
"""

import math
import re
from typing import Any

import msgspec

from penstock.gateway.limits import SANE_TOKENS
from penstock.kit.errors import Refusal


class Operation(msgspec.Struct, frozen=True):
    """One operation that is relayed to an engine."""

    name: str
    path: str
    input_member: str
    """The member that holds the question: it must be there."""
    input_form: re.Pattern[bytes]
    """How its JSON begins when it is of the right type and not empty."""
    input_type: str
    """That type, for people."""
    can_stream: bool
    has_output: bool = True
    """Whether it is answered with tokens."""


_LIST = rb"\[[ \t\r\n]*[^\] \t\r\n]"
_IS_LIST = re.compile(_LIST)
_IS_TEXT_OR_LIST = re.compile(rb'"[^"]|' + _LIST)

CHAT = Operation("chat", "/v1/chat/completions", "messages", _IS_LIST, "a list", can_stream=True)
COMPLETIONS = Operation(
    "completions", "/v1/completions", "prompt", _IS_TEXT_OR_LIST, "text or a list", can_stream=True
)
EMBEDDINGS = Operation(
    "embeddings",
    "/v1/embeddings",
    "input",
    _IS_TEXT_OR_LIST,
    "text or a list",
    can_stream=False,
    has_output=False,
)
CAP_MEMBERS = ("max_tokens", "max_completion_tokens")
"""Members that name the most output tokens. The first one is understood by all engines."""
UNKNOWN_CAPS = frozenset({"n_predict", "max_new_tokens", "num_predict", "n_cmpl"})
"""Members by which single engines let the output be longer than `CAP_MEMBERS` say, or more."""
OPERATIONS = {operation.path.encode(): operation for operation in (CHAT, COMPLETIONS, EMBEDDINGS)}


class Usage(msgspec.Struct, frozen=True):
    """Token counts of one answer, made sane."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int | None = None
    reasoning_output_tokens: int | None = None
    flags: tuple[str, ...] = ()


_NULL = b"null"
_NULL_RAW = msgspec.Raw(_NULL)
"""What an absent member reads as: msgspec cannot say "raw or absent" otherwise."""


class _InputDetails(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None


class _OutputDetails(msgspec.Struct, frozen=True):
    reasoning_tokens: int | None = None


class _WireUsage(msgspec.Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    reasoning_tokens: int | None = None


class _Answer(msgspec.Struct, frozen=True):
    usage: _WireUsage | None = None
    error: msgspec.Raw = _NULL_RAW


class _LooseAnswer(msgspec.Struct, frozen=True):
    usage: msgspec.Raw = _NULL_RAW
    error: msgspec.Raw = _NULL_RAW


class _Chunk(msgspec.Struct, frozen=True):
    usage: msgspec.Raw = _NULL_RAW
    error: msgspec.Raw = _NULL_RAW
    choices: msgspec.Raw = _NULL_RAW


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_loose = msgspec.json.Decoder(_LooseAnswer).decode
_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode_usage = msgspec.json.Decoder(_WireUsage).decode
_encode = msgspec.json.Encoder().encode


class Reading(msgspec.Struct, frozen=True):
    """What an answer, or one chunk of a stream, says about itself."""

    usage: Usage | None
    error: bytes | None
    """The raw `error` member, when it is there and not null."""
    has_choices: bool = True
    """Whether a chunk carries any choice: a bare usage chunk does not."""
    flags: tuple[str, ...] = ()
    """What was odd when `usage` is None though the engine sent one."""


def read_answer(body: bytes) -> Reading:
    """Read usage and error out of a plain answer.

    Args:
        body: The whole body.

    Raises:
        msgspec.DecodeError: Not a JSON object.
    """
    try:
        answer = _decode_answer(body)
    except msgspec.ValidationError:
        loose = _decode_loose(body)
        usage, flags = _read_usage(bytes(loose.usage))
        return Reading(usage, _present(loose.error), flags=flags)
    if answer.usage is None:
        return Reading(None, _present(answer.error))
    usage, flags = _checked(answer.usage)
    return Reading(usage, _present(answer.error), flags=flags)


def read_chunk(payload: bytes) -> Reading | None:
    """Read usage, error and presence of choices out of one event of a stream.

    Returns:
        None when the payload is no JSON object: it is then relayed as it is.
    """
    try:
        chunk = _decode_chunk(payload)
    except (msgspec.DecodeError, RecursionError):
        return None
    usage, flags = _read_usage(bytes(chunk.usage))
    choices = bytes(chunk.choices)
    is_empty = choices.startswith(b"[") and not choices[1:-1].strip()
    return Reading(usage, _present(chunk.error), not is_empty, flags)


def _read_usage(raw: bytes) -> tuple[Usage | None, tuple[str, ...]]:
    if raw == _NULL:
        return None, ()
    try:
        return _checked(_decode_usage(raw))
    except (msgspec.ValidationError, UnicodeDecodeError):
        pass
    try:
        return _sane_usage(msgspec.json.decode(raw))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None, ("usage_not_a_number",)  # e.g. a number that no type holds


def _present(raw: msgspec.Raw) -> bytes | None:
    content = bytes(raw)
    return None if content == _NULL else content


def _checked(wire: _WireUsage) -> tuple[Usage | None, tuple[str, ...]]:
    """Return the usage of a well-typed object, or hand it to the lenient reader when it is odd."""
    inputs, outputs = wire.prompt_tokens, wire.completion_tokens
    cached = wire.prompt_tokens_details.cached_tokens if wire.prompt_tokens_details else None
    reasoning = wire.reasoning_tokens
    if (
        wire.completion_tokens_details
        and wire.completion_tokens_details.reasoning_tokens is not None
    ):
        reasoning = wire.completion_tokens_details.reasoning_tokens
    if (
        0 <= inputs <= SANE_TOKENS
        and 0 <= outputs <= SANE_TOKENS
        and (cached is None or 0 <= cached <= inputs)
        and (reasoning is None or 0 <= reasoning <= outputs)
    ):
        return Usage(inputs, outputs, cached, reasoning), ()
    return _sane_usage(msgspec.to_builtins(wire))


def _sane_usage(loose: Any) -> tuple[Usage | None, tuple[str, ...]]:
    """Make sense of a usage object of any shape; see the module's docstring."""
    if loose is None:
        return None, ()
    if not isinstance(loose, dict):
        return None, ("usage_not_a_number",)
    flags: set[str] = set()
    inputs = _sane_count(loose.get("prompt_tokens"), flags)
    outputs = _sane_count(loose.get("completion_tokens", 0), flags)
    if inputs is None or outputs is None:
        return None, tuple(sorted(flags or {"usage_not_a_number"}))
    cached = _detail(loose, "prompt_tokens_details", "cached_tokens", flags)
    reasoning = _detail(loose, "completion_tokens_details", "reasoning_tokens", flags)
    if reasoning is None and loose.get("reasoning_tokens") is not None:
        reasoning = _sane_count(loose["reasoning_tokens"], flags)
    if cached is not None and cached > inputs:
        cached = inputs
        flags.add("usage_inconsistent")
    if reasoning is not None and reasoning > outputs:
        reasoning = outputs
        flags.add("usage_inconsistent")
    found = tuple(sorted(flags))
    return Usage(inputs, outputs, cached, reasoning, found), found


def _detail(loose: dict[str, Any], group: str, name: str, flags: set[str]) -> int | None:
    details = loose.get(group)
    if not isinstance(details, dict) or details.get(name) is None:
        return None
    return _sane_count(details[name], flags)


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


def error_body(refusal: Refusal) -> bytes:
    """Return the error object that OpenAI's SDKs raise their typed errors from.

    `error.code` is the conventional one; ours is `error.penstock_code`.
    """
    error = refusal.error
    return _encode(
        {
            "error": {
                "message": refusal.message,
                "type": error.conventional_type,
                "param": refusal.param,
                "code": error.conventional_code,
                "penstock_code": error.code,
            }
        }
    )


_LIMIT_NAMES = (b"requests", b"input-tokens", b"output-tokens", b"tokens")


def limit_form(metric: int, limit: int, reset_s: int) -> bytes:
    """Return the header lines that tell callers of a limit; `%d` stands for what remains.

    Args:
        metric: Place of its metric in `penstock.limits.allowances.METRICS`; not concurrency.
        limit: What may be used.
        reset_s: After how many seconds all of it is free if nothing more is used.
    """
    name = _LIMIT_NAMES[metric]
    return (
        b"x-ratelimit-limit-%b: %d\r\nx-ratelimit-remaining-%b: %%d\r\n"
        b"x-ratelimit-reset-%b: %ds\r\n" % (name, limit, name, name, reset_s)
    )


def error_event(refusal: Refusal) -> bytes:
    """Return the event that ends a stream which cannot go on."""
    return b"data: " + error_body(refusal) + b"\n\n"


def error_text(raw: bytes) -> str:
    """Return the words of an engine's error, whatever its shape, cut to 1,000 characters.

    Handles `{"error": {"message"}}`, `{"message"}`, `{"error": "text"}`, `{"detail"}` and text.
    """
    try:
        found: Any = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return ""
    for name in ("error", "message", "detail"):
        if isinstance(found, dict) and found.get(name):
            found = found[name]
    if isinstance(found, dict):
        found = found.get("message")
    return found[:1000] if isinstance(found, str) else ""


def error_status(raw: bytes) -> int | None:
    """Return the HTTP status that an engine's error object carries as an integer, if any."""
    try:
        found: Any = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    if isinstance(found, dict) and isinstance(found.get("error"), dict):
        found = found["error"]
    code = found.get("code") if isinstance(found, dict) else None
    return code if isinstance(code, int) and 400 <= code <= 599 else None  # noqa: PLR2004 - HTTP
