"""Step 7, tap, for streams of `generate_stream` that the caller gets as OpenAI's."""

import contextlib

import msgspec

from penstock.gateway.dialects.openai_usage import Usage
from penstock.gateway.dialects.translate import Voice, text_of
from penstock.gateway.tap import payload_of
from penstock.gateway.tap_oip import OipTap


class TranslatedTap(OipTap):
    """Reads one stream as `OipTap` does, and says each event anew.

    Args:
        voice: How.
        estimated_input_tokens: What the usage says where the engine's does not.
        tells_usage: The caller asked for it.
    """

    __slots__ = ("_estimated", "_is_begun", "_tells", "_voice")

    def __init__(self, voice: Voice, estimated_input_tokens: int, *, tells_usage: bool) -> None:
        """See the class."""
        super().__init__()
        self._strips = True  # no part of an event passes before all of it is there
        self._voice = voice
        self._estimated = estimated_input_tokens
        self._tells = tells_usage
        self._is_begun = False

    def feed(self, data: bytes) -> bytes:
        """Take what was read; return what the caller gets for it."""
        return self._feed_frames(data)

    def finish(self) -> bytes:
        """Return the last events, if the stream ended well."""
        rest = super().finish()
        if self.error is not None or self.is_empty:
            return rest
        self.is_done = True
        usage = self.usage or Usage(self._estimated, self.frame_count)
        is_estimated = self.usage is None
        return rest + self._voice.end(usage, is_estimated=is_estimated, tells_usage=self._tells)

    def _inspect(self, frame: bytes) -> bytes:
        super()._inspect(frame)
        if self.error is not None:
            return b""
        with contextlib.suppress(msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            is_first, self._is_begun = not self._is_begun, True
            return self._voice.part(text_of(payload_of(frame)), is_first=is_first)
        return b""
