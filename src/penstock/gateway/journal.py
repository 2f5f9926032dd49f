"""Step 8, journal: what was admitted and what it consumed, on disk before it matters.

OPEN is written before a request is sent to an engine, CLOSE before the last byte of its answer
is released: a kill -9 at any moment loses nothing. The first record of a loop turn is written at
once, so that a lone request waits for nobody; those behind it in the same turn go out in one
`write` at the turn's end. `fsync` follows in the background within 10 ms, which bounds what a
power cut takes; strict mode waits for it.

Segments are allocated ahead, as many as it takes, and each OPEN reserves the room of its CLOSE, so
a full disk stops admission and never a record. See docs/adr/0004.
"""

import asyncio
import errno
import fcntl
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Protocol

from penstock.contract.finished import Course
from penstock.contract.journal import (
    LOCK_FILE,
    SEGMENT_SUFFIX,
    Begin,
    Close,
    Open,
    encode_record,
)
from penstock.contract.usage import UsageEvent
from penstock.gateway import log_events
from penstock.gateway.limits import JOURNAL_SEGMENTS_AHEAD, SYNC_S

_CLOSE_EXTRA_BYTES = 1536
"""How much longer a CLOSE can be than its OPEN: counts, times, error code, flags, secret, the
engine's names, what was tried before and where, and who said no."""
_SLACK_BYTES = 4096
"""Bytes at a segment's end that may stay unused since the next record does not fit."""
_RETRY_S = 0.25


class Recorded(Protocol):
    """A request whose life is recorded: an exchange."""

    reserved_bytes: int
    """Room kept for its CLOSE; the journal's to set."""
    request_id: str

    @property
    def trace_id(self) -> str:
        """Its trace; "" when there is none."""

    def opened(self) -> None:
        """Go on: OPEN is written, the engine may see the request."""

    def closed(self) -> None:
        """Go on: CLOSE is written (in strict mode: synced), the last byte may leave."""


Then = Callable[[], None]
Sync = Callable[[int], None]


class _Segment:
    """One allocated file and how far it is written."""

    __slots__ = ("descriptor", "offset", "path", "size")

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        self.offset = 0
        self.descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_EXCL, 0o600)
        try:
            os.posix_fallocate(self.descriptor, 0, size)
        except OSError:
            os.close(self.descriptor)
            path.unlink()
            raise

    def end(self, sync: Sync) -> None:
        """Give the unused rest back and close."""
        os.ftruncate(self.descriptor, self.offset)
        sync(self.descriptor)
        os.close(self.descriptor)
        if self.offset == 0:
            self.path.unlink()


