"""OpenAI's completions and chats, asked of a text model by Triton's `generate`. Pure but for ids.

For TensorRT-LLM ensembles, and whatever takes `text_input` and answers `text_output`. What cannot
be said so is refused before anything is sent, rather than left out.

A chat becomes one text: a line `role: text` for each message, and `assistant:` at the end. Models
that were trained on a template of their own are better asked for completions, with that template.
"""

import time
from typing import Any, Final, Literal
from uuid import uuid4

import msgspec

from penstock.gateway.dialects.errors import OPERATION_UNSUPPORTED
from penstock.gateway.dialects.members import Members
from penstock.gateway.dialects.oip_answers import read_generated
from penstock.gateway.dialects.openai import CHAT, COMPLETIONS, Operation, Reading
from penstock.gateway.dialects.openai_usage import Usage
from penstock.gateway.limits import BYTES_PER_TOKEN, TRANSLATED_OUTPUT_TOKENS
from penstock.kit.errors import Refusal

DONE: Final = b"data: [DONE]\n\n"
_SAME_NAMES: Final = (
    "temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty",
    "repetition_penalty", "min_tokens",
)  # fmt: skip
_UNSAYABLE: Final = frozenset(
    {
        "tools", "functions", "logprobs", "top_logprobs", "echo", "suffix", "logit_bias",
        "response_format", "modalities", "audio", "prompt_logprobs",
    }
)  # fmt: skip
"""Members that change the answer and have no place there."""
_NOTHING: Final = frozenset({b"null", b"false", b"[]", b"{}", b"0", b'""', b'{"type":"text"}'})
_ONE: Final = frozenset({b"1", b"null"})

_decode = msgspec.json.decode
_encode = msgspec.json.Encoder().encode


class _Part(msgspec.Struct):
    type: Literal["text"]
    text: str


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part]


def check_sayable(members: Members, operation: Operation) -> Refusal | None:
    """Return why a request cannot be put to a text model, if so.

    Args:
        members: Of its body, as OpenAI has them.
        operation: What for.
    """
    if operation not in {CHAT, COMPLETIONS}:
        return Refusal(OPERATION_UNSUPPORTED)
    for name in _UNSAYABLE.intersection(members):
        if bytes(members[name]).replace(b" ", b"") not in _NOTHING:
            return _refuse(name)
    for name in ("n", "best_of"):
        if bytes(members.get(name, b"1")) not in _ONE:
            return _refuse(name)
    try:
        _decode(members.get("stop", b"null"), type=str | list[str] | None)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _refuse("stop")
    if operation is COMPLETIONS:
        return None if bytes(members["prompt"]).startswith(b'"') else _refuse("prompt")
    try:
        _decode(members["messages"], type=list[_Message])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _refuse("messages")
    return None


def generate_body(body: bytes, operation: Operation, *, is_stream: bool, most: int) -> bytes:
    """Return what is sent for a request.

    Args:
        body: As OpenAI has it, judged by `check_sayable`.
        operation: What for.
        is_stream: Whether the answer is wanted in parts.
        most: Output tokens that it may have, of `most_tokens`.
    """
    members = _decode(body, type=Members)
    sent: dict[str, Any] = {
        "text_input": _prompt(members, operation),
        "max_tokens": most,
        "stream": is_stream,
        "exclude_input_in_output": True,
        "return_num_input_tokens": True,
        "return_num_output_tokens": True,
    }
    for name in _SAME_NAMES:
        if bytes(members.get(name, b"null")) != b"null":
            sent[name] = members[name]
    stop = _decode(members.get("stop", b"null"))
    if stop:
        sent["stop_words"] = [stop] if isinstance(stop, str) else stop
    return _encode(sent)


def most_tokens(body: bytes, cap: int | None, most: int) -> int:
    """Return the output tokens that a request may have.

    Args:
        body: As OpenAI has it.
        cap: What a budget pays for; None without one.
        most: What the deployment gives.
    """
    members = _decode(body, type=Members)
    named = [
        int(bytes(members[name]))
        for name in ("max_completion_tokens", "max_tokens")
        if bytes(members.get(name, b"null")) != b"null"
    ]
    return min([*(named or [TRANSLATED_OUTPUT_TOKENS]), most, *([] if cap is None else [cap])])


