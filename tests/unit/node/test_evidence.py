"""What journals say was used, read beside the shipper."""

from pathlib import Path

import pytest
from tests.fakes.fake_worker import FakeJournal, make_event, make_open

from penstock.contract.journal import Close
from penstock.node.checkpoints import Checkpoints
from penstock.node.evidence import read_evidence
from penstock.node.recovery import list_journals
from penstock.node.shipment import Shipment
from penstock.node.tail import list_segments, segment_path


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    """Return checkpoints that are empty."""
    (tmp_path / "shipper").mkdir()
    return Checkpoints(tmp_path / "shipper")


@pytest.fixture
def journals(tmp_path: Path) -> Path:
    """Return an empty folder of journals."""
    (tmp_path / "journal").mkdir()
    return tmp_path / "journal"


def _read(journals: Path, checkpoints: Checkpoints) -> list[tuple[str, bool]]:
    found = list(read_evidence(journals, checkpoints, "node-7"))
    assert {(each.producer, each.epoch) for each in found} <= {("node-7/0", 1)}
    return [(each.event.event_id, each.is_shipped) for each in found]


def test_it_tells_what_is_shipped(journals: Path, checkpoints: Checkpoints) -> None:
    """Every closed request is told once, with whether the store has acknowledged it."""
    worker = FakeJournal(journals, segment_bytes=64 * 1024)
    names = [str(number) for number in range(700)]
    for name in names:
        worker.write(Close(make_event(make_open(name))))
    assert _read(journals, checkpoints) == [(name, False) for name in names]
    (journal,) = list_journals(journals)
    shipment = Shipment(journal, checkpoints)
    shipment.fill()
    shipped = len(shipment.pending)
    shipment.acknowledge()
    assert 0 < shipped < len(names)
    assert len(list_segments(journal.path)) > 1
    assert _read(journals, checkpoints) == [
        (name, number < shipped) for number, name in enumerate(names)
    ]


def test_interrupted_requests_count_once_they_are_shipped(
    journals: Path, checkpoints: Checkpoints
) -> None:
    """What a dead worker left open is told when it was ended, not before."""
    worker = FakeJournal(journals)
    worker.write(make_open("left"))
    worker.write(make_open("ended"))
    worker.write(Close(make_event(make_open("ended"))))
    worker.die()
    (journal,) = list_journals(journals)
    shipment = Shipment(journal, checkpoints)
    assert _read(journals, checkpoints) == [("ended", False)]
    while not shipment.finish(5):
        shipment.fill()
        shipment.acknowledge()
    assert _read(journals, checkpoints) == [("ended", True), ("left", True)]


def test_damage_ends_a_segment_not_the_journal(journals: Path, checkpoints: Checkpoints) -> None:
    """Records behind a damaged one are left out; those of other segments are not."""
    worker = FakeJournal(journals, segment_bytes=64 * 1024)
    for number in range(700):
        worker.write(Close(make_event(make_open(str(number)))))
    (journal,) = list_journals(journals)
    first = segment_path(journal.path, list_segments(journal.path)[0])
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 1
    first.write_bytes(content)
    found = [int(name) for name, _ in _read(journals, checkpoints)]
    assert found[0] == 0
    assert found[-1] == 699
    assert len(found) < 700
    assert sorted(set(found)) == found