class Journal:
    """The journal of one worker's life.

    Args:
        path: Folder of all journals; this one makes `<slot>-<epoch:08d>` in it.
        node_id: Node that the worker belongs to.
        slot: The worker's slot.
        epoch: Start number of this worker.
        loop: The running loop.
        wall_ns: Wall clock, nanoseconds.
        segment_bytes: Size of a segment, >= 64 KiB.
        is_strict: Whether CLOSE waits for fsync and not only for write.

    Raises:
        OSError: The folder or the first segment cannot be made.
    """

    sync: Sync = staticmethod(os.fdatasync)
    """Brings what was written to a descriptor to the disk, or raises OSError."""

    def __init__(
        self,
        path: Path,
        *,
        node_id: str,
        slot: int,
        epoch: int,
        loop: asyncio.AbstractEventLoop,
        wall_ns: Callable[[], int],
        segment_bytes: int,
        is_strict: bool = False,
    ) -> None:
        """See the class."""
        self._folder = path / f"{slot}-{epoch:08d}"
        self._folder.mkdir(parents=True, mode=0o700)
        self._lock = os.open(self._folder / LOCK_FILE, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._producer = f"{node_id}/{slot}"
        self._epoch = epoch
        self._loop = loop
        self._wall_ns = wall_ns
        self._segment_bytes = segment_bytes
        self._is_strict = is_strict
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._space_thread = ThreadPoolExecutor(1, thread_name_prefix="journal-space")
        """Makes segments: a slow fsync must not keep the next one from being there in time."""
        self._number = 1
        self._segment = _Segment(self._segment_path(1), segment_bytes)
        self._ahead: deque[_Segment] = deque()
        """Those that come next, in order."""
        self._ahead_bytes = 0
        """How much surely goes into them."""
        self._preparing: Future[_Segment] | None = None
        self._has_failed_to_prepare = False
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._after_write: list[Then] = []
        self._after_sync: list[Then] = []
        self._is_turn_known = False
        """A record was written in this loop turn already: the next ones wait for its end."""
        self._is_sync_due = False
        self._reserved = 0
        self._is_stuck = False
        self._is_finished = False
        self.is_broken = False
        """Set when fsync failed: what is on disk is unknown, so this worker must end."""
        self.on_broken: Then = lambda: None
        self.on_synced: Callable[[float], None] = lambda _: None
        """Told the seconds that each sync took, until the loop knew of it."""
        self.record_count = 0
        self.byte_count = 0
        self.sync_count = 0
        self._begin()

    @property
    def waiting_bytes(self) -> int:
        """How much is not written yet; much only while there is no space."""
        return self._pending_bytes

    @property
    def can_admit(self) -> bool:
        """Whether one more OPEN, and the CLOSE of everything open, surely fit."""
        if self._is_stuck or self.is_broken:
            return False
        current = self._segment
        spare = current.size - current.offset - self._pending_bytes + self._ahead_bytes
        return spare - self._reserved > 2 * _SLACK_BYTES

    def open(self, record: Open, request: Recorded) -> None:
        """Record that a request is about to be sent, then let it go on.

        Once more for the same request means that it goes to another target: the later record
        counts.

        Args:
            record: Who asks for what.
            request: Its `opened` is called once the record is written, maybe before this returns.
        """
        frame = encode_record(record)
        self._reserved -= request.reserved_bytes
        request.reserved_bytes = len(frame) + _CLOSE_EXTRA_BYTES
        self._reserved += request.reserved_bytes
        self._after_write.append(request.opened)
        self._append(frame)

    def close(self, event: UsageEvent, request: Recorded, course: Course | None = None) -> None:
        """Record what a request consumed, then let it go on.

        Args:
            event: Its usage event.
            request: What was given to `open`; its `closed` is called once the record is written
                (in strict mode: synced), maybe before this returns.
            course: How it went.
        """
        frame = encode_record(Close(event, course))  # first: what cannot be written changes nothing
        self._reserved -= request.reserved_bytes
        (self._after_sync if self._is_strict else self._after_write).append(request.closed)
        self._append(frame)

    def finish(self) -> None:
        """Write and sync what is left, then let go of the folder. Blocks; for the end only."""
        self._unstick() if self._is_stuck else self._flush()
        self._is_finished = True
        self._thread.shutdown(wait=True)
        self._space_thread.shutdown(wait=True)
        if self._preparing is not None and self._preparing.exception() is None:
            self._add(self._preparing.result())
        for segment in (self._segment, *self._ahead):
            segment.end(self.sync)
        self._run(self._after_sync)
        os.close(self._lock)

    def _segment_path(self, number: int) -> Path:
        return self._folder / f"{number:08d}{SEGMENT_SUFFIX}"

    def _begin(self) -> None:
        """Put the first record of a segment before all others."""
        frame = encode_record(Begin(self._producer, self._epoch, self._number, self._wall_ns()))
        self._pending.insert(0, frame)
        self._pending_bytes += len(frame)
        self.record_count += 1

    def _append(self, frame: bytes) -> None:
        segment = self._segment
        self.record_count += 1
        if segment.offset + self._pending_bytes + len(frame) > segment.size:
            self._rotate()
        self._pending.append(frame)
        self._pending_bytes += len(frame)
        if not self._is_turn_known:
            # Calls made by what goes on now fall into the same turn, and are batched.
            self._is_turn_known = True
            self._loop.call_soon(self._end_turn)
            self._flush()

    def _end_turn(self) -> None:
        self._is_turn_known = False
        if self._pending or self._after_write:  # a sync may have written them already
            self._flush()

    def _rotate(self) -> None:
        """Go on in the next segment; its room was made sure of by `can_admit`.

        What cannot be written now stays pending, in order, until `_unstick`.
        """
        if self._segment.offset + self._pending_bytes <= self._segment.size:
            self._write()
        if self._is_stuck:
            return
        if not self._ahead and self._preparing is not None:
            self._is_stuck = True  # for the moment until it is there
            return
        if not self._ahead:
            try:
                self._add(_Segment(self._segment_path(self._number + 1), self._segment_bytes))
            except OSError as error:
                self._stick(error)
                return
        old, self._segment = self._segment, self._ahead.popleft()
        self._ahead_bytes -= self._segment.size - _SLACK_BYTES
        self._number += 1
        work = self._loop.run_in_executor(self._thread, old.end, self.sync)
        work.add_done_callback(partial(self._synced, perf_counter()))
        self._begin()

    def _flush(self) -> None:
        """Write what is pending, then let what waited for it go on."""
        if self._is_stuck:
            return
        self._write()
        if self._is_stuck:
            return
        if not self._is_sync_due:
            self._is_sync_due = True
            self._loop.call_later(0 if self._after_sync else SYNC_S, self._start_sync)
        if self._segment.offset + self._reserved > self._ahead_bytes:  # else there is enough
            self._look_ahead()
        self._run(self._after_write)

    def _write(self) -> None:
        segment = self._segment
        if self._pending:
            content = self._pending[0] if len(self._pending) == 1 else b"".join(self._pending)
            try:
                written = os.pwrite(segment.descriptor, content, segment.offset)
            except OSError as error:
                self._stick(error)
                return
            if written < len(content):
                # Written again as a whole: a segment must not begin with the rest of a frame.
                self._stick(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
                return
            segment.offset += written
            self.byte_count += written
            self._pending = []
            self._pending_bytes = 0

    def _stick(self, error: OSError) -> None:
        """Stop admitting, keep everything, try again in a while."""
        if not self._is_stuck:
            name = errno.errorcode.get(error.errno or 0, "?")
            log_events.JOURNAL_STUCK.log(error=name, path=self._folder)
        self._is_stuck = True
        self._loop.call_later(_RETRY_S, self._unstick)

    def _unstick(self) -> None:
        self._is_stuck = False
        segment = self._segment
        if segment.offset + self._pending_bytes > segment.size:
            self._rotate()
        if not self._is_stuck:
            self._flush()

    def _look_ahead(self) -> None:
        """Have a segment made when less than half of one is left beside what is reserved."""
        left = self._segment.size - self._segment.offset + self._ahead_bytes - self._reserved
        if left * 2 < self._segment.size and not self._has_failed_to_prepare:
            self._prepare_next()

    def _add(self, segment: _Segment) -> None:
        self._ahead.append(segment)
        self._ahead_bytes += segment.size - _SLACK_BYTES

    def _prepare_next(self) -> None:
        is_enough = len(self._ahead) >= JOURNAL_SEGMENTS_AHEAD
        if self._preparing is not None or is_enough or self._is_finished:
            return
        path, size = self._segment_path(self._number + len(self._ahead) + 1), self._segment_bytes
        self._preparing = self._space_thread.submit(_Segment, path, size)
        work = asyncio.wrap_future(self._preparing, loop=self._loop)
        work.add_done_callback(self._prepared)

    def _prepared(self, work: "asyncio.Future[_Segment]") -> None:
        self._preparing = None
        error = work.exception()
        if error is None:
            self._add(work.result())
            if self._has_failed_to_prepare:
                log_events.JOURNAL_HAS_SPACE.log(path=self._folder)
            self._has_failed_to_prepare = False
            self._look_ahead()
        else:
            if not self._has_failed_to_prepare:
                log_events.JOURNAL_NOT_AHEAD.log(error=error, path=self._folder)
            self._has_failed_to_prepare = True
            self._loop.call_later(_RETRY_S, self._prepare_next)
        if self._is_stuck:
            self._unstick()

    def _start_sync(self) -> None:
        """Sync in the thread; what is written meanwhile is synced by the next round."""
        if self._is_finished:
            return
        if not self._is_stuck:
            self._write()
        if self._is_stuck:
            self._loop.call_later(_RETRY_S, self._start_sync)
            return
        waiting, self._after_sync = self._after_sync, []
        work = self._loop.run_in_executor(self._thread, self.sync, self._segment.descriptor)
        written, began_s = self.byte_count, perf_counter()

        def synced(work: "asyncio.Future[None]") -> None:
            self._synced(began_s, work)
            if self.is_broken:
                return
            self._run(waiting)
            self._is_sync_due = self.byte_count != written
            if self._is_sync_due:
                self._loop.call_later(0 if self._after_sync else SYNC_S, self._start_sync)

        work.add_done_callback(synced)

    def _synced(self, began_s: float, work: "asyncio.Future[None]") -> None:
        """Count a sync; one that failed leaves unknown what is on disk, and is not tried again."""
        self.sync_count += 1
        self.on_synced(perf_counter() - began_s)
        error = work.exception()
        if error is not None and not self.is_broken:
            log_events.JOURNAL_NOT_SYNCED.log(error=error)
            self.is_broken = True
            self.on_broken()

    def _run(self, waiting: list[Then]) -> None:
        if not waiting:
            return
        now = waiting.copy()
        waiting.clear()
        for then in now:
            try:
                then()
            except Exception as error:  # noqa: BLE001  # one request's bug must not strand those that wait beside it
                request: Recorded = then.__self__  # type: ignore[attr-defined]  # a method of it
                log_events.REQUEST_FAILED.log(
                    bug=error, request_id=request.request_id, trace_id=request.trace_id
                )
