"""The emulator as a server of sound and images: transcripts of any file, tones, and small images.

As vLLM it counts seconds of sound, as any other kind tokens. A second is `SECOND_BYTES` of a file.
"""

import base64
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from penstock.emulator.answers import error_script, plain_script, status_script
from penstock.emulator.overlay import BadHeaderError, Headers, overlay
from penstock.emulator.script import Script, fixed_script
from penstock.emulator.settings import Behavior, EmulatorSettings
from penstock.emulator.streams import CREATED
from penstock.emulator.text import answer_text, token_text
from penstock.emulator.usage import reports_usage
from penstock.emulator.wire import (
    DONE_EVENT,
    LAST_CHUNK,
    STREAM_HEAD,
    encode_json,
    event,
    plain_head,
)

SECOND_BYTES = 32_000
"""Of a WAV file with 16,000 samples of 16 bits a second."""
_TOKENS_PER_SECOND = 10
_IMAGE_TOKENS = 1_056
_CHARACTERS_PER_TOKEN = 4
_PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(56)).decode()
"""The beginning of an image, and nothing to be seen."""
_NAME = re.compile(rb'name="([^"]*)"')
_VLLM_FORMATS = frozenset({"json", "text", "verbose_json"})

TRANSCRIPTS = frozenset({b"/v1/audio/transcriptions", b"/v1/audio/translations"})
PATHS = TRANSCRIPTS | {b"/v1/audio/speech", b"/v1/images/generations"}


class _Json(msgspec.Struct):
    model: str
    input: str = ""
    prompt: str = ""
    n: int = 1
    stream_format: str = "audio"


_decode = msgspec.json.Decoder(_Json).decode


def answer_media(settings: EmulatorSettings, path: bytes, headers: Headers, body: bytes) -> Script:
    """Return the answer to a request about sound or images.

    Args:
        settings: How to answer unless the headers say otherwise.
        path: One of `PATHS`.
        headers: The `x-emulator-*` ones.
        body: The whole of it.
    """
    try:
        behavior = overlay(settings, headers)
        fields, sound = _read_form(body) if path in TRANSCRIPTS else ({}, b"")
        asked = _decode(body) if not fields else _Json(fields.get("model", ""))
    except (BadHeaderError, msgspec.DecodeError, UnicodeDecodeError) as error:
        return error_script(settings.kind, 400, str(error))
    if not settings.serves(asked.model):
        message = f"the model {asked.model} does not exist"
        return error_script(settings.kind, 404, message, "model_not_found")
    if behavior.fault == "status":
        return status_script(behavior)
    if path in TRANSCRIPTS:
        return _transcribe(behavior, fields, sound)
    if path == b"/v1/audio/speech":
        return _speak(behavior, asked)
    return _draw(behavior, asked)


def _read_form(body: bytes) -> tuple[dict[str, str], bytes]:
    """Return the fields of a form, and the content of its file."""
    boundary = body.partition(b"\r\n")[0]
    fields, sound = {}, b""
    for part in (b"\r\n" + body).split(b"\r\n" + boundary)[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        name = _NAME.search(head)
        if name is not None and b"filename=" in head:
            sound = content
        elif name is not None:
            fields[name[1].decode()] = content.decode()
    return fields, sound


def _transcribe(behavior: Behavior, fields: dict[str, str], sound: bytes) -> Script:
    is_vllm = behavior.kind == "vllm"
    form = fields.get("response_format", "json")
    if is_vllm and form not in _VLLM_FORMATS:
        return error_script(behavior.kind, 400, f"Currently no support for {form}")
    tokens = behavior.output_tokens
    seconds = -(-len(sound) // SECOND_BYTES)
    heard = seconds * _TOKENS_PER_SECOND
    usage: dict[str, Any] = {"type": "duration", "seconds": seconds}
    if not is_vllm:
        details = {"text_tokens": 0, "audio_tokens": heard}
        usage = _tokens(heard, tokens) | {"type": "tokens", "input_token_details": details}
    if fields.get("stream") == "true":
        return _events(_transcript_events(fields, tokens, is_vllm=is_vllm, usage=usage))
    text = answer_text(tokens)
    answer: dict[str, Any] = {"text": text}
    if form == "verbose_json":
        half = text[: len(text) // 2]
        answer |= {
            "duration": len(sound) / SECOND_BYTES,
            "language": "english",
            "segments": [
                {"id": 0, "start": 0.0, "end": seconds / 2, "text": half},
                {"id": 1, "start": seconds / 2, "end": float(seconds), "text": text[len(half) :]},
            ],
        }
    if reports_usage(behavior.usage, is_asked=True):
        answer["usage"] = usage
    return plain_script(encode_json(answer), behavior, behavior.ttft_ms)


def _transcript_events(
    fields: dict[str, str], tokens: int, *, is_vllm: bool, usage: dict[str, Any]
) -> Iterator[bytes]:
    texts = [token_text(position) for position in range(tokens)]
    if not is_vllm:
        for text in texts:
            yield event({"type": "transcript.text.delta", "delta": text})
        yield event({"type": "transcript.text.done", "text": "".join(texts), "usage": usage})
        return
    chunk = {"id": "trsc-0", "object": "transcription.chunk", "created": CREATED}
    for text in texts:
        yield event({**chunk, "choices": [{"delta": {"content": text}}]})
    if fields.get("stream_include_usage") == "true":
        counted = {"prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": 10 + tokens}
        yield event({**chunk, "choices": [], "usage": counted})
    yield DONE_EVENT


def _speak(behavior: Behavior, asked: _Json) -> Script:
    tokens = behavior.output_tokens
    tone = bytes(range(256)) * max(1, len(asked.input))
    if asked.stream_format == "sse":
        usage = _tokens(len(asked.input) // _CHARACTERS_PER_TOKEN, tokens)
        sound = base64.b64encode(tone).decode()
        delta = event({"type": "speech.audio.delta", "audio": sound})
        return _events(iter((delta, event({"type": "speech.audio.done", "usage": usage}))))
    return fixed_script(plain_head(200, len(tone), b"audio/mpeg"), tone, behavior.ttft_ms)


def _draw(behavior: Behavior, asked: _Json) -> Script:
    answer: dict[str, Any] = {"created": CREATED, "data": [{"b64_json": _PIXEL}] * asked.n}
    if behavior.usage != "never" and behavior.kind != "vllm":
        inputs = len(asked.prompt) // _CHARACTERS_PER_TOKEN
        details = {"text_tokens": inputs, "image_tokens": 0}
        answer["usage"] = _tokens(inputs, asked.n * _IMAGE_TOKENS) | {
            "input_tokens_details": details
        }
    return plain_script(encode_json(answer), behavior, behavior.ttft_ms)


def _tokens(inputs: int, outputs: int) -> dict[str, Any]:
    return {"input_tokens": inputs, "output_tokens": outputs, "total_tokens": inputs + outputs}


def _events(chunks: Iterator[bytes]) -> Script:
    return fixed_script(STREAM_HEAD, b"".join(chunks) + LAST_CHUNK)
