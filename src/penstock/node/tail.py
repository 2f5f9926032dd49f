"""Reads a worker's journal while it is written: only what is new, only what is intact.

A segment's records end at the first frame that is not intact. In the segment that is written to,
that is where the next record will be: reading goes on there later. A segment is complete once the
next one has its first record, or once the worker is dead; what is behind the end of a complete
segment and is not zeros is damage. Segments are allocated ahead: that a file is there says nothing.
"""

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from penstock.contract.journal import FRAME_BYTES, MAX_RECORD_BYTES, SEGMENT_SUFFIX, scan
from penstock.node.progress import Position

CHUNK_BYTES = 128 * 1024
"""Read at once; more than any record. Segments are allocated ahead, so so much is read however
little is new: a megabyte at a time leaves holes in the heap that add up in hours."""
_read_length = struct.Struct("<I").unpack_from
_LENGTH_BYTES = 4
"""Of a frame's head: zeros here end the records."""

Parse: TypeAlias = Callable[[int, bytes, int], int]
"""Takes a segment's number, some of its content and the content's offset in it; returns how many
bytes of the content it has consumed."""


def segment_path(folder: Path, number: int) -> Path:
    """Return the file of a segment."""
    return folder / f"{number:08d}{SEGMENT_SUFFIX}"


def list_segments(folder: Path) -> list[int]:
    """Return the numbers of a journal's segments, in order."""
    stems = (path.stem for path in folder.iterdir() if path.suffix == SEGMENT_SUFFIX)
    return sorted(int(stem) for stem in stems if stem.isdecimal())


class Tail:
    """A place in a journal that moves on as the journal grows.

    Args:
        folder: The journal.
        position: Where to begin: a position that a tail had before, or the start of a segment.
        known: A position that a tail had before, not before `position`. It was reached once, so
            when damage is met on the way to it, reading goes on there.
    """

    def __init__(self, folder: Path, position: Position, known: Position | None = None) -> None:
        """See the class."""
        self.position = position
        self.damaged: set[int] = set()
        """Segments in which damage was found."""
        self._folder = folder
        self._known = known or position

    def advance(self, parse: Parse, *, is_dead: bool) -> bool:
        """Read one chunk, of whatever is new.

        Args:
            parse: Told what was read; the position moves by what it consumes.
            is_dead: Whether the worker was known to be dead before this call, so that nothing
                can be added to what is there.

        Returns:
            Whether there may be more to read at once; `False`: nothing intact is there now.

        Raises:
            OSError: The journal cannot be read; the position has not moved.
        """
        # Looked for before the reading: what it tells complete has no record written after.
        successor = self._find_successor(is_dead=is_dead)
        number, offset = self.position
        path = segment_path(self._folder, number)
        consumed = 0
        if any(_read(path, offset, _LENGTH_BYTES)):
            consumed = parse(number, _read(path, offset), offset)
        if consumed:
            self.position = Position(number, offset + consumed)
            return True
        is_cut_off = self.position < self._known and successor is None
        if is_cut_off or (number == self._known.segment and offset < self._known.offset):
            self.damaged.add(number)
            self.position = self._known
            return True
        if successor is not None or is_dead:
            self._check_damage()
        if successor is None:
            return False
        self.position = Position(successor, 0)
        return True

    def _find_successor(self, *, is_dead: bool) -> int | None:
        number = self.position.segment
        if is_dead or number < self._known.segment:
            # It was complete once: then the next file is where reading went on, with a record in
            # it or without. Numbers may be missing: a segment that was shipped may be deleted.
            return min((n for n in list_segments(self._folder) if n > number), default=None)
        following = segment_path(self._folder, number + 1)
        return number + 1 if _holds_a_record(following) else None

    def _check_damage(self) -> None:
        number, offset = self.position
        path = segment_path(self._folder, number)
        while number not in self.damaged and (content := _read(path, offset)):
            if content.strip(b"\0"):
                self.damaged.add(number)
            offset += len(content)


def _read(path: Path, offset: int, size_bytes: int = CHUNK_BYTES) -> bytes:
    """Return a part of a file, or nothing when the file is absent."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    try:
        return os.pread(descriptor, size_bytes, offset)
    finally:
        os.close(descriptor)


def _holds_a_record(path: Path) -> bool:
    # Nearly always it is absent or all zeros, so its first bytes are looked at first.
    if not any(_read(path, 0, _LENGTH_BYTES)):
        return False
    return next(scan(_read(path, 0)), None) is not None


def count_frames(content: bytes) -> tuple[int, int]:
    """Return how many whole frames the content begins with, and their size, without a check.

    Args:
        content: Of a segment, from a frame's beginning on.
    """
    count = offset = 0
    size = len(content)
    while offset + FRAME_BYTES <= size:
        (length,) = _read_length(content, offset)
        end = offset + FRAME_BYTES + length
        if not 0 < length <= MAX_RECORD_BYTES or end > size:
            break
        count += 1
        offset = end
    return count, offset


def last_written_segment(folder: Path) -> int | None:
    """Return the last segment that holds a record; the last of all when none does."""
    numbers = list_segments(folder)
    for number in reversed(numbers):
        if _holds_a_record(segment_path(folder, number)):
            return number
    return numbers[-1] if numbers else None
