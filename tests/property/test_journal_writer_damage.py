"""Journals as a worker writes them: whatever is cut or flipped, what is read is a beginning."""

import asyncio
import tempfile
from functools import cache
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.effort import tries
from tests.fakes.worker_process import eventually

from penstock.contract.journal import Begin, Close, Open, Record, interrupted_event, scan
from penstock.gateway.journal import Journal

SEGMENT_BYTES = 65_536
IN_FLIGHT = 25
"""Requests that a segment has room for with the longest CLOSE that each may have."""


class _Request:
    """A request that does not mind when it goes on."""

    request_id = "request"
    trace_id = ""
    reserved_bytes = 0

    def opened(self) -> None:
        """Go on."""

    def closed(self) -> None:
        """Go on."""


def _open(number: int, request_id: str) -> Open:
    return Open(
        f"event-{number}", request_id, "org", "project", "key", "model", "served", "engine",
        "chat", number % 2 == 0, 1_750_000_000_000_000_000 + number, number,
    )  # fmt: skip


async def _write(folder: Path, request_ids: list[str], order: list[int]) -> list[Record]:
    """Open a request for each id; at each number in `order`, close the oldest that is open."""
    journal = Journal(
        folder,
        node_id="node",
        slot=0,
        epoch=1,
        loop=asyncio.get_running_loop(),
        wall_ns=lambda: 1_750_000_000_000_000_000,
        segment_bytes=SEGMENT_BYTES,
    )
    written: list[Record] = []
    waiting: list[tuple[Open, _Request]] = []

    def close_oldest() -> None:
        opened, request = waiting.pop(0)
        event = interrupted_event(opened, opened.started_at_ns + 1)
        journal.close(event, request)
        written.append(Close(event))

    for number, request_id in enumerate(request_ids):
        if len(waiting) > IN_FLIGHT:
            close_oldest()
        await eventually(lambda: journal.can_admit)
        record, request = _open(number, request_id), _Request()
        waiting.append((record, request))
        journal.open(record, request)
        written.append(record)
        for _ in range(order.count(number)):
            if waiting:
                close_oldest()
        if number % 7 == 0:
            await asyncio.sleep(0)
    journal.finish()
    return written


def _read(folder: Path) -> list[Record]:
    found: list[Record] = []
    for number, segment in enumerate(sorted(folder.glob("*/*.journal")), 1):
        begin, *records = (record for record, _ in scan(segment.read_bytes()))
        assert isinstance(begin, Begin)
        assert begin.segment == number
        found += records
    return found


@settings(max_examples=tries(25))
@given(
    request_ids=st.lists(st.text("abcxyz-._~", min_size=1, max_size=128), min_size=20, max_size=60),
    repeat=st.integers(1, 12),
    order=st.lists(st.integers(0, 700), max_size=300),
)
def test_records_come_back_in_order(request_ids: list[str], repeat: int, order: list[int]) -> None:
    """What was recorded over any number of segments is read back whole and in order."""
    with tempfile.TemporaryDirectory() as name:
        written = asyncio.run(_write(Path(name), request_ids * repeat, order))
        assert _read(Path(name)) == written


@cache
def _segment() -> tuple[bytes, list[tuple[Record, int]]]:
    """Return a segment as a worker leaves it after kill -9, allocated rest and all."""
    with tempfile.TemporaryDirectory() as name:
        ids = [f"request-{number}" for number in range(5)]
        asyncio.run(_write(Path(name), ids, [0, 2, 3]))
        (path,) = Path(name).glob("*/*.journal")
        content = path.read_bytes()
    return content + bytes(512), list(scan(content))


def test_cut_anywhere_a_beginning_is_read() -> None:
    """Cut at any byte, a segment yields exactly the records that end before."""
    content, records = _segment()
    for end in range(len(content) + 1):
        expected = [found for found in records if found[1] <= end]
        assert list(scan(content[:end])) == expected
        padded = list(scan(content[:end] + bytes(64)))  # zeros may be what was cut off
        assert padded == records[: len(padded)]
        assert len(padded) >= len(expected)


def test_flipped_anywhere_a_beginning_is_read() -> None:
    """With any single bit flipped, a segment yields the records before it and nothing wrong."""
    content, records = _segment()
    damaged = bytearray(content)
    for at in range(len(content)):
        expected = [found for found in records if found[1] <= at]
        for bit in range(8):
            damaged[at] ^= 1 << bit
            assert list(scan(bytes(damaged))) == expected
            damaged[at] ^= 1 << bit


@settings(max_examples=tries(200))
@given(start=st.integers(0, 1500), noise=st.binary(min_size=1, max_size=400))
def test_overwritten_anywhere_a_beginning_is_read(start: int, noise: bytes) -> None:
    """With any stretch overwritten, what is read is a beginning of what was written."""
    content, records = _segment()
    damaged = content[:start] + noise + content[start + len(noise) :]
    found = list(scan(damaged))
    assert found == records[: len(found)]
    assert len(found) >= len([r for r in records if r[1] <= start])


@settings(max_examples=tries(50))
@given(skipped=st.integers(0, 8))
def test_reading_goes_on_where_it_stopped(skipped: int) -> None:
    """From the offset behind any record the rest is read."""
    content, records = _segment()
    offset = records[skipped][1]
    assert list(scan(content, offset)) == records[skipped + 1 :]
