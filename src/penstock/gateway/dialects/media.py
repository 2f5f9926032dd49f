"""Sound and images in OpenAI's dialect: what answers say of themselves, and transcripts as text."""

import math
from typing import Any

import msgspec

from penstock.gateway.dialects.openai import Reading, read_answer, read_chunk
from penstock.gateway.dialects.openai_usage import Usage, sane_usage
from penstock.gateway.limits import SANE_TOKENS

TEXT_FORMATS = {"text": "json", "srt": "verbose_json", "vtt": "verbose_json"}
"""Forms of transcripts that say no usage, and the one of which they are made."""
FORMATS = frozenset({"json", "verbose_json", "diarized_json", *TEXT_FORMATS})
_LONGEST_S = 10_000_000.0
"""Subtitles show no later moment: an engine may say anything, `"inf"` and `"nan"` included."""
_replace = msgspec.structs.replace


class _Media(msgspec.Struct, frozen=True):
    usage: Any = None
    duration: Any = None
    """Of sound, in seconds."""
    data: list[msgspec.Raw] = []
    """Images."""


class _Segment(msgspec.Struct, frozen=True):
    start: float
    end: float
    text: str


class _Transcript(msgspec.Struct, frozen=True):
    text: str
    segments: list[_Segment] | None = None
    duration: float = 0


_decode_media = msgspec.json.Decoder(_Media).decode
_decode_transcript = msgspec.json.Decoder(_Transcript, strict=False).decode
_Found = tuple[Usage | None, tuple[str, ...]]


def read_media_answer(body: bytes) -> Reading:
    """Read a plain answer about sound or images.

    Raises:
        msgspec.DecodeError: It is none.
    """
    media = _decode_media(body)
    usage, flags = read_media_usage(media.usage)
    if usage is None and not flags and media.duration is not None:
        usage, flags = _heard(media.duration)
    if media.data:
        usage = _replace(usage or Usage(0, 0), images=len(media.data))
    return _replace(read_answer(body), usage=usage, flags=flags)


def read_media_chunk(payload: bytes) -> Reading | None:
    """Read one event of a stream; None when the payload is no JSON object."""
    reading = read_chunk(payload)
    if reading is None or b'"usage"' not in payload:
        return reading
    try:
        usage, flags = read_media_usage(_decode_media(payload).usage)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return reading
    return _replace(reading, usage=usage, flags=flags)


def read_media_usage(loose: Any) -> _Found:
    """Return the usage of a member of any shape: seconds, or tokens under either of their names."""
    if not isinstance(loose, dict):
        return sane_usage(loose)
    if "seconds" in loose and "input_tokens" not in loose and "prompt_tokens" not in loose:
        return _heard(loose["seconds"])
    if "prompt_tokens" in loose:
        return sane_usage(loose)
    details = loose.get("input_token_details") or loose.get("input_tokens_details")
    return sane_usage(
        {
            "prompt_tokens": loose.get("input_tokens", loose.get("total_tokens")),
            "completion_tokens": loose.get("output_tokens", 0),
            "prompt_tokens_details": details,
        }
    )


def _heard(seconds: Any) -> _Found:
    if isinstance(seconds, str):  # as some versions write it
        try:
            seconds = float(seconds)
        except ValueError:
            seconds = None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None, ("usage_not_a_number",)
    if not seconds <= SANE_TOKENS:  # nor is "nan"; no function of `math` takes all whole numbers
        return None, ("usage_absurd",)
    flags = ("usage_negative",) if seconds < 0 else ()
    return Usage(0, 0, flags=flags, audio_seconds=math.ceil(max(0, seconds))), flags


def as_text(body: bytes, text_format: str) -> bytes:
    """Return a transcript in one of `TEXT_FORMATS`.

    Args:
        body: As the engine answered, in the form that it is made of.
        text_format: Which.

    Raises:
        msgspec.DecodeError: It is no transcript.
    """
    transcript = _decode_transcript(body)
    if text_format == "text":
        return transcript.text.encode() + b"\n"
    segments = transcript.segments
    if segments is None:
        segments = [_Segment(0, transcript.duration, transcript.text)]
    point = "," if text_format == "srt" else "."
    cues = [
        f"{_clock(each.start, point)} --> {_clock(each.end, point)}\n{_cue(each.text)}\n\n"
        for each in segments
    ]
    if text_format == "srt":
        cues = [f"{number}\n{cue}" for number, cue in enumerate(cues, 1)]
    return ("".join(cues) if text_format == "srt" else "WEBVTT\n\n" + "".join(cues)).encode()


def _cue(text: str) -> str:
    """Return a cue's text: an empty line or an arrow in it would begin another one."""
    return "\n".join(filter(None, text.strip().replace("-->", "->").splitlines()))


def _clock(seconds: float, point: str) -> str:
    """Return a moment as subtitles write it.

    >>> _clock(3723.5, ",")
    '01:02:03,500'
    """
    whole, rest = divmod(round(min(max(0.0, seconds), _LONGEST_S) * 1000), 1000)
    minutes, second = divmod(whole, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02}:{minute:02}:{second:02}{point}{rest:03}"
