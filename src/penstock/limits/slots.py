"""Slots of numbers in a file that is mapped into memory: whenever the process is killed, they stay.

The file is an array of slots of 1 KiB. Each has a kind (0: free), the digest of a name, a spare
number, and 124 cells for whoever has claimed it. It grows by chunks, whose space on the
disk is there before they are used, and never shrinks. An index from digest to slot is built when it
is opened. Of two writes the earlier one is never missing when the later one is there, as long as
the machine stays up; what a machine loses with its power is what was not yet synced.
"""

import contextlib
import errno
import mmap
import os
import struct
from array import array
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path

SLOT_CELLS = 128
CELLS = 124
"""Those of a slot that its owner has."""
CHUNK_SLOTS = 4_096
MOST_CHUNKS = 512
"""Two million slots, 2 GiB."""
_KIND, _DIGEST, _SPARE, _FIRST = 0, 1, 3, 4
_CHUNKS = _DIGEST
"""Slot 0 is the header: how many chunks there are is where the others have their digest."""
_CELL_BYTES = 8
_CHUNK_BYTES = CHUNK_SLOTS * SLOT_CELLS * _CELL_BYTES
_MAGIC = int.from_bytes(b"pslimit1")
_pair = struct.Struct("=qq")


class SlotsDamagedError(Exception):
    """The file is not what `Slots` has left."""


