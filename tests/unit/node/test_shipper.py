"""The shipper: what it does when its store is away for long, or lost something."""

import pathlib
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.fakes.fake_worker import FakeJournal, make_event, make_open

from penstock.contract.journal import Close
from penstock.contract.usage import StoredPlace, UsageBatch, UsageReceipt, WorkerLife
from penstock.kit.clock import ManualClock
from penstock.node.checkpoints import Checkpoints
from penstock.node.delivery import BatchRefusedError, NotDeliveredError
from penstock.node.shipper import Shipper

HOUR_S = 3_600.0


class Store:
    """A store of ids that can be away, and can be set back."""

    def __init__(self) -> None:
        """Start empty."""
        self.ids: dict[str, int] = {}
        self.place = StoredPlace()
        self.ended = 0
        self.is_away = False
        self.is_old = False
        """It is of a version that says no places."""
        self.refused: frozenset[str] = frozenset()

    async def send(self, batch: UsageBatch) -> UsageReceipt:
        """Store a batch."""
        if self.is_away:
            raise NotDeliveredError
        if self.refused & {event.event_id for event in batch.events}:
            raise BatchRefusedError
        for event in batch.events:
            self.ids[event.event_id] = self.ids.get(event.event_id, 0) + 1
        before = self.place
        if (
            (batch.from_segment, batch.from_offset)
            <= _tuple(before)
            < (batch.segment, batch.offset)
        ):
            self.place = StoredPlace(batch.segment, batch.offset)
        if self.is_old:
            return UsageReceipt(len(batch.events), 0)
        return UsageReceipt(len(batch.events), 0, 0, before.segment, before.offset)

    async def places(self, lives: Sequence[WorkerLife]) -> Sequence[StoredPlace] | None:
        """Say how far the one journal is stored."""
        if self.is_away:
            raise NotDeliveredError
        assert list(lives) == [WorkerLife("node-test/0", 1)]
        return None if self.is_old else [self.place]

    async def end(self, producer: str, epoch: int) -> None:
        """Hear that a dead worker's events are all stored."""
        assert (producer, epoch) == ("node-test/0", 1)
        self.ended += 1


def _tuple(place: StoredPlace) -> tuple[int, int]:
    return place.segment, place.offset


class Site:
    """One worker's journal, a shipper and a store."""

    def __init__(self, folder: Path, segment_bytes: int = 65_536) -> None:
        """Make them in a folder."""
        for name in ("journal", "shipper"):
            (folder / name).mkdir()
        self.folder = folder
        self.store = Store()
        self.clock = ManualClock(now_ns=1_800_000_000 * 10**9)
        self.journal = FakeJournal(folder / "journal", segment_bytes=segment_bytes)
        self.checkpoints = Checkpoints(folder / "shipper")
        self.count = 0
        self.start()

    def start(self) -> None:
        """Start a shipper, instead of the one before."""
        self.shipper = Shipper(
            journals=self.folder / "journal",
            checkpoints=self.checkpoints,
            refused=self.folder / "refused",
            node_id="node-test",
            store=self.store,
            clock=self.clock,
            random=lambda: 0.5,
            retention_s=72 * HOUR_S,
        )

    def write(self, count: int) -> None:
        """Let the worker serve requests."""
        for _ in range(count):
            opened = make_open(str(self.count))
            self.count += 1
            self.journal.write(opened)
            self.journal.write(Close(make_event(opened)))

    async def ship(self, times: int = 6) -> None:
        """Give the journal its turn, a minute apart."""
        for _ in range(times):
            self.clock.advance(61)
            await self.shipper.ship_once()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Return a worker's journal and what ships it."""
    return Site(tmp_path)


async def test_a_journal_that_is_done_is_shipped_again(site: Site) -> None:
    """A store that is set back behind a dead worker's last events gets all that it lost."""
    site.write(30)
    await site.ship()
    known = dict(site.store.ids), site.store.place
    site.write(30)
    site.journal.write(make_open("open"))
    site.journal.die()
    await site.ship()
    assert (len(site.store.ids), site.store.ended) == (61, 1)
    site.store.ids, site.store.place = dict(known[0]), known[1]
    await site.ship()
    assert len(site.store.ids) == 61
    assert {site.store.ids[str(number)] for number in range(30)} == {1}  # those were not lost
    assert (site.shipper.totals.set_back, site.store.ended) == (1, 2)
    assert site.checkpoints.get("0-00000001").done_at_ns is not None


