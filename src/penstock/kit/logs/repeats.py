"""Keeps what repeats itself from drowning the rest: so many lines an interval, then a number."""

import logging
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass

from penstock.kit.logs.event import Entry

MOST = 20
"""Lines of one kind in an interval."""
INTERVAL_S = 60.0
MAX_KINDS = 1_000
"""How many kinds are counted at a time; the interval of the oldest ends early for a new one."""
APART = frozenset(
    {"slot", "source", "upstream", "endpoint", "journal", "producer", "organization", "code"}
)
"""Fields by which lines of one event are of different kinds. Their values are few and ours."""


@dataclass(slots=True)
class _Kind:
    until_s: float
    count: int = 0
    last: logging.LogRecord | None = None
    """The last one that was not written."""


class Repeats:
    """Decides which records are written.

    What was left out is told by the last of it, which is written when the interval is over, with
    the number of those that are not as `suppressed`.

    Args:
        now_s: Monotonic seconds.
        most: Lines of one kind in an interval.
        interval_s: Its length.
    """

    def __init__(
        self, now_s: Callable[[], float], most: int = MOST, interval_s: float = INTERVAL_S
    ) -> None:
        """See the class."""
        self._now_s = now_s
        self._most = most
        self._interval_s = interval_s
        self._kinds: dict[Hashable, _Kind] = {}

    def take(self, record: logging.LogRecord) -> bool:
        """Count a record; return whether it is to be written now.

        It may be the first of a kind, so what is due is asked for before.
        """
        name = _kind_of(record)
        kind = self._kinds.get(name)
        if kind is None:
            kind = self._kinds[name] = _Kind(self._now_s() + self._interval_s)
        kind.count += 1
        if kind.count <= self._most:
            return True
        kind.last = record
        return False

    def due(self, *, is_end: bool = False) -> Iterator[logging.LogRecord]:
        """Yield what is to be written of intervals that are over; of all of them at the end."""
        now_s = self._now_s()
        least = 0 if is_end else MAX_KINDS - 1
        while self._kinds:
            # All intervals have one length, so they end in the order in which they began.
            name, kind = next(iter(self._kinds.items()))
            if kind.until_s > now_s and len(self._kinds) <= least:
                return
            del self._kinds[name]
            if kind.last is not None:
                kind.last.suppressed = kind.count - self._most - 1
                yield kind.last


def _kind_of(record: logging.LogRecord) -> Hashable:
    entry = record.msg
    if isinstance(entry, Entry):
        apart = tuple((name, str(entry.fields[name])) for name in entry.fields if name in APART)
        return entry.event.name, record.levelno, apart
    return record.name, record.levelno, str(entry)[:200]
