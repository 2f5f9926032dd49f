"""Step 3, admit: what is asked for, whether this key may have it, and the body that is sent on.

The body is split into its top-level members and put together again: duplicate members are gone,
so that the engine reads exactly what was judged here. Members nobody here knows pass untouched.
"""

import logging
import re

import msgspec

from penstock.gateway.dialects.openai import Operation
from penstock.gateway.errors import (
    BODY_NOT_JSON,
    MEMBER_INVALID,
    MEMBER_MISSING,
    MISCONFIGURED,
    MODEL_NOT_FOUND,
)
from penstock.gateway.limits import CHOICES
from penstock.gateway.runtime import Principal, Runtime, Target
from penstock.kit.errors import Refusal
from penstock.kit.secrets import SecretUnavailableError

log = logging.getLogger(__name__)

Members = dict[str, msgspec.Raw]

_decode_members = msgspec.json.Decoder(Members).decode
_decode_int = msgspec.json.Decoder(int).decode
_encode = msgspec.json.Encoder().encode

_NOT_JSON = Refusal(BODY_NOT_JSON)
_NO_MODEL = Refusal(MEMBER_MISSING, "The member 'model' is missing.", "model")
_UNUSABLE = Refusal(MISCONFIGURED)
_UNKNOWN_MODEL = Refusal(MODEL_NOT_FOUND, param="model")
_INCLUDE_USAGE = msgspec.Raw(b'{"include_usage":true}')
_CONTINUOUS_USAGE = msgspec.Raw(b'{"include_usage":true,"continuous_usage_stats":true}')
_EMPTY = re.compile(rb'null|""|\[[ \t\r\n]*\]')
_BYTES_PER_TOKEN = 4


class Admission(msgspec.Struct, frozen=True):
    """A request that may be sent to an engine."""

    target: Target
    body: bytes
    is_stream: bool
    hides_usage: bool
    """The caller did not ask for the usage chunk that the engine is asked for."""
    strips_usage: bool
    """Nor for the usage in every chunk."""
    estimated_input_tokens: int


def admit(
    runtime: Runtime, principal: Principal, operation: Operation, body: bytes
) -> Admission | Refusal:
    """Decide whether a request may be sent, and to what.

    Reads no clock and waits for nothing; the snapshot's records are in memory.

    Args:
        runtime: What the worker serves from.
        principal: Who asks.
        operation: What for.
        body: The whole body.
    """
    members = _split(body)
    if isinstance(members, Refusal):
        return members
    target = _find_target(runtime, principal, members)
    if isinstance(target, Refusal):
        return target
    refusal = _check_question(members, operation) or _check_numbers(
        members, target.deployment.max_output_tokens
    )
    if refusal is not None:
        return refusal
    is_stream = _flag(members, "stream")
    if isinstance(is_stream, Refusal):
        return is_stream
    hides_usage = strips_usage = False
    if is_stream:
        if not operation.can_stream:
            return Refusal(MEMBER_INVALID, "This operation cannot stream.", "stream")
        asked = _ask_for_usage(members, is_continuous=target.deployment.continuous_usage)
        if isinstance(asked, Refusal):
            return asked
        hides_usage, strips_usage = asked
    elif "stream_options" in members:
        options = _stream_options(members["stream_options"])
        if isinstance(options, Refusal):
            return options
    members["model"] = target.model
    estimated = len(body) // _BYTES_PER_TOKEN
    return Admission(target, _encode(members), is_stream, hides_usage, strips_usage, estimated)


def _split(body: bytes) -> Members | Refusal:
    try:
        members = _decode_members(body)
        if not body.isascii():
            body.decode()  # the split does not look into strings
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return _NOT_JSON
    return members


def _find_target(runtime: Runtime, principal: Principal, members: Members) -> Target | Refusal:
    model = members.get("model")
    if model is None:
        return _NO_MODEL
    try:
        target = runtime.find_target(model)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Refusal(MEMBER_INVALID, "The member 'model' must be a string.", "model")
    except (SecretUnavailableError, OSError) as error:
        log.error("upstream unusable error=%s", error)  # noqa: TRY400 - no bug of ours
        return _UNUSABLE
    if target is None or (principal.aliases is not None and target.alias not in principal.aliases):
        return _UNKNOWN_MODEL
    return target


def _check_question(members: Members, operation: Operation) -> Refusal | None:
    """Refuse a question that is not there, empty, or of a type that no engine takes."""
    name = operation.input_member
    question = members.get(name)
    if question is not None:
        if operation.input_form.match(question) is not None:
            return None
        if _EMPTY.fullmatch(question) is None:
            message = f"The member '{name}' must be {operation.input_type}."
            return Refusal(MEMBER_INVALID, message, name)
    return Refusal(MEMBER_MISSING, f"The member '{name}' is missing or empty.", name)


def _check_numbers(members: Members, max_output_tokens: int) -> Refusal | None:
    for name in ("max_tokens", "max_completion_tokens", "n", "best_of"):
        raw = members.get(name)
        if raw is None or bytes(raw) == b"null":
            continue
        highest = max_output_tokens if name.startswith("max") else CHOICES
        try:
            value = _decode_int(raw)
        except msgspec.DecodeError:
            value = 0
        if not 1 <= value <= highest:
            message = f"The member '{name}' must be a whole number from 1 to {highest}."
            return Refusal(MEMBER_INVALID, message, name)
    return None


def _flag(members: Members, name: str) -> bool | Refusal:
    raw = members.get(name)
    if raw is None:
        return False
    match bytes(raw):
        case b"true":
            return True
        case b"false" | b"null":
            return False
        case _:
            return Refusal(MEMBER_INVALID, f"The member '{name}' must be true or false.", name)


def _ask_for_usage(members: Members, *, is_continuous: bool) -> tuple[bool, bool] | Refusal:
    """Make the engine report usage; return what of it the caller must not see."""
    raw = members.get("stream_options")
    if raw is None or bytes(raw) == b"null":
        members["stream_options"] = _CONTINUOUS_USAGE if is_continuous else _INCLUDE_USAGE
        return True, is_continuous
    options = _stream_options(raw)
    if isinstance(options, Refusal):
        return options
    wants_usage = _is_true(options, "include_usage")
    wants_continuous = _is_true(options, "continuous_usage_stats")
    options["include_usage"] = msgspec.Raw(b"true")
    if is_continuous:
        options["continuous_usage_stats"] = msgspec.Raw(b"true")
    members["stream_options"] = msgspec.Raw(_encode(options))
    return not wants_usage, is_continuous and not wants_continuous


def _stream_options(raw: msgspec.Raw) -> Members | Refusal:
    """Return the members of `stream_options`, the ones that we know checked."""
    if bytes(raw) == b"null":
        return {}
    try:
        options = _decode_members(raw)
    except (msgspec.DecodeError, RecursionError):
        message = "The member 'stream_options' must be an object."
        return Refusal(MEMBER_INVALID, message, "stream_options")
    for name in ("include_usage", "continuous_usage_stats"):
        flag = _flag(options, name)
        if isinstance(flag, Refusal):
            return flag
    return options


def _is_true(members: Members, name: str) -> bool:
    return bytes(members.get(name, b"")) == b"true"