class Slots:
    """See the module.

    Args:
        path: The file, made when there is none; memory of this process alone when None.
        most_chunks: It does not grow beyond.

    Raises:
        SlotsDamagedError: What is in the file cannot be right.
        OSError: It cannot be read, or the disk is full.
    """

    def __init__(self, path: Path | None = None, most_chunks: int = MOST_CHUNKS) -> None:
        """See the class."""
        self._most_chunks = most_chunks
        self._file = -1
        self._chunks: list[memoryview[int]] = []
        self._index: dict[bytes, int] = {}
        self._free: list[int] = []
        self._hand = 0
        if path is None:
            self._grow()
            return
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    @property
    def header(self) -> "memoryview[int]":
        """Cells that belong to no name."""
        return self._chunks[0][_FIRST:SLOT_CELLS]

    @property
    def claimed_count(self) -> int:
        """How many slots are claimed."""
        return len(self._index)

    def find(self, digest: bytes) -> int | None:
        """Return the slot of a name."""
        return self._index.get(digest)

    def claim(
        self, digest: bytes, kind: int, *, spare: int = 0, content: Iterable[int] = ()
    ) -> int:
        """Return a slot for a name that has none.

        Args:
            digest: Of the name, as `digest_of` makes it.
            kind: What it is for, > 0.
            spare: To be kept with it.
            content: Its first cells; the others are 0.

        Raises:
            OSError: The disk is full, or the file as large as it may be.
        """
        if not self._free:
            self._grow()
        number = self._free.pop()
        chunk, first = self._place(number)
        chunk[first + _DIGEST], chunk[first + _DIGEST + 1] = _pair.unpack(digest)
        chunk[first + _SPARE] = spare
        cells = array("q", content)
        cells.frombytes(bytes((CELLS - len(cells)) * _CELL_BYTES))
        chunk[first + _FIRST : first + SLOT_CELLS] = memoryview(cells)
        # Last: whoever opens the file after a kill finds it whole, or not at all.
        chunk[first + _KIND] = kind
        self._index[digest] = number
        return number

    def release(self, number: int) -> None:
        """Have a slot be free again."""
        chunk, first = self._place(number)
        chunk[first + _KIND] = 0
        del self._index[self._digest(number)]
        self._free.append(number)

    def cells(self, number: int) -> "memoryview[int]":
        """Return the cells of a slot."""
        chunk, first = self._place(number)
        return chunk[first + _FIRST : first + SLOT_CELLS]

    def kind(self, number: int) -> int:
        """Return what a slot is for."""
        chunk, first = self._place(number)
        return chunk[first + _KIND]

    def spare(self, number: int) -> int:
        """Return what is kept with a slot."""
        chunk, first = self._place(number)
        return chunk[first + _SPARE]

    def claimed(self) -> Iterator[int]:
        """Yield all claimed slots."""
        yield from self._index.values()

    def pass_by(self, count: int) -> Iterator[int]:
        """Yield the next claimed ones of so many slots, again and again through all of them."""
        for _ in range(count):
            self._hand = (self._hand + 1) % (len(self._chunks) * CHUNK_SLOTS)
            if self._hand and self.kind(self._hand):  # slot 0 is nobody's
                yield self._hand

    def sync(self) -> None:
        """Wait until what was written is on the disk. May be called in another thread."""
        if self._file >= 0:
            os.fdatasync(self._file)

    def close(self) -> None:
        """Let go of the file; cells that somebody still has stay as they are."""
        if self._file >= 0:
            with contextlib.suppress(OSError):
                self.sync()
            os.close(self._file)
            self._file = -1

    def _open(self) -> None:
        size = os.fstat(self._file).st_size
        if size < _CHUNK_BYTES and not any(os.pread(self._file, _CELL_BYTES, 0)):
            self._grow()
            return
        magic, count = _pair.unpack(os.pread(self._file, _pair.size, 0).ljust(_pair.size, b"\0"))
        if magic != _MAGIC or not 0 < count <= size // _CHUNK_BYTES:
            message = f"{size} bytes that do not begin as they should"
            raise SlotsDamagedError(message)
        for number in range(count):
            self._map(number * _CHUNK_BYTES)
        for number in range(len(self._chunks) * CHUNK_SLOTS - 1, 0, -1):
            if not self.kind(number):
                self._free.append(number)
                continue
            digest = self._digest(number)
            if self.kind(number) < 0 or digest in self._index:
                message = f"slot {number} cannot be right"
                raise SlotsDamagedError(message)
            self._index[digest] = number

    def _grow(self) -> None:
        if len(self._chunks) >= self._most_chunks:
            raise OSError(errno.ENOSPC, "all slots are claimed")
        number = len(self._chunks) * CHUNK_SLOTS
        offset = len(self._chunks) * _CHUNK_BYTES
        if self._file >= 0:
            # To write to a page that the full disk has no room for would kill the process.
            os.posix_fallocate(self._file, offset, _CHUNK_BYTES)
        self._map(offset)
        self._free += range(number + CHUNK_SLOTS - 1, max(number - 1, 0), -1)
        # A chunk counts from here on; one that is half made is made again.
        self._chunks[0][_CHUNKS] = len(self._chunks)
        self._chunks[0][_KIND] = _MAGIC

    def _map(self, offset: int) -> None:
        chunk = (
            mmap.mmap(-1, _CHUNK_BYTES)
            if self._file < 0
            else mmap.mmap(self._file, _CHUNK_BYTES, offset=offset)
        )
        self._chunks.append(memoryview(chunk).cast("q"))

    def _place(self, number: int) -> "tuple[memoryview[int], int]":
        return self._chunks[number // CHUNK_SLOTS], number % CHUNK_SLOTS * SLOT_CELLS

    def _digest(self, number: int) -> bytes:
        chunk, first = self._place(number)
        return _pair.pack(chunk[first + _DIGEST], chunk[first + _DIGEST + 1])


def text_cells(text: str, count: int) -> list[int]:
    """Return cells that hold a text.

    Raises:
        ValueError: It is too long for so many.
    """
    content = text.encode()
    if len(content) > count * _CELL_BYTES:
        message = f"a name of {len(content)} bytes is too long"
        raise ValueError(message)
    return list(memoryview(content.ljust(count * _CELL_BYTES, b"\0")).cast("q"))


def text_of(cells: "memoryview[int]") -> str:
    """Return the text that cells hold.

    Raises:
        SlotsDamagedError: They hold none.
    """
    try:
        return cells.tobytes().rstrip(b"\0").decode()
    except UnicodeDecodeError:
        message = "a name is no text"
        raise SlotsDamagedError(message) from None


def digest_of(name: str) -> bytes:
    """Return what a name is found by: 128 bits, which no two names share."""
    return blake2b(name.encode(), digest_size=_pair.size).digest()
