"""Step 7, tap, for `generate_stream` of Triton: events that have no usage, and no last one."""

import contextlib

import msgspec

from penstock.gateway.dialects.oip_answers import read_generated
from penstock.gateway.dialects.openai_usage import Usage
from penstock.gateway.tap import Tap, payload_of

_COUNT = b'"num_'


class OipTap(Tap):
    """Reads one stream, as `Tap` does; token counts are those of each event, and are added up."""

    __slots__ = ()
    lead_frames = 0

    def __init__(self) -> None:
        """See the class."""
        super().__init__(hides_usage=False)

    def feed(self, data: bytes) -> bytes:
        """Take what was read; return what may be passed on now."""
        return self._feed_frames(data) if _COUNT in data else super().feed(data)

    def _inspect(self, frame: bytes) -> bytes:
        shown = super()._inspect(frame)
        if _COUNT in frame and self.error is None:
            with contextlib.suppress(msgspec.DecodeError, RecursionError, UnicodeDecodeError):
                reading = read_generated(payload_of(frame))
                self.flags = reading.flags or self.flags
                if reading.usage is not None:
                    self._add(reading.usage)
        return shown

    def _add(self, part: Usage) -> None:
        before = 0 if self.usage is None else self.usage.output_tokens
        self.usage = Usage(part.input_tokens, before + part.output_tokens, flags=self.flags)
