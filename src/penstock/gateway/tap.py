"""Step 7, tap: usage and errors read out of a stream while it passes, byte for byte.

Frames end at a blank line (LF, CRLF or CR, in any mix) and may be split over reads anywhere.
The usual read, whole frames of JSON without the words `usage` and `error`, costs a few searches
and is passed on as it is; the first frame has to have `choices`, too. What is found does not depend
on where the reads were cut.

An error event ends a stream: neither it nor what follows is passed on, since its words may tell of
our network. Who has the tap says in words of its own what went wrong.

A caller that did not ask for usage must not see the chunk that was asked for in its name. Such a
chunk is small and has no choices: a frame that is not complete yet is held back only until it is,
is seen to hold choices, or is longer than any usage chunk.
"""

import re

import msgspec

from penstock.gateway.dialects.openai import Reading, read_chunk
from penstock.gateway.dialects.openai_usage import Usage
from penstock.gateway.limits import HELD_FRAME_BYTES, INSPECTED_FRAME_BYTES

_EOL = rb"(?>\r\n|\n|\r(?=[^\n]))"
_BLANK_LINE = re.compile(_EOL + _EOL)
_USAGE_OBJECT = re.compile(rb'"usage"\s*:\s*[^n\s]')
_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*[^\]\s]')
_CHOICES_NAME = b'"choices"'
_USAGE_NAME = b'"usage"'
ERROR = b"error"
ERROR_EVENT = re.compile(rb"event: ?error\s")
_DONE = b"[DONE]"
CR = 13
_encode = msgspec.json.Encoder().encode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Tap:
    """Reads one stream.

    Args:
        hides_usage: The caller did not ask for usage: take the bare usage chunk out.
        strips_usage: Cumulative usage was asked for in the caller's name: also take `usage` out
            of chunks that have choices.

    Attributes:
        usage: The last usage seen; figures of engines are cumulative.
        answer_id: The engine's name of the answer, as far as it was looked at; see `read_names`.
        service_tier: The same.
        error: The error that ended the stream, raw.
        flags: What was odd about the figures.
        frame_count: Frames relayed so far that end a JSON object: no comments, no `[DONE]`.
        is_done: Whether the stream's `[DONE]` passed.
    """

    __slots__ = (
        "_beginning",
        "_carry",
        "_held_from",
        "_hides",
        "_is_skipping",
        "_strips",
        "answer_id",
        "error",
        "flags",
        "frame_count",
        "is_done",
        "service_tier",
        "usage",
    )

    lead_frames = 1
    """Frames at the beginning of a stream that carry no token: the first names the role."""
    _read = staticmethod(read_chunk)
    """Reads the payload of a frame."""

    def __init__(self, *, hides_usage: bool, strips_usage: bool = False) -> None:
        """See the class."""
        self._hides = hides_usage
        self._strips = strips_usage
        self._carry = b""
        """The frame under way, from its first byte."""
        self._held_from = 0
        """Where in `_carry` begins what was not passed on yet."""
        self._is_skipping = False
        """The frame under way is too long to look into: passed on unseen."""
        self._beginning = b""
        """Of what was passed on, for names that no frame with usage said."""
        self.answer_id = self.service_tier = ""
        self.usage: Usage | None = None
        self.error: bytes | None = None
        self.flags: tuple[str, ...] = ()
        self.frame_count = 0
        self.is_done = False

    @property
    def counted(self) -> Usage | None:
        """What it consumed as far as we can tell, where the engine did not say all of it.

        None where its frames count.
        """
        return None

    @property
    def is_empty(self) -> bool:
        """Whether nothing passed that an engine says: no JSON, no error, no end."""
        seen = self.frame_count or self.is_done or self.usage is not None or self.error is not None
        return not seen

    @property
    def is_inside_frame(self) -> bool:
        """Whether the beginning of a frame was passed on, and its end was not."""
        return self._held_from > 0

    def feed(self, data: bytes) -> bytes:
        """Take what was read; return what may be passed on now.

        Args:
            data: Bytes of the stream, >= 1, cut anywhere; none after an error.

        Returns:
            Bytes to relay at once, maybe none. Over the whole stream they are the bytes fed, less
            hidden chunks and stripped members, up to an error.
        """
        if (
            not self._carry
            and data.endswith(b"}\n\n")
            and CR not in data
            and data.find(b"error") < 0  # quicker than `in`
            and (data.find(b'"usage"') < 0 or not _USAGE_OBJECT.search(data))
            and (self.frame_count or data.find(_CHOICES_NAME) > 0)
        ):
            if not self.frame_count:
                self._beginning = data[:HELD_FRAME_BYTES]
            self.frame_count += data.count(b"}\n\n")
            return data
        return self._feed_frames(data)

    def finish(self) -> bytes:
        """Read the frame in whose middle the stream ended; return what was held back of it."""
        carry, self._carry = self._carry, b""
        if not carry or self._is_skipping:
            return b""
        shown = self._inspect(carry)
        if self.error is not None:
            return b""
        return shown if self._held_from == 0 else carry[self._held_from :]

    def read_names(self) -> tuple[str, str]:
        """Return the engine's name of the answer and of the service tier, "" for what is unsaid."""
        if not self.answer_id and self._beginning:
            beginning, self._beginning = self._beginning, b""
            for match in _BLANK_LINE.finditer(beginning):
                reading = read_chunk(payload_of(beginning[: match.start()]))
                if reading is not None:
                    self.answer_id, self.service_tier = reading.answer_id, reading.service_tier
                break
        return self.answer_id, self.service_tier

    def _feed_frames(self, data: bytes) -> bytes:
        out: list[bytes] = []
        content = self._carry + data
        start, held = 0, self._held_from
        search_from = max(0, len(self._carry) - 3)
        for match in _BLANK_LINE.finditer(content, search_from):
            end = match.end()
            if self._is_skipping:
                self._is_skipping = False
                out.append(content[start + held : end])
                self._end_unseen(out[-1])
            else:
                frame = content[start:end]
                shown = self._inspect(frame)
                if self.error is not None:
                    self._carry, self._held_from = b"", held
                    return b"".join(out)
                out.append(shown if held == 0 else frame[held:])
            start, held = end, 0
        tail = content[start:]
        if self._is_skipping or len(tail) > INSPECTED_FRAME_BYTES:
            self._pass_unseen(tail[held:] if self._is_skipping else tail)
            self._is_skipping = True
            out.append(tail[held:])
            keep = tail[-3:]
            self._carry, self._held_from = keep, len(keep)
        else:
            passed = len(tail) if self._may_pass_early(tail) else held
            out.append(tail[held:passed])
            self._carry, self._held_from = tail, passed
        return out[0] if len(out) == 1 else b"".join(out)

    def _may_pass_early(self, tail: bytes) -> bool:
        """Whether the beginning of a frame may go on before its end is there."""
        if self._strips:
            return False
        may_be_hidden = self._hides or ERROR in tail
        return not may_be_hidden or _is_no_usage_chunk(tail)

    def _pass_unseen(self, content: bytes) -> None:
        """Take note of a part of a frame that is too long to look into: of the first, or the next.

        Args:
            content: What came of it since the last part.
        """

    def _end_unseen(self, content: bytes) -> None:  # noqa: ARG002 - for those that look there
        """Take note of the end of such a frame."""
        self.frame_count += 1

    def _inspect(self, frame: bytes) -> bytes:
        """Read a whole frame; return it as the caller shall see it."""
        is_first = not self.frame_count
        if is_first:
            self._beginning = frame[:HELD_FRAME_BYTES]
        self.frame_count += frame.rstrip().endswith(b"}")
        if len(frame) > INSPECTED_FRAME_BYTES:
            return frame
        is_plain = not is_first or _CHOICES_NAME in frame
        if not is_plain or _USAGE_NAME in frame or ERROR in frame:
            payload = payload_of(frame)
            reading = self._read(payload) if payload else None
            if reading is not None:
                return self._take(reading, frame, payload)
        self.is_done = self.is_done or is_done_frame(frame)
        return frame

    def _take(self, reading: Reading, frame: bytes, payload: bytes) -> bytes:
        """Keep what a frame says; return it as the caller shall see it."""
        self.usage = reading.usage or self.usage
        self.answer_id = reading.answer_id or self.answer_id
        self.service_tier = reading.service_tier or self.service_tier
        self.flags = reading.flags or self.flags
        self.error = reading.error or (payload if ERROR_EVENT.match(frame) else None)
        if self.error is not None:
            self.frame_count -= 1
            return b""
        if _USAGE_OBJECT.search(frame) is None:
            return frame
        if not reading.has_choices:
            if not self._hides or _is_no_usage_chunk(frame):
                return frame
            self.frame_count -= 1
            return b""
        if self._strips:
            members = _decode_members(payload)
            if members.pop("usage", None) is not None:
                space = b" " if payload.startswith(b" ") else b""
                rest = space + _encode(members)
                if payload in frame:
                    return frame.replace(payload, rest, 1)
                return b"data:" + rest + b"\n\n"
        return frame


def payload_of(frame: bytes) -> bytes:
    """Return the data of a frame: its `data:` lines joined as the SSE standard says."""
    lines = [line[5:] for line in frame.splitlines() if line.startswith(b"data:")]
    return lines[0] if len(lines) == 1 else b"\n".join(lines)


def is_done_frame(frame: bytes) -> bool:
    """Return whether a frame is the one that says that the stream is done."""
    return _DONE in frame and payload_of(frame).strip() == _DONE


def _is_no_usage_chunk(beginning: bytes) -> bool:
    """Whether a frame cannot be a bare usage chunk, judged by its beginning."""
    return len(beginning) > HELD_FRAME_BYTES or _CHOICES.search(beginning) is not None
