"""Step 7, tap, for streams of gRPC: messages instead of events."""

from typing import Final

from penstock.gateway.dialects.grpc import PREFIX_BYTES, prefix
from penstock.gateway.dialects.oip_grpc import read_stream_response
from penstock.gateway.dialects.openai import Reading
from penstock.gateway.limits import INSPECTED_FRAME_BYTES
from penstock.gateway.tap_oip import OipTap
from penstock.kit.protobuf import MalformedError

_ERROR: Final = 0x0A
"""With which a message begins that tells of an error."""
_EMPTY: Final = prefix(0)
"""A message that says nothing."""


class GrpcTap(OipTap):
    """Reads one stream: as `OipTap` does, counts of each message are added up.

    Without counts each message with text is one output token. A message that is larger than any
    text is passed on as it comes, unseen.

    Attributes:
        is_malformed: The stream is none of this protocol; nothing more of it is passed on.
    """

    __slots__ = ("_unseen", "is_malformed")

    def __init__(self) -> None:
        """See the class."""
        super().__init__()
        self._unseen = 0
        """Bytes that are to come of a message that is too large."""
        self.is_malformed = False

    @property
    def is_inside_frame(self) -> bool:
        """Whether the beginning of a message was passed on, and its end was not."""
        return self._unseen > 0

    @property
    def is_whole(self) -> bool:
        """Whether nothing of a message is missing."""
        return not self._carry and not self._unseen

    def feed(self, data: bytes) -> bytes:
        """Take what was read; return what may be passed on now: whole messages, mostly."""
        content = self._carry + data if self._carry else data
        start = min(self._unseen, len(content))
        self._unseen -= start
        while start < len(content):
            count = self._passable(content, start)
            if not count:
                break
            start += count
        self._carry = content[start:]
        return content[:start]

    def _passable(self, content: bytes, start: int) -> int:
        """Return how many bytes of the message that begins at `start` may be passed on now."""
        left = len(content) - start
        if left <= PREFIX_BYTES:
            return left if content[start:] == _EMPTY else 0
        size = PREFIX_BYTES + int.from_bytes(content[start + 1 : start + PREFIX_BYTES], "big")
        if content[start]:
            self.is_malformed = True
            return 0
        if size > INSPECTED_FRAME_BYTES:
            self.is_malformed = content[start + PREFIX_BYTES] == _ERROR
            if self.is_malformed:
                return 0
            self._unseen = max(0, size - left)
            return min(size, left)
        if left < size or not self._inspect_message(content[start : start + size]):
            return 0
        return size

    def finish(self) -> bytes:
        """Return nothing: what is not whole is not passed on."""
        return b""

    def _inspect_message(self, message: bytes) -> bool:
        """Look into a whole message; return whether it may be passed on."""
        try:
            error, reading = read_stream_response(message, PREFIX_BYTES)
        except (MalformedError, UnicodeDecodeError):
            self.is_malformed = True
            return False
        if error:
            self.error = error.encode()
            return False
        self._note(reading)
        return True

    def _note(self, reading: Reading) -> None:
        self.flags = reading.flags or self.flags
        if reading.text_bytes:
            self.frame_count += 1
        if reading.usage is not None:
            self._add(reading.usage)
