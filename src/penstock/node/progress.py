"""What has become of a journal's records: pure, no I/O.

`Progress` follows the records in their order, tells which usage events are to be shipped, and
keeps the requests that have begun and not ended, which are as many as are in flight.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from penstock.contract.journal import Begin, Close, Open, Record
from penstock.contract.usage import UsageEvent


class Position(NamedTuple):
    """Where a frame begins or ends: positions sort in the order of writing."""

    segment: int = 1
    offset: int = 0


class Checkpoint(msgspec.Struct, frozen=True):
    """How far a journal is shipped. It has the same few bytes whatever is in flight.

    To lose it, or to have an older one, costs work and nothing else: events are shipped again,
    and count once.
    """

    segment: int = 1
    offset: int = 0
    """All events before this place of this segment are stored."""
    oldest_open_segment: int = 1
    """No request that was open at that place began before this segment."""
    damaged: tuple[int, ...] = ()
    """Segments with damage in them: never deleted."""
    ended_at_ns: int | None = None
    """When the dead worker last wrote; fixed before the first event that says so is shipped."""
    done_at_ns: int | None = None
    """When everything was stored, of a dead worker."""
    is_empty: bool = False
    """No request was in it: the worker died before the first."""
    told_segment: int = 0
    """The store was told that it has everything before this place of this segment; 0 for nothing.
    A store that knows of less later was set back to an earlier point."""
    told_offset: int = 0

    @property
    def position(self) -> Position:
        """Where shipping goes on."""
        return Position(self.segment, self.offset)

    @property
    def told(self) -> Position:
        """What the store was told to have."""
        return Position(self.told_segment, self.told_offset)


def set_back(checkpoint: Checkpoint, place: Position, segments: Sequence[int]) -> Checkpoint:
    """Return the checkpoint of a journal that is shipped again from an earlier place.

    Where that place was deleted, it is shipped from the first one that is there.

    Args:
        checkpoint: Of the journal.
        place: What the store has of it.
        segments: Those that are there, in order.
    """
    first = segments[0] if segments else 1
    start = max(place, Position(first, 0))
    return msgspec.structs.replace(
        checkpoint,
        segment=start.segment,
        offset=start.offset,
        oldest_open_segment=first,
        done_at_ns=None,
        is_empty=False,
        told_segment=place.segment,
        told_offset=place.offset,
    )


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    """Return the checkpoint as JSON, for people to read."""
    return msgspec.json.encode(checkpoint) + b"\n"


def decode_checkpoint(content: bytes) -> Checkpoint:
    """Return the checkpoint; the beginning of everything when it is damaged."""
    try:
        return msgspec.json.decode(content, type=Checkpoint)
    except msgspec.DecodeError:
        return Checkpoint()


class Progress:
    """Follows a journal from the oldest segment that can hold an open request.

    Args:
        checkpoint: Events before it are stored already: they are followed, but not shipped.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        """See the class."""
        self.has_requests = False
        """Whether there was anything but the heads of segments."""
        self._stored = checkpoint.position
        self._unclosed: dict[str, tuple[int, Open]] = {}

    @property
    def unclosed(self) -> list[Open]:
        """Requests that have begun and not ended, in the order in which they began."""
        return [opened for _, opened in self._unclosed.values()]

    def follow(self, record: Record, end: Position) -> UsageEvent | None:
        """Take the next record.

        Args:
            record: The record.
            end: The place behind it.

        Returns:
            The event to ship, if the record holds one that is not stored yet.
        """
        match record:
            case Open():
                self.has_requests = True
                # Another target of the same request counts from here: the order is of records.
                self._unclosed.pop(record.event_id, None)
                self._unclosed[record.event_id] = (end.segment, record)
            case Close(event):
                self.has_requests = True
                self._unclosed.pop(event.event_id, None)
                return event if end > self._stored else None
            case Begin():
                pass
        return None

    def oldest_open_segment(self, position: Position) -> int:
        """Return the segment in which the oldest open request began, at this position reached."""
        oldest = next((segment for segment, _ in self._unclosed.values()), position.segment)
        return min(oldest, position.segment)
