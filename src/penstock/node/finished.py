"""Tells those who want to know of each request that has ended: traces, the access log.

What workers wrote into their journals is read a second time, beside the shipper and without it:
that waits for the control plane, and nobody who looks for trouble should. Nothing waits for this
reading: it takes so much at a time, and passes over the rest, counted. It begins at the end of what
is there.

What is told of is turned to bytes at once, by those who want to know, in the thread that reads: so
few objects live at a time, and lie where the processor has them. In between others have the core:
a worker or an engine that shares it would wait for milliseconds else, a third of the time. Where
there is much to tell of, since too little of the core was left, that ends.
"""

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from penstock.contract.finished import Course, FinishedRequest, finished_request
from penstock.contract.journal import Open, interrupted_event, read_closes
from penstock.contract.node import RefusedRequests
from penstock.node import log_events
from penstock.node.progress import Position
from penstock.node.recovery import Journal, is_dead, list_journals
from penstock.node.tail import Tail, count_frames, list_segments

POLL_S: Final = 0.25
AT_ONCE: Final = 20_000
"""Requests that are told of in one round; those beyond are passed over. At 20,000 a
second there are some 7,000 in a round, since to tell of them takes time, too."""
_CHUNKS_AT_ONCE: Final = 512
_IN_A_ROW: Final = 64
"""Requests that are told of before others have the core: it takes less than a millisecond."""
_HURRY: Final = AT_ONCE // 2
"""From so many in a round on nobody else is given the core: too many would be passed over."""

_Item = TypeVar("_Item")
Recipient: TypeAlias = Callable[[Sequence[FinishedRequest]], None]
"""Takes requests at once: what it cannot take, it drops and counts itself. It is called in a
thread, not in two at a time."""


