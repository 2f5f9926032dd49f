"""OpenAI's dialect: operations, usage objects, error bodies.

Shapes are OpenAI's public API reference; what engines really send is read leniently.
"""

import re
from typing import Any

import msgspec

from penstock.gateway.dialects.openai_usage import Usage, WireUsage, checked, read_usage
from penstock.gateway.limits import ANSWER_ID_CHARS, SERVICE_TIER_CHARS
from penstock.kit.errors import Refusal


class Operation(msgspec.Struct, frozen=True):
    """One operation that is relayed to an engine."""

    name: str
    path: str
    """Ours; engines may have it elsewhere, see `engines.model.Engine.paths`."""
    input_member: str = ""
    """The member that holds the question: it must be there. "" where engines name it in ways of
    their own, and judge it."""
    input_form: re.Pattern[bytes] | None = None
    """How its JSON begins when it is of the right type and not empty."""
    input_type: str = ""
    """That type, for people."""
    can_stream: bool = False
    has_output: bool = False
    """Whether it is answered with tokens."""
    has_usage: bool = True
    """Whether the model reads its input: else it consumes no tokens."""
    is_form: bool = False
    """Whether its body is `multipart/form-data` instead of JSON."""
    is_media: bool = False
    """Whether sound or images are asked for or sent: no member names the most output tokens."""
    is_native: bool = False
    """Whether it is Anthropic's, or OpenAI's Responses: only engines that speak that are asked."""
    cap_member: str = ""
    """The one member that names the most output tokens; "" where they are `CAP_MEMBERS`."""
    needs_cap: bool = False
    """Whether that must be there."""
    lead_member: str = ""
    """The member with instructions that templates put before the question, if there is one."""


LIST = rb"\[[ \t\r\n]*[^\] \t\r\n]"
IS_LIST = re.compile(LIST)
_IS_TEXT = re.compile(rb'"[^"]')
IS_TEXT_OR_LIST = re.compile(rb'"[^"]|' + LIST)

CHAT = Operation(
    "chat", "/v1/chat/completions", "messages", IS_LIST, "a list", can_stream=True, has_output=True
)
COMPLETIONS = Operation(
    "completions",
    "/v1/completions",
    "prompt",
    IS_TEXT_OR_LIST,
    "text or a list",
    can_stream=True,
    has_output=True,
)
EMBEDDINGS = Operation("embeddings", "/v1/embeddings", "input", IS_TEXT_OR_LIST, "text or a list")
CLASSIFY = Operation("classify", "/v1/classify", "input", IS_TEXT_OR_LIST, "text or a list")
RERANK = Operation("rerank", "/v1/rerank", "documents", IS_LIST, "a list")
SCORE = Operation("score", "/v1/score")
TOKENIZE = Operation("tokenize", "/v1/tokenize", has_usage=False)
DETOKENIZE = Operation("detokenize", "/v1/detokenize", "tokens", IS_LIST, "a list", has_usage=False)
TRANSCRIPTIONS = Operation(
    "transcriptions", "/v1/audio/transcriptions", has_output=True, is_form=True, is_media=True
)
TRANSLATIONS = Operation(
    "translations", "/v1/audio/translations", has_output=True, is_form=True, is_media=True
)
SPEECH = Operation(
    "speech", "/v1/audio/speech", "input", _IS_TEXT, "text", has_output=True, is_media=True
)
IMAGES = Operation(
    "images", "/v1/images/generations", "prompt", _IS_TEXT, "text", has_output=True, is_media=True
)
CAP_MEMBERS = ("max_tokens", "max_completion_tokens")
"""Members that name the most output tokens. The first one is understood by all engines."""
UNKNOWN_CAPS = frozenset({"n_predict", "max_new_tokens", "num_predict", "n_cmpl"})
"""Members by which single engines let the output be longer than `CAP_MEMBERS` say, or more."""
OPERATIONS = {
    operation.path.encode(): operation
    for operation in (
        CHAT,
        COMPLETIONS,
        EMBEDDINGS,
        CLASSIFY,
        RERANK,
        SCORE,
        TOKENIZE,
        DETOKENIZE,
        TRANSCRIPTIONS,
        TRANSLATIONS,
        SPEECH,
        IMAGES,
    )
}


_NULL = b"null"
_NULL_RAW = msgspec.Raw(_NULL)
"""What an absent member reads as: msgspec cannot say "raw or absent" otherwise."""


class _Answer(msgspec.Struct, frozen=True, gc=False):
    usage: WireUsage | None = None
    error: msgspec.Raw = _NULL_RAW
    id: str | None = None
    service_tier: str | None = None


class _LooseAnswer(msgspec.Struct, frozen=True):
    usage: msgspec.Raw = _NULL_RAW
    error: msgspec.Raw = _NULL_RAW
    id: msgspec.Raw = _NULL_RAW
    service_tier: msgspec.Raw = _NULL_RAW


