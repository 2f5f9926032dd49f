"""Goes over many stored records to renew each of them, and may be interrupted anywhere.

What is stored and what renewing means is told by the caller: data keys that are wrapped anew,
secrets that are encrypted anew. A batch and the progress behind it are stored in one transaction,
so a run that was killed goes on behind the last batch, and nothing is renewed twice. At the end
the records that are still outdated are counted: the old key goes when there are none, not when the
run believes to be done.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

BATCH_SIZE = 100
MAX_PASSES = 5


class Identified(Protocol):
    """A record with an id."""

    @property
    def id(self) -> str:
        """Unique among the records; batches come in its order."""
        ...


Record = TypeVar("Record", bound=Identified)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a rotation came; stored with each batch."""

    cursor: str | None = None
    """Id of the last record that was looked at; None at the start of a pass."""
    passes: int = 0
    """Passes that came to their end."""
    renewed: int = 0
    """Records that were renewed, in all passes."""
    unreadable: int = 0
    """Records of this pass that could not be renewed because they do not open."""
    is_finished: bool = False
    """Whether the rotation came to its end; the next one starts anew."""


@dataclass(frozen=True, slots=True)
class Batch(Generic[Record]):
    """What is to be stored after a batch was looked at: all of it or nothing."""

    renewed: tuple[tuple[Record, Record], ...]
    """Each record as it was, and as it shall be. One that is not any more as it was is left."""
    unreadable: tuple[Record, ...]
    """Records to put aside: their owner has to give the secret again."""
    progress: Progress


class Archive(Protocol[Record]):
    """Where the records are."""

    async def load(self) -> Progress | None:
        """Return what `store` last got, or None."""
        ...

    async def list_after(self, cursor: str | None, limit: int) -> Sequence[Record]:
        """Return the next records by id, behind `cursor`; none at the end.

        Records that are current already may be among them.
        """
        ...

    async def store(self, batch: Batch[Record]) -> None:
        """Store a batch and its progress in one transaction."""
        ...

    async def count_outdated(self) -> int:
        """Count the records that are still to be renewed, the unreadable ones included."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How a rotation ended."""

    renewed: int
    """Records that were renewed, over all starts of the rotation."""
    unreadable: int
    """Records that do not open."""
    outdated: int
    """Records that still need the old key, counted at the end."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing needs the old key any more, so that it may be destroyed."""
        return self.outdated == 0


async def rotate(
    archive: Archive[Record],
    renew: Callable[[Record], Record | None],
    *,
    unreadable: tuple[type[Exception], ...],
    batch_size: int = BATCH_SIZE,
) -> Report:
    """Renew every record; goes on where the last run was interrupted.

    Records that appear or change behind the cursor while it runs are found by the count at the
    end, and get another pass, up to five.

    Args:
        archive: Where the records are.
        renew: Returns the renewed record, or None for one that is current. Pure but for the key
            keepers that it asks; it runs in a thread and may block.
        unreadable: What `renew` raises for a record that will never open. It is put aside and the
            run goes on. Any other exception ends the run; what was stored stays.
        batch_size: Records in a transaction, >= 1.

    Returns:
        What was done. Only when `is_complete` is the old key needed no more.
    """
    progress = await archive.load()
    if progress is None or progress.is_finished:
        progress = Progress()
    while True:
        progress = await _pass(archive, renew, progress, unreadable, batch_size)
        outdated = await archive.count_outdated()
        is_last = outdated <= progress.unreadable or progress.passes >= MAX_PASSES
        if is_last:
            await archive.store(Batch((), (), replace(progress, is_finished=True)))
            return Report(
                renewed=progress.renewed, unreadable=progress.unreadable, outdated=outdated
            )
        progress = replace(progress, unreadable=0)


async def _pass(
    archive: Archive[Record],
    renew: Callable[[Record], Record | None],
    progress: Progress,
    unreadable: tuple[type[Exception], ...],
    batch_size: int,
) -> Progress:
    while records := await archive.list_after(progress.cursor, batch_size):
        renewed, bad = await asyncio.to_thread(_renew, records, renew, unreadable)
        progress = replace(
            progress,
            cursor=records[-1].id,
            renewed=progress.renewed + len(renewed),
            unreadable=progress.unreadable + len(bad),
        )
        await archive.store(Batch(renewed, bad, progress))
    return replace(progress, cursor=None, passes=progress.passes + 1)


def _renew(
    records: Sequence[Record],
    renew: Callable[[Record], Record | None],
    unreadable: tuple[type[Exception], ...],
) -> tuple[tuple[tuple[Record, Record], ...], tuple[Record, ...]]:
    renewed, bad = [], []
    for record in records:
        try:
            fresh = renew(record)
        except unreadable:
            bad.append(record)
        else:
            if fresh is not None:
                renewed.append((record, fresh))
    return tuple(renewed), tuple(bad)
