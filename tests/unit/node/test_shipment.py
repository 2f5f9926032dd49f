"""One journal's way into the store, and what is deleted behind it."""

import os
from pathlib import Path

import pytest
from tests.fakes.fake_worker import FakeJournal, make_event, make_open

from penstock.contract.journal import Close, encode_record
from penstock.node.checkpoints import Checkpoints
from penstock.node.progress import Checkpoint
from penstock.node.recovery import Journal, is_alive, is_dead, list_journals
from penstock.node.retention import deletable_segments, sweep
from penstock.node.shipment import Shipment

HOUR_NS = 3600 * 10**9


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    """Return checkpoints that are empty."""
    folder = tmp_path / "shipper"
    folder.mkdir()
    return Checkpoints(folder)


@pytest.fixture
def journals(tmp_path: Path) -> Path:
    """Return an empty folder of journals."""
    folder = tmp_path / "journal"
    folder.mkdir()
    return folder


def only(journals: Path) -> Journal:
    """Return the one journal that there is."""
    (journal,) = list_journals(journals)
    return journal


def ship_to_end(shipment: Shipment, now_ns: int) -> list[str]:
    """Ship everything and return the ids, in their order."""
    shipped: list[str] = []
    for _ in range(20):
        shipment.fill()
        assert len(shipment.pending) <= 500
        shipped += [event.event_id for event in shipment.pending]
        if shipment.pending:
            shipment.acknowledge()
        if shipment.finish(now_ns):
            return shipped
    pytest.fail("never done")


def test_batches_have_at_most_500_events(journals: Path, checkpoints: Checkpoints) -> None:
    """A long journal comes in batches, and so do the many requests that a death interrupts."""
    worker = FakeJournal(journals, segment_bytes=256 * 1024)
    names = [str(number) for number in range(1200)]
    for name in names:
        worker.write(Close(make_event(make_open(name))))
    for name in names:
        worker.write(make_open(f"open-{name}"))
    worker.die()
    shipped = ship_to_end(Shipment(only(journals), checkpoints), 7)
    assert shipped == names + [f"open-{name}" for name in names]
    assert checkpoints.get("0-00000001").done_at_ns == 7


def test_a_living_worker_s_requests_are_not_ended(journals: Path, checkpoints: Checkpoints) -> None:
    """While the lock is held nothing is taken for interrupted, and nothing is done."""
    worker = FakeJournal(journals)
    worker.write(make_open("a"))
    shipment = Shipment(only(journals), checkpoints)
    for _ in range(5):
        shipment.fill()
        assert shipment.pending == []
        assert not shipment.finish(1)
    worker.die()
    assert ship_to_end(shipment, 1) == ["a"]


def test_a_failed_delivery_is_filled_up(journals: Path, checkpoints: Checkpoints) -> None:
    """What was not acknowledged stays pending and later events join it."""
    worker = FakeJournal(journals)
    worker.write(Close(make_event(make_open("a"))))
    shipment = Shipment(only(journals), checkpoints)
    shipment.fill()
    worker.write(Close(make_event(make_open("b"))))
    shipment.fill()
    assert [event.event_id for event in shipment.pending] == ["a", "b"]
    worker.die()


def test_the_time_of_an_interruption_does_not_change(
    journals: Path, checkpoints: Checkpoints
) -> None:
    """Interrupted events say the same after a crash, even when the file's time was lost."""
    worker = FakeJournal(journals)
    worker.write(make_open("a"))
    worker.die()
    os.utime(worker.segment, ns=(0, 1_800_000_000_000_000_000))
    events = []
    for _ in range(2):
        shipment = Shipment(only(journals), checkpoints)
        for _ in range(3):
            shipment.fill()
        events += shipment.pending
        os.utime(worker.segment, ns=(0, 1_700_000_000_000_000_000))
    assert events[0] == events[1]
    assert events[0].finished_at_ns == 1_800_000_000_000_000_000


def test_what_is_unshipped_is_counted(journals: Path, checkpoints: Checkpoints) -> None:
    """Records are counted beyond what is read, and none are left once all is acknowledged."""
    worker = FakeJournal(journals, segment_bytes=512 * 1024)
    for number in range(700):
        worker.write(Close(make_event(make_open(str(number)))))
    shipment = Shipment(only(journals), checkpoints)
    shipment.fill()
    assert shipment.unshipped.records == 501
    shipment.count()
    assert shipment.unshipped == (701, worker.offset)
    shipment.acknowledge()
    assert shipment.unshipped.records == 200
    shipment.fill()
    shipment.acknowledge()
    shipment.count()
    assert shipment.unshipped == (0, 0)
    worker.die()


def test_death_is_told_from_birth(journals: Path) -> None:
    """A journal without a segment or a lock file may be about to begin and counts as neither."""
    folder = journals / "0-00000001"
    folder.mkdir()
    journal = Journal(folder, 0, 1)
    assert not is_dead(journal)
    (folder / "lock").touch()
    assert not is_dead(journal)
    (folder / "00000001.journal").touch()
    assert is_dead(journal)
    (folder / "lock").unlink()
    assert not is_dead(journal)
    assert not is_alive(journal)