class FinishedRequests:
    """The requests of a node as they end, each told once; those of dead workers at least once.

    Args:
        journals: Folder of the journals.
        recipients: Who wants to know; with none, nothing is read.
    """

    def __init__(self, journals: Path, recipients: Sequence[Recipient]) -> None:
        """See the class."""
        self.dropped = 0
        """Requests that nobody was told of."""
        self._journals = journals
        self._recipients = recipients
        self._readers: dict[str, _Reader] = {}
        self._over: set[str] = set()
        """Journals that are read to their end, or were before we came."""
        self._handed: deque[Sequence[FinishedRequest]] = deque()
        """Told of by others, in their turn."""
        self._is_first = True
        self._ending = asyncio.Event()
        # Always the same: what it needs of memory, each thread of a pool would keep.
        self._thread = ThreadPoolExecutor(1, "finished")

    @property
    def is_wanted(self) -> bool:
        """Whether anybody wants to know."""
        return bool(self._recipients)

    async def run(self) -> None:
        """Read and tell, until there is an end to it, and then once more what there is."""
        is_last = False
        while not is_last:
            is_last = self._ending.is_set()
            if not self.is_wanted:
                await self._ending.wait()
                continue
            try:
                await self.look()
            except OSError as error:
                log_events.FINISHED_REQUESTS_NOT_READ.log(error=error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._ending.wait()

    def end(self) -> None:
        """Have `run` return, once what is there by now is told."""
        self._ending.set()

    async def look(self) -> None:
        """Read what is new, and tell of it.

        Raises:
            OSError: The folder of the journals cannot be read.
        """
        loop = asyncio.get_running_loop()
        self.dropped += await loop.run_in_executor(self._thread, self._read)

    def take(self, message: RefusedRequests) -> None:
        """Tell of what a worker refused, in the next round."""
        self.dropped += message.dropped
        self._hand(message.requests)

    def interrupted(self, opened: Iterable[Open], slot: int, finished_at_ns: int) -> None:
        """Tell of what a dead worker left open, in the next round.

        Args:
            opened: Its requests.
            slot: The worker's.
            finished_at_ns: When it last wrote.
        """
        self._hand(
            [
                finished_request(
                    interrupted_event(each, finished_at_ns),
                    # It was about to be sent when its OPEN was written; more is not known.
                    Course(
                        each.trace,
                        dispatched_at_ns=each.started_at_ns,
                        error_source="internal",
                    ),
                    slot,
                )
                for each in opened
            ]
        )

    def _hand(self, requests: Sequence[FinishedRequest]) -> None:
        if sum(map(len, self._handed)) + len(requests) > AT_ONCE:
            self.dropped += len(requests)
        elif requests and self.is_wanted:
            self._handed.append(requests)

    def _tell(self, requests: Sequence[FinishedRequest]) -> None:
        for recipient in self._recipients:
            recipient(requests)

    def _read(self) -> int:
        """Tell of what was handed over, and of what is new; return how many were passed over."""
        while self._handed:
            for few in _by_turns(self._handed.popleft()):
                self._tell(few)
        self._find()
        told = passed_over = 0
        for name, reader in list(self._readers.items()):
            try:
                more, too_many = reader.read(self._tell, AT_ONCE - told)
            except OSError as error:  # its place has not moved
                log_events.JOURNAL_NOT_READ.log(journal=name, error=error)
            else:
                told += more
                passed_over += too_many
            if reader.is_over:
                del self._readers[name]
                self._over.add(name)
        return passed_over

    def _find(self) -> None:
        journals = {journal.name: journal for journal in list_journals(self._journals)}
        self._over &= journals.keys()
        for name in self._readers.keys() - journals.keys():
            del self._readers[name]
        for name in journals.keys() - self._readers.keys() - self._over:
            if self._is_first and is_dead(journals[name]):
                self._over.add(name)
            else:
                self._readers[name] = _Reader(journals[name], is_old=self._is_first)
        self._is_first = False


class _Reader:
    """Reads one journal.

    Args:
        journal: Which one.
        is_old: What is in it already was told by somebody else, or never will be.
    """

    def __init__(self, journal: Journal, *, is_old: bool) -> None:
        self.is_over = False
        """Its worker is dead, and everything is read."""
        self._journal = journal
        self._tail = Tail(journal.path, _end_of(journal.path) if is_old else Position())
        self._is_idle = False

    def read(self, tell: Recipient, room: int) -> tuple[int, int]:
        """Tell of what is new; return of how many requests, and how many were passed over.

        Args:
            tell: Told of each.
            room: How many it may be told of.
        """
        slot = self._journal.slot
        told = passed_over = 0

        def parse(segment: int, content: bytes, offset: int) -> int:
            nonlocal told, passed_over
            del segment, offset
            closes, consumed = read_closes(content)
            wanted = closes[: room - told]
            for few in _by_turns(wanted, told):
                tell([finished_request(each.event, each.course, slot) for each in few])
            told += len(wanted)
            passed_over += len(closes) - len(wanted)
            return consumed

        # Asked before the reading: what is read after a "yes" is all that there is.
        may_be_over = self._is_idle and is_dead(self._journal)
        for _ in range(_CHUNKS_AT_ONCE):
            self._is_idle = not self._tail.advance(parse, is_dead=False)
            if self._is_idle:
                self.is_over = may_be_over
                break
        return told, passed_over


def _by_turns(items: Sequence[_Item], before: int = 0) -> Iterator[Sequence[_Item]]:
    """Yield a few at a time, and let others have the core in between.

    Args:
        items: What there is.
        before: How many there were in this round already.
    """
    for begin in range(0, len(items), _IN_A_ROW):
        yield items[begin : begin + _IN_A_ROW]
        if before + begin < _HURRY:
            os.sched_yield()


def _end_of(folder: Path) -> Position:
    """Return where the next record of a journal will be, as far as can be told."""
    numbers = list_segments(folder)
    tail = Tail(folder, Position(numbers[0] if numbers else 1, 0))
    while tail.advance(lambda _, content, __: count_frames(content)[1], is_dead=False):
        pass
    return tail.position
