"""Keys that were shown and are stored under an old pepper, until the agent is told."""

from itertools import islice

from penstock.contract.node import Rehashed
from penstock.gateway.limits import REHASHED_BATCH, REHASHED_WAITING


class OldHashes:
    """Pairs of hashes that wait for the next report; with too many waiting, more are not noted."""

    def __init__(self) -> None:
        """Start with none."""
        self._waiting: dict[bytes, bytes] = {}

    def note(self, old: bytes, new: bytes) -> None:
        """Note a key's hash under the old pepper, and under the active one."""
        if len(self._waiting) < REHASHED_WAITING:
            self._waiting[old] = new

    def take(self) -> Rehashed | None:
        """Return what is to be reported now, and note it no more."""
        pairs = tuple(islice(self._waiting.items(), REHASHED_BATCH))
        for old, _ in pairs:
            del self._waiting[old]
        return Rehashed(pairs) if pairs else None
