"""Step 7, tap, for Anthropic's Messages and OpenAI's Responses: events that have names.

Usage is in some of them, and always asked for: nothing is hidden. An event that can be no error is
passed on while it comes; any other one when all of it is there.
"""

import re
from abc import ABC, abstractmethod
from typing import Any

import msgspec

from penstock.gateway.dialects import messages, responses
from penstock.gateway.dialects.openai_usage import Usage
from penstock.gateway.limits import ENDING_BYTES, INSPECTED_FRAME_BYTES
from penstock.gateway.tap import CR, ERROR, ERROR_EVENT, Tap, is_done_frame, payload_of

_HARMLESS = re.compile(rb"event: ?(?!error|response\.failed)[\w.]+\r?\n")
_FAILURE = re.compile(rb"event: ?(?:error|response\.failed)\s")
_UNREAD = b'{"message":"The model server failed."}'
"""Stands for an error that is too long to be looked into."""
_LAST = re.compile(rb"event: ?response\.(?:completed|incomplete|cancelled)\r?\n")
"""Begins the events of `responses.ENDS`."""
_USAGE_MEMBER = re.compile(rb'"usage"\s*:\s*\{')
_USAGE_MEMBERS = 16
"""Of so many that are called so, from the end, one may be the response's own."""
_USAGE = b'"usage"'
_NO_FLAGS: tuple[str, ...] = ()
_MISSING = ("usage_missing",)


class EventTap(Tap, ABC):
    """Reads one stream, as `Tap` does; `frame_count` is of events that carry a token."""

    __slots__ = ()

    lead_frames = 0
    _token: bytes
    """In each event that carries a token, and hardly in another."""
    _telling: bytes
    """In each event that is read and is no error, besides those with usage."""

    def __init__(self) -> None:
        """See the class."""
        super().__init__(hides_usage=False)

    def feed(self, data: bytes) -> bytes:
        """Take what was read; return what may be passed on now."""
        if (
            not self._carry
            and data.endswith(b"}\n\n")
            and CR not in data
            and data.find(ERROR) < 0  # quicker than `in`
            and data.find(_USAGE) < 0
            and data.find(self._telling) < 0
        ):
            token = self._token
            if data.find(b"\n\n") == len(data) - 2:
                self.frame_count += data.find(token) >= 0
            else:
                self.frame_count += sum(token in frame for frame in data.split(b"\n\n"))
            return data
        return self._feed_frames(data)

    def _feed_frames(self, data: bytes) -> bytes:
        is_long = len(self._carry) + len(data) > INSPECTED_FRAME_BYTES
        if is_long and not self._is_skipping and _FAILURE.match(self._carry):
            self.error, self._carry = _UNREAD, b""
            return b""
        return super()._feed_frames(data)

    def read_names(self) -> tuple[str, str]:
        """Return the engine's name of the answer and of the service tier, "" for what is unsaid."""
        return self.answer_id, self.service_tier

    def _may_pass_early(self, tail: bytes) -> bool:
        return _HARMLESS.match(tail) is not None

    def _inspect(self, frame: bytes) -> bytes:
        """Read a whole event; return it unless it is an error."""
        is_long = len(frame) > INSPECTED_FRAME_BYTES
        if not is_long and (ERROR in frame or _USAGE in frame or self._telling in frame):
            payload = payload_of(frame)
            self._read_payload(payload)
            if self.error is None and ERROR_EVENT.match(frame):
                self.error = payload
            if self.error is not None:
                return b""
        self.frame_count += self._token in frame
        self.is_done = self.is_done or is_done_frame(frame)
        return frame

    def _read_payload(self, payload: bytes) -> None:
        try:
            self._read_event(payload)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return  # it is relayed as it is

    @abstractmethod
    def _read_event(self, payload: bytes) -> None:
        """Take note of what an event says.

        Raises:
            msgspec.DecodeError: It is no JSON object, or not of this protocol.
        """


