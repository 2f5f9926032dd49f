"""What one server told of its caches, batch by batch, in the order of their numbers. Pure.

Batches are numbered from 0 for as long as a server lives. Who missed some asks for them again;
where they cannot be had, all that is known may be wrong, and is forgotten. So it is when numbers go
back, since the server started anew, and when the connection is lost, since it may have.
"""

from collections import Counter
from enum import Enum
from typing import Literal, TypeAlias
from zlib import crc32

from penstock.engines.kv_events import Batch, Cleared, Stored, read_batch
from penstock.node.caches.mirror import Mirror
from penstock.node.caches.shelves import Shelves

Counted: TypeAlias = Literal["events", "unknown", "gaps", "resets", "failures"]


class Heard(Enum):
    """What came of a batch."""

    TAKEN = "taken"
    KNOWN = "known"
    """It was told before."""
    MISSING = "missing"
    """Others are missing before it; it was not taken."""


class Follower:
    """Follows one server.

    Args:
        shelves: Of its upstream: who has which blocks.
        url: Of its endpoint.
        counts: Goes on from there; shared by all lines to an engine.
    """

    def __init__(self, shelves: Shelves, url: str, counts: Counter[Counted] | None = None) -> None:
        """See the class."""
        self._shelves = shelves
        self._url = url
        self.mirrors: dict[int, Mirror] = {}
        """Of each data-parallel rank that was told of."""
        self.counts = Counter[Counted]() if counts is None else counts
        self.emptied_count = 0
        """How often its caches were emptied, or it started anew, as far as that could be told."""
        self.told_at_s = 0.0
        """When the last batch happened that came by itself, by the server's clock; 0 for never."""
        self.tells_salts = False
        """Whether it says what sets blocks apart: else no prompt with a salt is ever found."""
        self.is_whole = False
        """Whether it was heard from the first batch of its life on, and all of it is known: it was
        understood, and there was room for it."""
        self.next_number = 0
        """Of the next batch that is to be taken."""
        self._next_live: int | None = None
        """Of the next one that is to come by itself; None while that can be any."""
        self._seen_to = 0
        """All below were taken before the connection was lost."""
        self._last: tuple[int, int] | None = None
        """The last one that was taken then, and its checksum."""
        self._last_taken: tuple[int, int] | None = None

    def __len__(self) -> int:
        """Return how many blocks are known."""
        return sum(map(len, self.mirrors.values()))

    def hear(self, number: int, content: bytes) -> Heard:
        """Take a batch that came by itself, unless others are missing before it."""
        expected, self._next_live = self._next_live, number + 1
        if expected is not None and number < expected:
            self._started_anew()
        if number < self.next_number:
            return Heard.KNOWN
        if number > self.next_number:
            self.counts["gaps"] += self.next_number > 0
            return Heard.MISSING
        if number < self._seen_to:
            self._emptied()
        batch = self._take(number, content)
        if batch is not None:
            self.told_at_s = batch.at_s
        return Heard.TAKEN

    def hear_again(self, number: int, content: bytes) -> None:
        """Take a batch that was asked for: it was missed."""
        if number < self.next_number:
            return
        if number > self.next_number:
            self.give_up(number)
        if self._last is not None and number == self._last[0]:
            if crc32(content) != self._last[1]:
                self._emptied()
            self._last = None
        self._take(number, content)

    def heard_again(self) -> None:
        """Take note that there are no more batches of those that were asked for."""
        if self.next_number < self._seen_to:
            self._emptied()

    def give_up(self, number: int) -> None:
        """Go on with this batch: those that are missing before it cannot be had."""
        if number < self._seen_to:
            self._emptied()
        self._forget()
        self.next_number = number

    def lost(self) -> None:
        """Forget all, since the connection was lost."""
        if self.next_number:
            self._seen_to, self._last = self.next_number, self._last_taken
        self._forget()
        self.next_number, self._next_live, self._last_taken = 0, None, None

    def _started_anew(self) -> None:
        self._forget()
        self._emptied()
        self.next_number = 0

    def _emptied(self) -> None:
        self.emptied_count += 1
        self._seen_to, self._last = 0, None

    def _forget(self) -> None:
        self.is_whole = False
        self.counts["resets"] += len(self) > 0
        for mirror in self.mirrors.values():
            mirror.clear()

    def _take(self, number: int, content: bytes) -> Batch | None:
        """Take the batch that is next, whether it makes sense or not."""
        self.next_number = number + 1
        self._last_taken = number, crc32(content)
        batch = read_batch(content)
        if batch is None:
            self.counts["unknown"] += 1
            self.is_whole = False
            return None
        self.counts["events"] += len(batch.events)
        self.counts["unknown"] += batch.passed_count
        mirror = self.mirrors.get(batch.rank)
        if mirror is None:
            mirror = self.mirrors[batch.rank] = Mirror(self._shelves, self._url)
        self.is_whole = (self.is_whole or not number) and not batch.passed_count
        for event in batch.events:
            mirror.take(event)
            if not self._shelves.room.left:  # there may have been none for some of it
                self.is_whole = False
            if isinstance(event, Stored) and event.extras is not None:
                self.tells_salts = True
            if isinstance(event, Cleared) and number >= self._seen_to:
                self.emptied_count += 1
        return batch
