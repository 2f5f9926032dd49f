"""Reads usage rows in the ways people want them: all, the latest, and those that come."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from penstock.cli.times import format_time

if TYPE_CHECKING:
    from penstock.cli.control_client import ControlClient, Row

SHORT_SPAN = timedelta(minutes=2)
"""How far each look for new rows goes back ..."""
LONG_SPAN = timedelta(minutes=65)
"""... and every `LONG_EVERY`-th one: longer than a request may take by default."""
LONG_EVERY = 30
_AGES = (timedelta(hours=2), timedelta(days=2), timedelta(days=30))


class UsageFeed:
    """Usage rows that match some filters.

    Args:
        client: Where they come from.
        wanted: Filters of the usage API.
        now: Returns the present, with a time zone.
    """

    def __init__(
        self, client: "ControlClient", wanted: Mapping[str, str], now: Callable[[], datetime]
    ) -> None:
        """See the class."""
        self._client = client
        self._wanted = dict(wanted)
        self._now = now
        self._seen: dict[str, str] = {}
        self._looks = 0

    def all(self) -> Iterator["Row"]:
        """Yield every row, oldest first."""
        return self._walk(None)

    def latest(self, limit: int) -> list["Row"]:
        """Return the rows that started last, oldest first, at most `limit`.

        Control lists the oldest first. So that the latest few of millions come soon, a short time
        is asked for first, and a longer one while it holds too few.
        """
        is_bounded = "since" in self._wanted or "until" in self._wanted
        starts = [] if is_bounded else [self._now() - age for age in _AGES]
        rows: deque[Row] = deque(maxlen=limit)
        for start in (*starts, None):
            rows = deque(self._walk(start), maxlen=limit)
            if len(rows) == limit:
                break
        return list(rows)

    def fresh(self) -> list["Row"]:
        """Return the rows that no call before has returned or passed over.

        Rows are in order of their start but come when they end, so a cursor would miss a long
        one: a span of the past is asked for again and again, and known rows are dropped. A row
        that ends later than `LONG_SPAN` after its start is not seen.
        """
        span = LONG_SPAN if self._looks % LONG_EVERY == 0 else SHORT_SPAN
        self._looks += 1
        known = set(self._seen)
        rows = [row for row in self._walk(self._now() - span) if row["event_id"] not in known]
        horizon = format_time(self._now() - 2 * LONG_SPAN)
        self._seen = {name: start for name, start in self._seen.items() if start >= horizon}
        return rows

    def _walk(self, start: datetime | None) -> Iterator["Row"]:
        wanted = dict(self._wanted)
        if start is not None:
            # In this form, times sort as text.
            wanted["since"] = max(format_time(start), wanted.get("since", ""))
        horizon = format_time(self._now() - LONG_SPAN)
        for page in self._client.usage_pages(wanted):
            for row in page:
                if row["started_at"] >= horizon:
                    self._seen[row["event_id"]] = row["started_at"]
                yield row
