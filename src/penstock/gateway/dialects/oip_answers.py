"""What answers of the Open Inference Protocol say: token counts, errors, how much text. Pure.

TensorRT-LLM's and vLLM's backends can put the outputs `num_input_tokens` and `num_output_tokens`
into each answer, where they are asked for: those of an answer's own part, so that the second are
added up over a stream and the first are not.
"""

from typing import Final

import msgspec

from penstock.gateway.dialects.members import Members
from penstock.gateway.dialects.oip_tensors import (
    Tensor,
    flat_integers,
    read_outputs,
    text_bytes,
)
from penstock.gateway.dialects.openai import Reading
from penstock.gateway.dialects.openai_usage import Usage
from penstock.gateway.limits import SANE_TOKENS

INPUT_TOKENS: Final = "num_input_tokens"
OUTPUT_TOKENS: Final = "num_output_tokens"
_NULL: Final = b"null"
_encode = msgspec.json.Encoder().encode
_decode_members = msgspec.json.Decoder(Members).decode


def read_infer_answer(body: bytes, length: bytes | None) -> Reading:
    """Read counts and error out of an answer to `infer`.

    Args:
        body: The whole.
        length: How much of it is JSON, as its header says; None when all is.

    Raises:
        msgspec.DecodeError: Not JSON of that kind.
    """
    size = len(body) if length is None else _size(length)
    head, tail = body[:size], body[size:]
    try:
        outputs, error = read_outputs(head, len(tail))
    except KeyError:
        raise msgspec.DecodeError from None
    return reading_of(outputs, tail, _present(error))


def reading_of(outputs: list[Tensor], tail: bytes, error: bytes | None = None) -> Reading:
    """Return what the outputs of an answer say.

    Args:
        outputs: All of them.
        tail: Bytes in which their data lie.
        error: What the answer says instead, as JSON.
    """
    usage, flags = usage_of(_sum(outputs, INPUT_TOKENS, tail), _sum(outputs, OUTPUT_TOKENS, tail))
    return Reading(usage, error, flags=flags, text_bytes=text_bytes(outputs))


def read_generated(body: bytes) -> Reading:
    """Read counts and error out of an answer to `generate`, or out of one event of its stream.

    Raises:
        msgspec.DecodeError: Not a JSON object.
    """
    members = _decode_members(body)
    counts = [
        sum(flat_integers(members[name])) if name in members else None
        for name in (INPUT_TOKENS, OUTPUT_TOKENS)
    ]
    usage, flags = usage_of(*counts)
    text = len(bytes(members.get("text_output", b"")))
    return Reading(usage, _present(members.get("error")), flags=flags, text_bytes=text)


def named(body: bytes, alias: str) -> bytes:
    """Return a model's metadata under the name by which it was asked for.

    Raises:
        msgspec.DecodeError: Not a JSON object.
    """
    members = _decode_members(body)
    members["name"] = msgspec.Raw(_encode(alias))
    return _encode(members)


def usage_of(inputs: int | None, outputs: int | None) -> tuple[Usage | None, tuple[str, ...]]:
    """Return usage out of both counts, made sane, and what was odd."""
    if inputs is None or outputs is None:
        return None, ()
    if max(inputs, outputs) > SANE_TOKENS:
        return None, ("usage_absurd",)
    flags = ("usage_negative",) if min(inputs, outputs) < 0 else ()
    return Usage(max(inputs, 0), max(outputs, 0), flags=flags), flags


def _sum(outputs: list[Tensor], name: str, tail: bytes) -> int | None:
    counts = [sum(output.integers(tail)) for output in outputs if output.name == name]
    return counts[0] if counts else None


def _size(length: bytes) -> int:
    if not length.isdigit() or len(length) > 10:  # noqa: PLR2004 - more than any answer has
        raise msgspec.DecodeError
    return int(length)


def _present(raw: msgspec.Raw | None) -> bytes | None:
    return None if raw is None or bytes(raw) == _NULL else bytes(raw)