class _Chunk(msgspec.Struct, frozen=True, gc=False):
    usage: msgspec.Raw = _NULL_RAW
    error: msgspec.Raw = _NULL_RAW
    choices: msgspec.Raw = _NULL_RAW
    id: msgspec.Raw = _NULL_RAW
    service_tier: msgspec.Raw = _NULL_RAW


class _FlatError(msgspec.Struct, frozen=True, gc=False):
    message: str | None = None
    object: str | None = None
    code: int | None = None


_ERRORS_FROM = 400
_decode_flat = msgspec.json.Decoder(_FlatError).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_loose = msgspec.json.Decoder(_LooseAnswer).decode
_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode_text = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode


class Reading(msgspec.Struct, frozen=True, gc=False):
    """What an answer, or one chunk of a stream, says about itself."""

    usage: Usage | None
    error: bytes | None
    """The raw `error` member, when it is there and not null; all of it where all is an error."""
    has_choices: bool = True
    """Whether a chunk carries any choice: a bare usage chunk does not."""
    flags: tuple[str, ...] = ()
    """What was odd when `usage` is None though the engine sent one."""
    answer_id: str = ""
    """The engine's own name of the request."""
    service_tier: str = ""
    text_bytes: int | None = None
    """How much of an answer is text, where that is not all of it."""


def read_answer(body: bytes) -> Reading:
    """Read usage and error out of a plain answer.

    Args:
        body: The whole body.

    Raises:
        msgspec.DecodeError: Not a JSON object.
    """
    try:
        answer = _decode_answer(body)
    except (msgspec.ValidationError, UnicodeDecodeError):
        loose = _decode_loose(body)
        usage, flags = read_usage(bytes(loose.usage))
        return Reading(
            usage,
            _present(loose.error) or flat_error(body),
            flags=flags,
            answer_id=as_word(_text(loose.id), ANSWER_ID_CHARS),
            service_tier=as_word(_text(loose.service_tier), SERVICE_TIER_CHARS),
        )
    usage, flags, error = None, (), _present(answer.error)
    if answer.usage is not None:
        usage, flags = checked(answer.usage)
    else:
        error = error or flat_error(body)
    return Reading(
        usage,
        error,
        True,  # noqa: FBT003 - by place, which is quicker
        flags,
        "" if answer.id is None else as_word(answer.id, ANSWER_ID_CHARS),
        "" if answer.service_tier is None else as_word(answer.service_tier, SERVICE_TIER_CHARS),
    )


def read_chunk(payload: bytes) -> Reading | None:
    """Read usage, error and presence of choices out of one event of a stream.

    Returns:
        None when the payload is no JSON object: it is then relayed as it is.
    """
    try:
        chunk = _decode_chunk(payload)
    except (msgspec.DecodeError, RecursionError):
        return None
    usage, flags = read_usage(bytes(chunk.usage))
    choices = bytes(chunk.choices)
    is_empty = choices.startswith(b"[") and not choices[1:-1].strip()
    error = _present(chunk.error)
    if error is None and choices == _NULL:
        error = flat_error(payload)
    return Reading(
        usage,
        error,
        not is_empty,
        flags,
        as_word(_text(chunk.id), ANSWER_ID_CHARS),
        as_word(_text(chunk.service_tier), SERVICE_TIER_CHARS),
    )


def _text(raw: msgspec.Raw) -> str | None:
    """Return a member that is text, or None."""
    content = bytes(raw)
    if not content.startswith(b'"'):
        return None
    try:
        return _decode_text(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def engine_word(value: bytes, own: str) -> str:
    """Return the engine's name of a request out of its header, or "" when it only repeats ours.

    Args:
        value: Of the field.
        own: What we called the request.
    """
    word = as_word(value.decode("latin-1"), ANSWER_ID_CHARS)
    return "" if word == own else word


def as_word(text: str | None, most_chars: int) -> str:
    """Return a word of an engine as it may stand in records, or "" when it is none."""
    if text and len(text) <= most_chars and text.isascii() and text.isprintable():
        return text
    return ""


def flat_error(content: bytes) -> bytes | None:
    """Return an object that is an error as a whole, as SGLang, TensorRT-LLM and Dynamo write it."""
    try:
        found = _decode_flat(content)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    says_so = found.object == "error" or (found.code is not None and found.code >= _ERRORS_FROM)
    return content if says_so and found.message is not None else None


def _present(raw: msgspec.Raw) -> bytes | None:
    content = bytes(raw)
    return None if content == _NULL else content


def error_body(refusal: Refusal) -> bytes:
    """Return the error object that OpenAI's SDKs raise their typed errors from, as JSON."""
    return _encode(error_members(refusal))


def error_members(refusal: Refusal) -> dict[str, Any]:
    """Return the members of the object that holds an error.

    `error.code` is the conventional one; ours is `error.penstock_code`.
    """
    error = refusal.error
    return {
        "error": {
            "message": refusal.message,
            "type": error.conventional_type,
            "param": refusal.param,
            "code": error.conventional_code,
            "penstock_code": error.code,
        }
    }


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
