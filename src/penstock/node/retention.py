"""Deletes journals that are shipped, after a while. Nothing else is ever deleted."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from penstock.node.checkpoints import Checkpoints
from penstock.node.progress import Checkpoint
from penstock.node.recovery import Journal, is_alive
from penstock.node.tail import list_segments, segment_path


def deletable_segments(numbers: Iterable[int], checkpoint: Checkpoint) -> list[int]:
    """Return the segments of a living worker's journal that nobody needs any more.

    They are shipped to their end, no open request began in them, and they are not damaged.
    """
    first_needed = min(checkpoint.segment, checkpoint.oldest_open_segment)
    return [n for n in numbers if n < first_needed and n not in checkpoint.damaged]


def is_deletable(checkpoint: Checkpoint, now_ns: int, retention_ns: int) -> bool:
    """Tell whether the journal of a dead worker may be deleted.

    One with damage stays, for somebody to look at. One without a request goes at once: workers
    that die at their start, again and again, must not fill the disk.
    """
    done_at_ns = checkpoint.done_at_ns
    if done_at_ns is None or checkpoint.damaged:
        return False
    return checkpoint.is_empty or now_ns - done_at_ns > retention_ns


def sweep(
    journals: Iterable[Journal], checkpoints: Checkpoints, now_ns: int, retention_ns: int
) -> list[Path]:
    """Delete what is shipped and old enough, and return it.

    Args:
        journals: All there are.
        checkpoints: How far each is shipped, as the disk knows it.
        now_ns: Nanoseconds since the Unix epoch.
        retention_ns: How long to keep what is shipped.

    Raises:
        OSError: Something cannot be deleted.
    """
    deleted: list[Path] = []
    names = set()
    for journal in journals:
        names.add(journal.name)
        checkpoint = checkpoints.get(journal.name)
        if is_deletable(checkpoint, now_ns, retention_ns) or _is_void(
            journal, now_ns, retention_ns
        ):
            shutil.rmtree(journal.path)
            checkpoints.delete(journal.name)
            deleted.append(journal.path)
            continue
        for number in deletable_segments(list_segments(journal.path), checkpoint):
            path = segment_path(journal.path, number)
            if checkpoint.done_at_ns is None and _is_old(path, now_ns, retention_ns):
                path.unlink()
                deleted.append(path)
    for name in checkpoints.list_names():
        if name not in names:
            # Its journal was deleted, and we were stopped before we could forget it.
            checkpoints.delete(name)
    return deleted


def _is_void(journal: Journal, now_ns: int, retention_ns: int) -> bool:
    """Tell whether a worker died before it wrote anything."""
    is_empty = not list_segments(journal.path) and not is_alive(journal)
    return is_empty and _is_old(journal.path, now_ns, retention_ns)


def _is_old(path: Path, now_ns: int, retention_ns: int) -> bool:
    return now_ns - path.stat().st_mtime_ns > retention_ns
