"""From what a caller asks for, and how the emulator is to behave, to the script of an answer."""

import array
import base64
import random
import sys
import zlib
from collections.abc import Iterator

import msgspec

from penstock.emulator.generation import Generation, Operation
from penstock.emulator.kinds import Kind, busy_answer, error_object, most_choices
from penstock.emulator.native import MESSAGES, STREAMS, NativeStream, messages_error
from penstock.emulator.script import Ending, Script, fixed_script, no_steps
from penstock.emulator.settings import Behavior
from penstock.emulator.streams import CHAT_ID, COMPLETION_ID, CREATED, Stream, drops
from penstock.emulator.text import answer_text
from penstock.emulator.usage import reports_usage, usage_object
from penstock.emulator.wire import STREAM_HEAD, encode_json, plain_head

_OVERLOADED = frozenset((429, 503, 529))
_PAGE = b"<!doctype html><title>Not what you asked for</title><p>This is no model server.</p>\n"
_HANGUPS = {"fin": Ending.FIN, "reset": Ending.RESET}


def error_script(
    kind: Kind, status: int, message: str, code: str | None = None, extra: tuple[bytes, ...] = ()
) -> Script:
    """Return a plain error answer of a kind of server; `extra` are further header lines."""
    body = encode_json(error_object(kind, status, message, code))
    return fixed_script(plain_head(status, len(body), extra=extra), body)


def compose(generation: Generation, behavior: Behavior, dimensions: int) -> Script:
    """Return the answer to a request.

    Args:
        generation: What is asked for.
        behavior: How to answer, faults included.
        dimensions: Length of embedding vectors where the request gives none.
    """
    most = most_choices(behavior.kind)
    if most is not None and generation.choices > most:
        generation = msgspec.structs.replace(generation, choices=most)
    match behavior.fault:
        case "status":
            return status_script(behavior, generation.operation)
        case "html":
            head = plain_head(behavior.status, len(_PAGE), b"text/html; charset=utf-8")
            return fixed_script(head, _PAGE, behavior.ttft_ms)
        case "empty":
            return fixed_script(plain_head(behavior.status, 0), b"", behavior.ttft_ms)
    cap = generation.max_output_tokens
    tokens = behavior.output_tokens if cap is None else min(behavior.output_tokens, cap)
    input_tokens = generation.input_tokens if behavior.input_tokens < 0 else behavior.input_tokens
    if generation.operation == "count_tokens":
        return plain_script(encode_json({"input_tokens": input_tokens}), behavior, 0.0)
    stream = STREAMS.get(generation.operation, Stream)(
        generation=generation,
        behavior=behavior,
        input_tokens=input_tokens,
        output_tokens=tokens,
        finish_reason="stop" if tokens == behavior.output_tokens else "length",
    )
    if generation.is_stream:
        return _stream_script(stream)
    if generation.operation == "embeddings":
        body = _embeddings(generation, behavior, input_tokens, dimensions)
        return plain_script(body, behavior, behavior.ttft_ms)
    time_ms = behavior.ttft_ms + behavior.itl_ms * max(tokens - 1, 0)
    body = stream.answer() if isinstance(stream, NativeStream) else _completion(stream)
    return plain_script(body, behavior, time_ms)


def status_script(behavior: Behavior, operation: Operation = "chat") -> Script:
    """Return the answer of a server that fails, or has no room."""
    status, words = busy_answer(behavior.kind)
    if behavior.status not in (200, status):
        status, words = behavior.status, "emulated engine failure"
    extra: tuple[bytes, ...] = ()
    if status in _OVERLOADED and behavior.retry_after_s >= 0:
        extra = (b"retry-after: %d" % behavior.retry_after_s,)
    error = error_object(behavior.kind, status, words)
    if operation in MESSAGES:
        error = messages_error(status, words)
    body = encode_json(error)
    return fixed_script(plain_head(status, len(body), extra=extra), body, behavior.ttft_ms)