def _prompt(members: Members, operation: Operation) -> str | msgspec.Raw:
    if operation is COMPLETIONS:
        return members["prompt"]
    lines = [
        f"{message.role}: {_text(message.content)}\n"
        for message in _decode(members["messages"], type=list[_Message])
    ]
    return "".join([*lines, "assistant:"])


def _text(content: str | list[_Part]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


def _refuse(name: str) -> Refusal:
    message = f"The member '{name}' cannot be put to this model as it is."
    return Refusal(OPERATION_UNSUPPORTED, message, name)


class Voice:
    """Says answers as OpenAI does, of one request.

    Args:
        operation: What was asked for.
        model: By which name.
        most: Output tokens that it may have.
    """

    def __init__(self, operation: Operation, model: str, most: int) -> None:
        """See the class."""
        self._most = most
        self._is_chat = operation is CHAT
        self._head: dict[str, Any] = {
            "id": ("chatcmpl-" if self._is_chat else "cmpl-") + uuid4().hex,
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, text: str, usage: Usage, *, is_estimated: bool) -> bytes:
        """Return a whole answer."""
        said: dict[str, Any] = {"text": text}
        if self._is_chat:
            self._head["object"] = "chat.completion"
            said = {"message": {"role": "assistant", "content": text}}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": self._reason(usage)}
        told = _usage_object(usage, is_estimated=is_estimated)
        return _encode({**self._head, "choices": [choice], "usage": told})

    def part(self, text: str, *, is_first: bool) -> bytes:
        """Return the event of a part of an answer."""
        if not self._is_chat:
            return self._event({"text": text}, None)
        first = self._event({"delta": {"role": "assistant", "content": ""}}, None)
        return (first if is_first else b"") + self._event({"delta": {"content": text}}, None)

    def end(self, usage: Usage, *, is_estimated: bool, tells_usage: bool) -> bytes:
        """Return the last events of a stream, with its usage where that is wanted."""
        said: dict[str, Any] = {"delta": {}} if self._is_chat else {"text": ""}
        last = self._event(said, self._reason(usage))
        if tells_usage:
            told = _usage_object(usage, is_estimated=is_estimated)
            last += b"data: " + _encode({**self._chunk(), "choices": [], "usage": told}) + b"\n\n"
        return last + DONE

    def _reason(self, usage: Usage) -> str:
        return "length" if usage.output_tokens >= self._most else "stop"

    def _chunk(self) -> dict[str, Any]:
        if self._is_chat:
            self._head["object"] = "chat.completion.chunk"
        return self._head

    def _event(self, said: dict[str, Any], reason: str | None) -> bytes:
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": reason}
        return b"data: " + _encode({**self._chunk(), "choices": [choice]}) + b"\n\n"


def _usage_object(usage: Usage, *, is_estimated: bool) -> dict[str, Any]:
    told = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    return told | ({"estimated": True} if is_estimated else {})


def text_of(payload: bytes) -> str:
    """Return the text of an answer to `generate`, or of one event of its stream.

    Raises:
        msgspec.DecodeError: It has none.
    """
    found = _decode(payload, type=dict[str, msgspec.Raw]).get("text_output", b"0")
    text = _decode(found, type=str | list[str])
    return text if isinstance(text, str) else "".join(text)


def say_whole(body: bytes, voice: Voice, estimated_input_tokens: int) -> tuple[Reading, bytes]:
    """Return what an answer to `generate` says of itself, and how OpenAI would have said it.

    Raises:
        msgspec.DecodeError: It is no answer to `generate`.
    """
    reading = read_generated(body)
    if reading.error is not None:
        return reading, body
    usage = reading.usage
    if usage is None:
        usage = Usage(estimated_input_tokens, (reading.text_bytes or 0) // BYTES_PER_TOKEN)
    return reading, voice.whole(text_of(body), usage, is_estimated=reading.usage is None)
