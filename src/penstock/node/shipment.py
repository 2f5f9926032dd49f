"""The way of one journal into the usage store. Does I/O on files, none on the network."""

from collections import deque
from typing import NamedTuple

from msgspec.structs import replace

from penstock.contract.journal import Open, scan
from penstock.contract.usage import UsageEvent
from penstock.node.checkpoints import Checkpoints
from penstock.node.delivery import MAX_EVENTS
from penstock.node.progress import Checkpoint, Position, Progress
from penstock.node.recovery import Journal, ended_at_ns, interrupted_events, is_dead
from penstock.node.tail import Tail, count_frames

_CHUNKS_AT_ONCE = 16
"""Read in one go, so that other journals have their turn."""
_COUNTED_AT_ONCE = 128
"""Chunks in which records are counted in one go, which is soon done: 16 MiB, each second."""


class Volume(NamedTuple):
    """A number of records."""

    records: int = 0
    size_bytes: int = 0


class Shipment:
    """A journal that is not shipped to its end yet.

    `fill` and `acknowledge` take turns; between them `pending` is delivered. When delivery fails,
    `fill` is called again and may add to `pending`. All methods block on the disk, and raise
    `OSError` where it fails; they can be called again then.

    Args:
        journal: What to ship.
        checkpoints: Where it is kept how far that has come.
    """

    def __init__(self, journal: Journal, checkpoints: Checkpoints) -> None:
        """See the class."""
        self.journal = journal
        self.pending: list[UsageEvent] = []
        """Events to deliver now, in their order; 500 at most."""
        self.is_at_end = False
        """Whether nothing more was in the journal when it was last looked at."""
        self._checkpoints = checkpoints
        self._saved = checkpoints.get(journal.name)
        self._progress = Progress(self._saved)
        known = self._saved.position
        start = self._start = Position(min(self._saved.oldest_open_segment, known.segment))
        self._tail = Tail(journal.path, start, known)
        self._tail.damaged.update(self._saved.damaged)
        self.left_open: list[Open] = []
        """What its dead worker left open, once that is known; for those who want to tell of it."""
        self._interrupted: deque[UsageEvent] = deque()
        self._has_interrupted = False
        self._is_dead = False
        self._has_ended = False
        self._read = Volume()
        self._acknowledged = Volume()
        self._counter = Tail(journal.path, start, known)
        self._counted = Volume()

    @property
    def saved(self) -> Checkpoint:
        """How far it has come, as the disk knows it."""
        return self._saved

    @property
    def damaged_count(self) -> int:
        """How many segments are damaged."""
        return len(self._tail.damaged)

    @property
    def unshipped(self) -> Volume:
        """Records behind the last acknowledged one, as far as `count` has counted them."""
        base = self._acknowledged if self.pending else self._read
        top = max(self._counted, self._read)
        return Volume(top.records - base.records, top.size_bytes - base.size_bytes)

    def fill(self) -> None:
        """Read on until `pending` is full, everything is read, or it is others' turn."""
        if self.is_at_end and not self._is_dead:
            # Asked before the reading: what is read after a "yes" is all that there is.
            self._is_dead = is_dead(self.journal)
        for _ in range(_CHUNKS_AT_ONCE):
            if len(self.pending) >= MAX_EVENTS:
                return
            self.is_at_end = not self._tail.advance(self._parse, is_dead=self._is_dead)
            if self.is_at_end:
                break
        if self.is_at_end and self._is_dead:
            self._end()
        while self._interrupted and len(self.pending) < MAX_EVENTS:
            self.pending.append(self._interrupted.popleft())

    @property
    def place(self) -> Position:
        """The place behind `pending`; what ends requests for a dead worker stands behind its end.

        So a store that lost only these events is seen to have lost something.
        """
        segment, offset = self._tail.position
        is_behind = self._has_interrupted and not self._interrupted
        return Position(segment, offset + is_behind)

    def acknowledge(self, *, is_told: bool = True) -> None:
        """Take note that all of `pending` is stored.

        Args:
            is_told: Whether the store knows by now that it has everything before `place`.
        """
        told = self.place if is_told else self._saved.told
        reached = self._reached()
        # First, so that what is not known to have been told is delivered once more.
        self._save(replace(reached, told_segment=told.segment, told_offset=told.offset))
        self.pending.clear()
        self._acknowledged = self._read

    @property
    def is_stored(self) -> bool:
        """Whether its worker is dead and everything is stored."""
        return self._has_ended and not self.pending and not self._interrupted

    def finish(self, now_ns: int) -> bool:
        """Mark the journal as done if it is.

        Args:
            now_ns: Nanoseconds since the Unix epoch.

        Returns:
            Whether its worker is dead and everything is stored, and the disk says so.
        """
        if not self.is_stored:
            return False
        is_empty = not self._progress.has_requests and self._start == Position()
        self._save(replace(self._reached(), done_at_ns=now_ns, is_empty=is_empty))
        return True

    def count(self) -> None:
        """Count what there is beyond what was read, for `unshipped`."""
        for _ in range(_COUNTED_AT_ONCE):
            if self.is_at_end or self._tail.position >= self._counter.position:
                self._counter.position = self._tail.position
                self._counted = self._read
            if self.is_at_end or not self._counter.advance(self._hop, is_dead=self._is_dead):
                return

    def _parse(self, segment: int, content: bytes, offset: int) -> int:
        consumed = records = 0
        for record, end in scan(content):
            consumed = end
            records += 1
            event = self._progress.follow(record, Position(segment, offset + end))
            if event is not None:
                self.pending.append(event)
                if len(self.pending) >= MAX_EVENTS:
                    break
        self._read = Volume(self._read.records + records, self._read.size_bytes + consumed)
        return consumed

    def _hop(self, _segment: int, content: bytes, _offset: int) -> int:
        records, consumed = count_frames(content)
        counted = self._counted
        self._counted = Volume(counted.records + records, counted.size_bytes + consumed)
        return consumed

    def _end(self) -> None:
        """Turn what the dead worker left open into terminal events, once."""
        if self._has_ended:
            return
        unclosed = self._progress.unclosed
        if unclosed:
            when = self._saved.ended_at_ns
            if when is None:
                when = ended_at_ns(self.journal)
                # On the disk before the first event says it: it must say the same next time.
                self._save(replace(self._saved, ended_at_ns=when))
            self.left_open = unclosed
            self._interrupted.extend(interrupted_events(unclosed, when))
            self._has_interrupted = True
        self._has_ended = True

    def _reached(self) -> Checkpoint:
        position = self._tail.position
        return replace(
            self._saved,
            segment=position.segment,
            offset=position.offset,
            oldest_open_segment=self._progress.oldest_open_segment(position),
            damaged=tuple(sorted(self._tail.damaged)),
        )

    def _save(self, checkpoint: Checkpoint) -> None:
        self._checkpoints.save(self.journal.name, checkpoint)
        self._saved = checkpoint