def test_segments_are_kept_while_anybody_needs_them() -> None:
    """What is unshipped, holds an open request, or is damaged is not deletable."""
    numbers = range(1, 8)
    assert deletable_segments(numbers, Checkpoint()) == []
    assert deletable_segments(numbers, Checkpoint(4, 9, 4)) == [1, 2, 3]
    assert deletable_segments(numbers, Checkpoint(4, 9, 2)) == [1]
    assert deletable_segments(numbers, Checkpoint(4, 9, 4, damaged=(2,))) == [1, 3]


def test_shipped_journals_are_deleted_after_a_while(
    journals: Path, checkpoints: Checkpoints
) -> None:
    """A dead worker's journal goes when it was done long enough ago, with its checkpoint."""
    worker = FakeJournal(journals)
    worker.write(make_open("a"))
    worker.die()
    ship_to_end(Shipment(only(journals), checkpoints), 10 * HOUR_NS)
    assert sweep(list_journals(journals), checkpoints, 82 * HOUR_NS, 72 * HOUR_NS) == []
    deleted = sweep(list_journals(journals), checkpoints, 82 * HOUR_NS + 1, 72 * HOUR_NS)
    assert deleted == [worker.path]
    assert not worker.path.exists()
    assert checkpoints.list_names() == []


def test_journals_without_a_request_are_deleted_at_once(
    journals: Path, checkpoints: Checkpoints
) -> None:
    """Workers that die before their first request, again and again, do not fill the disk."""
    worker = FakeJournal(journals)
    worker.die()
    assert ship_to_end(Shipment(only(journals), checkpoints), 1) == []
    assert sweep(list_journals(journals), checkpoints, 2, 72 * HOUR_NS) == [worker.path]


def test_unshipped_and_damaged_journals_are_never_deleted(
    journals: Path, checkpoints: Checkpoints
) -> None:
    """However old they are, journals that are not shipped to their end or damaged stay."""
    unshipped, damaged = FakeJournal(journals, 0, 1), FakeJournal(journals, 1, 2)
    damaged.write_raw(b"\1\0\0\0garbage")
    for worker in (unshipped, damaged):
        worker.die()
    ship_to_end(Shipment(list_journals(journals)[1], checkpoints), 1)
    assert sweep(list_journals(journals), checkpoints, 10**20, 0) == []


def test_old_segments_of_a_living_worker_are_deleted(
    journals: Path, checkpoints: Checkpoints
) -> None:
    """Complete, acknowledged and old segments go while the worker writes on."""
    worker = FakeJournal(journals)
    worker.write(Close(make_event(make_open("a"))))
    worker.rotate()
    worker.write(Close(make_event(make_open("b"))))
    shipment = Shipment(only(journals), checkpoints)
    shipment.fill()
    now_ns = worker.segment_path(1).stat().st_mtime_ns + 2 * HOUR_NS
    assert sweep(list_journals(journals), checkpoints, now_ns, HOUR_NS) == []
    shipment.acknowledge()
    assert sweep(list_journals(journals), checkpoints, now_ns, 3 * HOUR_NS) == []
    assert sweep(list_journals(journals), checkpoints, now_ns, HOUR_NS) == [worker.segment_path(1)]
    assert worker.segment.exists()
    worker.die()


def test_journals_that_never_began_are_deleted(journals: Path, checkpoints: Checkpoints) -> None:
    """The folder of a worker that was killed before its first segment goes after a while."""
    folder = journals / "0-00000001"
    folder.mkdir()
    now_ns = folder.stat().st_mtime_ns + 2 * HOUR_NS
    assert sweep(list_journals(journals), checkpoints, now_ns, 3 * HOUR_NS) == []
    assert sweep(list_journals(journals), checkpoints, now_ns, HOUR_NS) == [folder]


def test_checkpoints_of_deleted_journals_are_forgotten(
    journals: Path, checkpoints: Checkpoints
) -> None:
    """A crash between the two deletions leaves nothing behind for ever."""
    checkpoints.save("0-00000009", Checkpoint(done_at_ns=1))
    sweep(list_journals(journals), checkpoints, 5, 1)
    assert checkpoints.list_names() == []


def test_a_long_journal_is_counted_at_once(journals: Path, checkpoints: Checkpoints) -> None:
    """Four megabytes of records are counted in one go, however little is read at once."""
    worker = FakeJournal(journals)
    shipment = Shipment(only(journals), checkpoints)
    frames = b"".join(encode_record(make_open(f"{number:032d}")) for number in range(500))
    rounds = 4_000_000 // len(frames) + 1
    for _ in range(rounds):
        worker.write_raw(frames)
    shipment.count()
    assert shipment.unshipped.records > rounds * 500
    worker.die()
