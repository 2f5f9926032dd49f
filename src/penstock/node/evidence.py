"""What the journals on this disk say was used: read beside whoever writes and ships them.

Nothing is changed, and nobody is waited for. It is what is compared with what was stored.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from penstock.contract.journal import Close, scan
from penstock.contract.usage import UsageEvent
from penstock.node.checkpoints import Checkpoints
from penstock.node.progress import Position, Progress
from penstock.node.recovery import Journal, interrupted_events, list_journals
from penstock.node.tail import list_segments, segment_path


class Evidence(NamedTuple):
    """An event of a journal."""

    producer: str
    epoch: int
    event: UsageEvent
    is_shipped: bool
    """Whether the usage store has acknowledged it."""


def read_evidence(journals: Path, checkpoints: Checkpoints, node_id: str) -> Iterator[Evidence]:
    """Return all events of the journals in a folder, life by life, each in order of writing.

    What a dead worker left open has an event when its journal is shipped to the end; before that
    there is none. A segment that goes meanwhile is left out: it was shipped long ago.

    Args:
        journals: The folder.
        checkpoints: How far each is shipped.
        node_id: Of the node that wrote them.

    Raises:
        OSError: One cannot be read.
    """
    for journal in list_journals(journals):
        producer = f"{node_id}/{journal.slot}"
        # Read first: what is shipped while we read counts as not shipped, never the reverse.
        checkpoint = checkpoints.get(journal.name)
        progress = Progress(checkpoint)
        for event, end in _read_events(journal, progress):
            yield Evidence(producer, journal.epoch, event, end <= checkpoint.position)
        if checkpoint.done_at_ns is not None and checkpoint.ended_at_ns is not None:
            for event in interrupted_events(progress.unclosed, checkpoint.ended_at_ns):
                yield Evidence(producer, journal.epoch, event, is_shipped=True)


def _read_events(journal: Journal, progress: Progress) -> Iterator[tuple[UsageEvent, Position]]:
    for number in list_segments(journal.path):
        try:
            content = segment_path(journal.path, number).read_bytes()
        except FileNotFoundError:
            continue
        for record, offset in scan(content):
            end = Position(number, offset)
            progress.follow(record, end)
            if isinstance(record, Close):
                yield record.event, end