async def test_events_that_only_the_agent_knows_come_again(site: Site) -> None:
    """A store that lost no more than what ends a dead worker's requests is seen to have lost it."""
    site.write(3)
    await site.ship()
    site.journal.write(make_open("open"))
    await site.ship()
    known = dict(site.store.ids), site.store.place
    site.journal.die()
    await site.ship()
    assert site.store.ids.keys() - known[0].keys() == {"open"}
    site.store.ids, site.store.place = dict(known[0]), known[1]
    site.start()
    await site.ship()
    assert "open" in site.store.ids
    await site.ship(20)
    assert site.shipper.totals.set_back == 1


async def test_a_receipt_says_at_once_that_something_is_lost(site: Site) -> None:
    """With traffic nobody has to ask: the next receipt tells, and nothing comes twice for long."""
    site.write(5)
    await site.ship(3)
    site.store.ids, site.store.place = {}, StoredPlace()
    site.write(5)
    site.clock.advance(1)
    for _ in range(3):
        await site.shipper.ship_once()
    assert site.store.ids.keys() == {str(number) for number in range(10)}
    assert site.shipper.totals.set_back == 1


async def test_a_refused_event_is_no_loss(site: Site) -> None:
    """What the store will not take is set aside once, though it is the last one for long."""
    site.write(3)
    site.store.refused = frozenset({"2"})
    await site.ship(10)
    site.start()
    await site.ship(10)
    site.write(2)
    await site.ship(10)
    assert site.store.ids == dict.fromkeys(("0", "1", "3", "4"), 1)
    assert site.shipper.totals.set_back == 0
    assert (site.folder / "refused").stat().st_size < 400


async def test_a_store_without_places_is_served_as_before(site: Site) -> None:
    """An older control plane says nothing, and nothing is made of it, nor of one that then says."""
    site.store.is_old = True
    site.write(5)
    await site.ship()
    site.store.place = StoredPlace()
    site.write(5)
    await site.ship()
    assert set(site.store.ids.values()) == {1}
    assert site.shipper.totals.set_back == 0


async def test_what_is_not_on_the_disk_any_more_does_not_come_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A store set back behind what is kept gets what is there, and it is said what is missing."""
    site = Site(tmp_path, segment_bytes=4_096)
    site.write(60)
    await site.ship(10)
    assert not site.journal.segment_path(1).exists()  # by the clock it is older than what is kept
    site.store.ids, site.store.place = {}, StoredPlace()
    await site.ship(10)
    assert 0 < len(site.store.ids) < 60
    assert str(site.count - 1) in site.store.ids
    assert "usage not on disk" in caplog.text
    assert site.shipper.damaged_count == 0
    await site.ship(10)
    assert site.shipper.totals.set_back == 1


async def test_a_long_absence_of_the_store_costs_disk_and_no_memory(tmp_path: Path) -> None:
    """While nothing is taken, what is in memory stays one batch, however much is written."""
    site = Site(tmp_path, segment_bytes=256 * 1024)
    site.store.is_away = True
    site.write(600)
    await site.ship(20)
    tracemalloc.start()
    try:
        for _ in range(10):
            site.write(600)
            await site.ship(20)
        # The interpreter's table of names that `pathlib` interns doubles at some moment.
        ours = tracemalloc.Filter(inclusive=False, filename_pattern=pathlib.__file__)
        traces = tracemalloc.take_snapshot().filter_traces([ours]).traces
        grown = sum(trace.size for trace in traces)
    finally:
        tracemalloc.stop()
    (shipment,) = site.shipper._shipments.values()
    assert len(shipment.pending) == 500
    assert grown < 300_000  # 6,000 events on the disk take five times as much
    assert site.shipper.unshipped.records > 12_000
    site.store.is_away = False
    await site.ship(30)
    assert len(site.store.ids) == site.count