def _stream_script(stream: Stream) -> Script:
    behavior = stream.behavior
    is_cut = behavior.fault in ("disconnect", "truncate", "stall") and stream.reaches_fault()
    ending = Ending.KEEP
    if is_cut:
        ending = Ending.STALL if behavior.fault == "stall" else _HANGUPS[behavior.hangup]
    is_silent = is_cut and behavior.fault_after == 0 and behavior.fault != "truncate"
    is_slow = behavior.fault == "slow"
    return Script(
        head=b"" if is_silent else STREAM_HEAD,
        steps=stream.dripping_steps if is_slow else stream.steps,
        first_ms=behavior.ttft_ms,
        interval_ms=behavior.drip_ms if is_slow else behavior.itl_ms,
        ending=ending,
        is_stream=True,
    )


def plain_script(body: bytes, behavior: Behavior, time_ms: float) -> Script:
    """Return a plain answer, faults included."""
    fault = behavior.fault
    if fault == "error_in_200":
        body = encode_json(error_object(behavior.kind, 500, "emulated engine failure"))
    elif fault == "malformed":
        body = body[: len(body) // 2]
    head = plain_head(200, len(body))
    if fault in ("disconnect", "stall") and behavior.fault_after == 0:
        head, steps = b"", no_steps
    elif fault == "slow":

        def steps() -> Iterator[bytes]:
            return drops(body, behavior.drip_bytes)

    elif fault in ("disconnect", "stall", "truncate"):

        def steps() -> Iterator[bytes]:
            return iter((body[: len(body) // 2],))

    else:
        return fixed_script(head, body, time_ms)
    ending = Ending.KEEP
    if fault == "stall":
        ending = Ending.STALL
    elif fault != "slow":
        ending = _HANGUPS[behavior.hangup]
    return Script(
        head=head,
        steps=steps,
        first_ms=time_ms,
        interval_ms=behavior.drip_ms if fault == "slow" else 0.0,
        ending=ending,
    )


def _completion(stream: Stream) -> bytes:
    generation = stream.generation
    text = answer_text(stream.output_tokens)
    is_chat = generation.operation == "chat"
    said: dict[str, object] = (
        {"message": {"role": "assistant", "content": text}} if is_chat else {"text": text}
    )
    answer: dict[str, object] = {
        "id": CHAT_ID if is_chat else COMPLETION_ID,
        "object": "chat.completion" if is_chat else "text_completion",
        "created": CREATED,
        "model": generation.model,
        "choices": [
            {"index": choice, **said, "logprobs": None, "finish_reason": stream.finish_reason}
            for choice in range(generation.choices)
        ],
    }
    if reports_usage(stream.behavior.usage, is_asked=True):
        total = stream.output_tokens * generation.choices
        answer["usage"] = usage_object(stream.behavior, stream.input_tokens, total)
    return encode_json(answer)


def _embeddings(
    generation: Generation, behavior: Behavior, input_tokens: int, dimensions: int
) -> bytes:
    length = generation.dimensions or dimensions
    data = []
    for index, text in enumerate(generation.inputs):
        vector = _vector(text, length)
        value = _pack(vector) if generation.is_base64 else vector.tolist()
        data.append({"object": "embedding", "index": index, "embedding": value})
    answer: dict[str, object] = {"object": "list", "data": data, "model": generation.model}
    if reports_usage(behavior.usage, is_asked=True):
        answer["usage"] = usage_object(behavior, input_tokens, None)
    return encode_json(answer)


def _vector(text: str, length: int) -> "array.array[float]":
    """Return numbers in [-1, 1) that depend on the text alone."""
    numbers = random.Random(zlib.crc32(text.encode("utf-8", "surrogatepass")))  # noqa: S311
    return array.array("f", (round(numbers.uniform(-1, 1), 4) for _ in range(length)))


def _pack(vector: "array.array[float]") -> str:
    if sys.byteorder == "big":
        vector.byteswap()
    return base64.b64encode(vector.tobytes()).decode()
