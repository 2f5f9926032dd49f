"""What a dead worker left: how it is known to be dead, and how its requests end."""

import fcntl
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from penstock.contract.journal import LOCK_FILE, Open, interrupted_event
from penstock.contract.usage import UsageEvent
from penstock.node.identity import parse_journal_name
from penstock.node.tail import last_written_segment, list_segments, segment_path


@dataclass(frozen=True, slots=True)
class Journal:
    """The journal of one worker's life."""

    path: Path
    slot: int
    epoch: int

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name


def list_journals(folder: Path) -> list[Journal]:
    """Return the journals in a folder, oldest first; what is no journal is left out."""
    named = ((path, parse_journal_name(path.name)) for path in folder.iterdir())
    journals = [Journal(path, *ids) for path, ids in named if ids is not None]
    return sorted(journals, key=lambda journal: (journal.epoch, journal.slot))


def is_alive(journal: Journal) -> bool:
    """Tell whether a worker holds the journal's lock."""
    try:
        descriptor = os.open(journal.path / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Shared is enough to meet the worker's exclusive lock.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def find_living(folder: Path) -> frozenset[str]:
    """Return the names of the journals in a folder whose workers live."""
    return frozenset(journal.name for journal in list_journals(folder) if is_alive(journal))


def is_dead(journal: Journal) -> bool:
    """Tell whether the worker of a journal is surely no more, so that no record can come.

    A worker takes its lock before it makes its first segment. Without a segment, or without a
    lock file, it may be about to start: nothing is touched then, not even the lock.
    """
    has_begun = (journal.path / LOCK_FILE).exists() and list_segments(journal.path)
    return bool(has_begun) and not is_alive(journal)


def ended_at_ns(journal: Journal) -> int:
    """Return when a dead worker last wrote: the same whenever it is asked."""
    number = last_written_segment(journal.path)
    path = journal.path if number is None else segment_path(journal.path, number)
    return path.stat().st_mtime_ns


def interrupted_events(unclosed: Iterable[Open], finished_at_ns: int) -> list[UsageEvent]:
    """Return the terminal events of the requests that a dead worker left open.

    The same journal gives the same events, so to end it twice counts once.
    """
    return [interrupted_event(opened, finished_at_ns) for opened in unclosed]
