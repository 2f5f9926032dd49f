"""Stored usage events as CloudEvents, one a line."""

from collections.abc import AsyncIterator, Sequence

import msgspec

from penstock.contract.cloud_event import cloud_event
from penstock.contract.usage import Attempt, UsageEvent
from penstock.metering.model import MAX_PAGE_ROWS, UsageFilter, UsageRow
from penstock.metering.service import list_usage
from penstock.rating.exports.formats import Row
from penstock.rating.exports.pages import Read


class LinesEncoder:
    """Writes lines that are made already: each row is one."""

    media_type = "application/jsonl"

    def head(self) -> bytes:
        """Return nothing."""
        return b""

    def encode(self, rows: Sequence[Row]) -> bytes:
        """Return the lines."""
        return b"".join(line + b"\n" for (line,) in rows)

    def tail(self) -> bytes:
        """Return nothing."""
        return b""


async def list_cloud_events(
    read: Read, usage_filter: UsageFilter, source: str
) -> AsyncIterator[Sequence[Row]]:
    """Yield usage events as CloudEvents, oldest first.

    Args:
        read: Opens sessions.
        usage_filter: Which.
        source: URL of the control plane, which has the schema.
    """
    cursor: str | None = None
    while True:
        async with read() as session:
            page = await list_usage(
                session, session.scope, usage_filter, cursor=cursor, limit=MAX_PAGE_ROWS
            )
        yield [[msgspec.json.encode(cloud_event(build_event(row), source))] for row in page.rows]
        cursor = page.next_cursor
        if cursor is None:
            return


def build_event(row: UsageRow) -> UsageEvent:
    """Return the event that a row was made of, times to the microsecond."""
    names = {field.name for field in msgspec.structs.fields(UsageEvent)}
    members = {name: getattr(row, name) for name in names if hasattr(row, name)}
    return UsageEvent(
        **members
        | {
            "started_at_ns": row.started_at_us * 1_000,
            "first_byte_at_ns": None
            if row.first_byte_at_us is None
            else row.first_byte_at_us * 1_000,
            "finished_at_ns": row.finished_at_us * 1_000,
            "flags": tuple(row.flags),
            "labels": tuple((name, value) for name, value in row.labels),
            "earlier_attempts": tuple(Attempt(*attempt) for attempt in row.earlier_attempts),
        }
    )
