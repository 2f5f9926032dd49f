"""Finds a request in the journals on this disk: also what is not shipped yet, and what never is.

Nothing is changed, and nobody is waited for. Segments are searched for the name as bytes first, so
only those that hold it are decoded.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock.contract.journal import Close, Open, Record, scan
from penstock.node.recovery import list_journals
from penstock.node.tail import list_segments, segment_path

MAX_TRAILS: Final = 20
"""Requests that are returned: callers may use an id again, and a trace may have many."""


@dataclass(slots=True)
class Trail:
    """What a journal says of one request."""

    event_id: str
    journal: str
    """Slot and epoch of the worker that served it."""
    opened: Open | None = None
    closed: Close | None = None
    """None while it is under way, or when its worker died."""


def find_trails(journals: Path, name: str) -> list[Trail]:
    """Return requests that are called so, those that began first first.

    Args:
        journals: Folder of the node's journals.
        name: A request's id, its event's id, or that of its trace.

    Raises:
        OSError: A journal cannot be read.
    """
    found: dict[str, Trail] = {}
    for journal in list_journals(journals):
        for number in list_segments(journal.path):
            try:
                content = segment_path(journal.path, number).read_bytes()
            except FileNotFoundError:
                continue  # it was shipped long ago
            if name.encode() in content:
                _follow(found, journal.name, name, (record for record, _ in scan(content)))
    return [found[event_id] for event_id in sorted(found)][:MAX_TRAILS]


def _follow(found: dict[str, Trail], journal: str, name: str, records: Iterable[Record]) -> None:
    for record in records:
        if isinstance(record, Open):
            event_id, request_id, trace = record.event_id, record.request_id, record.trace
        elif isinstance(record, Close):
            event = record.event
            event_id, request_id = event.event_id, event.request_id
            trace = None if record.course is None else record.course.trace
        else:
            continue
        if name in {event_id, request_id} or (trace is not None and trace.trace_id == name):
            trail = found.setdefault(event_id, Trail(event_id, journal))
            if isinstance(record, Open):
                trail.opened = record
            else:
                trail.closed = record