class MessagesTap(EventTap):
    """Reads a stream of Anthropic's Messages.

    The first event tells the input, and what was not written yet; the last but one all of it, as
    far as it differs: figures are cumulative. A stream that is cut between them consumed the input
    that was told, and the events that passed. llama.cpp leaves the first one out when a letter of
    several tokens comes first: then only the output is known.

    Args:
        estimated_input_tokens: What counts where the engine never told the input.
    """

    __slots__ = ("_estimated", "_said")

    _token = b'"content_block_delta"'
    _telling = b"message_st"  # art, op

    def __init__(self, estimated_input_tokens: int) -> None:
        """See the class."""
        super().__init__()
        self._estimated = estimated_input_tokens
        self._said: dict[str, Any] = {}
        """Every figure as it was told last."""

    @property
    def counted(self) -> Usage:
        """What it consumed by what was told of it, and what passed."""
        told = {"input_tokens": self._estimated, "output_tokens": 0} | self._said
        usage, flags = messages.read_usage(told)
        usage = usage or Usage(0, 0)
        return msgspec.structs.replace(
            usage,
            input_tokens=usage.input_tokens or self._estimated,
            output_tokens=max(usage.output_tokens, self.frame_count),
            flags=self.flags or flags or (_MISSING if self.is_done else _NO_FLAGS),
        )

    def _read_event(self, payload: bytes) -> None:
        event = messages.read_event(payload)
        if event.error is not None or event.type == "error":
            self.error = payload
            return
        self.answer_id = event.answer_id or self.answer_id
        said = {name: figure for name, figure in event.said_usage.items() if figure is not None}
        self._said |= said
        self.service_tier = messages.tier_of(self._said)
        if event.type == "message_stop":
            self.is_done = True
        elif said and event.type != "message_start" and "input_tokens" in self._said:
            usage, flags = messages.read_usage(self._said)
            self.usage, self.flags = usage or self.usage, flags or self.flags


class ResponsesTap(EventTap):
    """Reads a stream of OpenAI's Responses, whose last event holds all of the response.

    Of one that is too long to look into the end is kept, where engines tell what it consumed.
    """

    __slots__ = ("_ending",)

    _token = b'.delta"'
    _telling = b'"response"'

    def __init__(self) -> None:
        """See the class."""
        super().__init__()
        self._ending: bytes | None = None
        """What a last event that is too long ends with so far."""

    def _inspect(self, frame: bytes) -> bytes:
        """Read a whole event; return it unless it is an error."""
        if len(frame) <= INSPECTED_FRAME_BYTES or _LAST.match(frame) is None:
            return super()._inspect(frame)
        self._pass_unseen(frame)
        self._end_unseen(b"")
        return frame

    def _pass_unseen(self, content: bytes) -> None:
        if self._ending is not None:
            self._ending = (self._ending + content)[-ENDING_BYTES:]
        elif not self._is_skipping and _LAST.match(content) is not None:
            self._ending = content[-ENDING_BYTES:]

    def _end_unseen(self, content: bytes) -> None:
        if self._ending is None:
            super()._end_unseen(content)
            return
        ending, self._ending = (self._ending + content)[-ENDING_BYTES:].rstrip(), None
        self.is_done = True
        for match in [*_USAGE_MEMBER.finditer(ending)][-_USAGE_MEMBERS:]:
            # What makes JSON of all that follows is that it is a member of the response itself,
            # and not of a tool's description, which is the caller's and repeated there, too.
            try:
                event = responses.read_event(b'{"response":{' + ending[match.start() :])
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
                continue
            if event.response is not None:
                self.usage, self.flags = responses.read_usage(event.response.usage)

    def _read_event(self, payload: bytes) -> None:
        event = responses.read_event(payload)
        self.error = responses.event_error(event, payload)
        response = event.response
        if self.error is not None or response is None:
            return
        self.answer_id = response.answer_id or self.answer_id
        self.service_tier = response.tier or self.service_tier
        if event.type in responses.ENDS:  # what another one tells may be all noughts
            self.usage, self.flags = responses.read_usage(response.usage)
            self.is_done = True
