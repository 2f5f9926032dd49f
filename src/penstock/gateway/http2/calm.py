"""What a peer may have us do for nothing."""

from typing import Final

from penstock.gateway.http2.frames import ConnectionFault, ErrorCode
from penstock.gateway.limits import H2_IDLE_FRAMES, H2_RESETS, H2_UNSENT_REPLIES

_WORTH: Final = 4
"""How many frames that carry nothing one is worth that carries something, in either direction."""
_REFILLS: Final = 4
"""Sweeps after which a peer may do as much again as it may at once."""
_SETTING_BYTES_PER_FRAME: Final = 64


class Calm:
    """Counts of one connection; each has its bound in `limits`, past which the connection ends.

    The floods that they end: pings, settings, windows, empty and unknown frames (CVE-2019-9512,
    9515, 9518), answers that nobody reads (CVE-2019-9517), streams that are given up as soon as
    they began, or that we are made to give up (CVE-2023-44487, CVE-2025-8671).
    """

    __slots__ = ("_idle_left", "_replies", "_resets_left")

    def __init__(self) -> None:
        """Begin with all that may be done at once."""
        self._idle_left = H2_IDLE_FRAMES
        self._resets_left = H2_RESETS
        self._replies = 0

    def refill(self) -> None:
        """Allow again what may be done in a time."""
        self._idle_left = min(H2_IDLE_FRAMES, self._idle_left + H2_IDLE_FRAMES // _REFILLS)
        self._resets_left = min(H2_RESETS, self._resets_left + H2_RESETS // _REFILLS)

    def earn(self) -> None:
        """Count a frame that carries something."""
        if self._idle_left < H2_IDLE_FRAMES:
            self._idle_left += _WORTH

    def spend(self, frames: int = 1) -> None:
        """Count frames that carry nothing."""
        self._idle_left -= frames
        if self._idle_left < 0:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many frames carry nothing")

    def spend_settings(self, size: int) -> None:
        """Count what is in a frame of settings beside the first."""
        self.spend(size // _SETTING_BYTES_PER_FRAME)

    def given_up(self) -> None:
        """Count a stream that ended early."""
        self._resets_left -= 1
        if self._resets_left < 0:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many streams are given up")

    def replied(self) -> None:
        """Count a frame that the peer caused and did not read yet."""
        self._replies += 1
        if self._replies > H2_UNSENT_REPLIES:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "what we answer is not read")

    def taken(self) -> None:
        """Take note that all that was written is on its way."""
        self._replies = 0
