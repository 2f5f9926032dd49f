"""Damaged journals: what is intact before the damage is shipped, and nothing is made up."""

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.effort import tries
from tests.fakes.fake_worker import FakeJournal, make_event, make_open

from penstock.contract.journal import Close, Open, Record, scan
from penstock.contract.usage import UsageBatch, UsageEvent, UsageReceipt, WorkerLife
from penstock.kit.clock import ManualClock
from penstock.node.checkpoints import Checkpoints
from penstock.node.progress import Position
from penstock.node.shipper import Shipper
from penstock.node.tail import Tail, segment_path


class MemoryStore:
    """A store that takes everything."""

    def __init__(self) -> None:
        """Start empty."""
        self.events: dict[str, UsageEvent] = {}

    async def send(self, batch: UsageBatch) -> UsageReceipt:
        """Store a batch."""
        for event in batch.events:
            assert event.event_id not in self.events
            self.events[event.event_id] = event
        return UsageReceipt(len(batch.events), 0)

    async def places(self, lives: Sequence[WorkerLife]) -> None:
        """Say nothing."""

    async def end(self, producer: str, epoch: int) -> None:
        """Hear that a dead worker's events are all stored."""
        assert (producer, epoch) == ("node-test/0", 1)


def write_journal(root: Path, closes: list[bool]) -> FakeJournal:
    """Write a dead worker's journal: requests that begin one after the other and may end."""
    journal = FakeJournal(root / "journal", segment_bytes=4096)
    for number, is_closed in enumerate(closes):
        opened = make_open(f"event-{number}")
        journal.write(opened)
        if is_closed:
            journal.write(Close(make_event(opened)))
    journal.die()
    return journal


def read_all(folder: Path) -> list[Record]:
    """Return the records that a tail reads from a dead worker's journal."""
    records: list[Record] = []

    def parse(_segment: int, content: bytes, _offset: int) -> int:
        end = 0
        for record, end in scan(content):  # noqa: B007  # the last one is wanted
            records.append(record)
        return end

    tail = Tail(folder, Position())
    while tail.advance(parse, is_dead=True):
        pass
    return records


def ship_all(root: Path) -> dict[str, UsageEvent]:
    """Ship a dead worker's journal to its end and return what was stored."""
    (root / "shipper").mkdir()
    store = MemoryStore()
    shipper = Shipper(
        journals=root / "journal",
        checkpoints=Checkpoints(root / "shipper"),
        refused=root / "refused",
        node_id="node-test",
        store=store,
        clock=ManualClock(),
        random=lambda: 0.5,
        retention_s=0,
    )

    async def ship() -> None:
        for _ in range(4):
            await shipper.ship_once()

    asyncio.run(ship())
    return store.events


def expected_events(records: list[Record]) -> dict[str, str]:
    """Return the outcomes that these records mean for a dead worker."""
    outcomes: dict[str, str] = {}
    for record in records:
        if isinstance(record, Open):
            outcomes[record.event_id] = "interrupted"
        elif isinstance(record, Close):
            outcomes[record.event.event_id] = "ok"
    return outcomes


def check_damaged(root: Path, whole: list[Record], damaged_segment: int) -> None:
    """Check that exactly the intact records before damage count, and those of other segments."""
    found = read_all(root / "journal" / "0-00000001")
    missing = len(whole) - len(found)
    # What is read is the journal with one run of records cut out of it.
    cut = next(
        (n for n, (a, b) in enumerate(zip(whole, found, strict=False)) if a != b), len(found)
    )
    assert found == whole[:cut] + whole[cut + missing :]
    events = ship_all(root)
    assert {key: event.outcome for key, event in events.items()} == expected_events(found)
    assert segment_path(root / "journal" / "0-00000001", damaged_segment).exists()


@settings(max_examples=tries(40))
@given(st.lists(st.booleans(), min_size=1, max_size=25), st.data())
def test_a_cut_gives_a_prefix(closes: list[bool], data: st.DataObject) -> None:
    """A last segment that is cut at any byte gives the records before the cut and no others."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        journal = write_journal(root, closes)
        whole = read_all(journal.path)
        cut = data.draw(st.integers(0, journal.offset))
        content = journal.segment.read_bytes()
        journal.segment.write_bytes(content[:cut])
        found = read_all(journal.path)
        assert found == whole[: len(found)]
        check_damaged(root, whole, journal.number)


@settings(max_examples=tries(40))
@given(st.lists(st.booleans(), min_size=1, max_size=25), st.data())
def test_a_flipped_bit_costs_the_rest_of_its_segment_and_no_more(
    closes: list[bool], data: st.DataObject
) -> None:
    """Any flipped bit ends its segment there, makes nothing up, and leaves other segments."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        journal = write_journal(root, closes)
        whole = read_all(journal.path)
        number = data.draw(st.integers(1, journal.number))
        path = journal.segment_path(number)
        content = bytearray(path.read_bytes())
        used = len(content.rstrip(b"\0"))
        position = data.draw(st.integers(0, used * 8 - 1))
        content[position // 8] ^= 1 << (position % 8)
        path.write_bytes(content)
        check_damaged(root, whole, number)
