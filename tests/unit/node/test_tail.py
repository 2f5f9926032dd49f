"""Reading a journal while it is written."""

import tracemalloc
from pathlib import Path

from tests.fakes.fake_worker import FakeJournal, make_event, make_open

from penstock.contract.journal import Begin, Close, Open, encode_record, scan
from penstock.node.progress import Position
from penstock.node.tail import Tail, count_frames, last_written_segment


class Reader:
    """A tail that keeps the ids of what it reads."""

    def __init__(self, folder: Path, position: Position | None = None) -> None:
        """See the class."""
        self.tail = Tail(folder, position or Position())
        self.ids: list[str] = []
        self.bytes_read = 0

    def read(self, *, is_dead: bool = False) -> list[str]:
        """Return the ids that are new."""
        self.ids = []
        while self.tail.advance(self._parse, is_dead=is_dead):
            pass
        return self.ids

    def _parse(self, _segment: int, content: bytes, _offset: int) -> int:
        end = 0
        for record, end in scan(content):  # noqa: B007  # the last one is wanted
            match record:
                case Open():
                    self.ids.append(record.event_id)
                case Close(event):
                    self.ids.append(f"-{event.event_id}")
                case Begin():
                    pass
        self.bytes_read += len(content)
        return end


def test_only_what_is_new_is_read(tmp_path: Path) -> None:
    """Each look gives the records since the last one."""
    journal = FakeJournal(tmp_path)
    reader = Reader(journal.path)
    assert reader.read() == []
    journal.write(make_open("a"), make_open("b"))
    assert reader.read() == ["a", "b"]
    assert reader.read() == []
    journal.write(Close(make_event(make_open("a"))))
    assert reader.read() == ["-a"]
    journal.die()


def test_an_idle_look_reads_no_segment(tmp_path: Path) -> None:
    """Where nothing is new nothing but a frame's head is read, however large the segment is."""
    journal = FakeJournal(tmp_path, segment_bytes=4 * 1024 * 1024)
    reader = Reader(journal.path)
    reader.read()
    before = reader.bytes_read
    for _ in range(100):
        reader.read()
    assert reader.bytes_read == before
    journal.die()


def test_a_look_at_little_takes_little_memory(tmp_path: Path) -> None:
    """What is new costs a small chunk of memory, however much of the disk is allocated for more."""
    journal = FakeJournal(tmp_path, segment_bytes=4 * 1024 * 1024)
    reader = Reader(journal.path)
    tracemalloc.start()
    try:
        for number in range(100):
            journal.write(make_open(str(number)))
            assert reader.read() == [str(number)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 400_000
    journal.die()


def test_a_half_written_frame_is_read_when_it_is_whole(tmp_path: Path) -> None:
    """At every moment of a frame's writing nothing is read, and all of it afterwards."""
    journal = FakeJournal(tmp_path)
    reader = Reader(journal.path)
    reader.read()
    for byte in encode_record(make_open("a")):
        assert reader.read() == []
        journal.write_raw(bytes([byte]))
    assert reader.read() == ["a"]
    assert reader.tail.damaged == set()
    journal.die()


def test_a_segment_that_is_only_allocated_is_not_gone_to(tmp_path: Path) -> None:
    """The tail stays where records will come while the next segment is all zeros."""
    journal = FakeJournal(tmp_path)
    journal.allocate(2)
    reader = Reader(journal.path)
    reader.read()
    journal.write(make_open("a"))
    assert reader.read() == ["a"]
    assert reader.tail.position.segment == 1
    journal.rotate()
    journal.write(make_open("b"))
    assert reader.read() == ["b"]
    assert reader.tail.position.segment == 2
    journal.die()


def test_the_next_segment_is_gone_to_after_the_last_record_of_this_one(tmp_path: Path) -> None:
    """Records of both sides of a rotation arrive in their order."""
    journal = FakeJournal(tmp_path, segment_bytes=1024)
    reader = Reader(journal.path)
    names = [str(number) for number in range(40)]
    for name in names:
        journal.write(make_open(name))
    assert journal.number > 3
    assert reader.read() == names
    journal.die()


def test_damage_in_a_complete_segment_is_told_and_passed(tmp_path: Path) -> None:
    """What is behind damage is lost with its segment, the next segment is not."""
    journal = FakeJournal(tmp_path)
    journal.write(make_open("a"))
    journal.write_raw(b"\1\0\0\0garbage")
    journal.rotate()
    journal.write(make_open("b"))
    reader = Reader(journal.path)
    assert reader.read() == ["a", "b"]
    assert reader.tail.damaged == {1}
    journal.die()


def test_a_dead_worker_s_torn_tail_is_damage(tmp_path: Path) -> None:
    """A half frame is waited for while the worker lives and is damage once it is dead."""
    journal = FakeJournal(tmp_path)
    journal.write_raw(encode_record(make_open("a"))[:-1])
    reader = Reader(journal.path)
    assert reader.read() == []
    assert reader.tail.damaged == set()
    journal.die()
    assert reader.read(is_dead=True) == []
    assert reader.tail.damaged == {1}


def test_a_truncated_end_is_no_damage(tmp_path: Path) -> None:
    """A worker that ends in order gives unused room back, which is fine."""
    journal = FakeJournal(tmp_path)
    journal.write(make_open("a"))
    journal.segment.write_bytes(journal.segment.read_bytes()[: journal.offset])
    journal.die()
    reader = Reader(journal.path)
    assert reader.read(is_dead=True) == ["a"]
    assert reader.tail.damaged == set()


def test_missing_segments_do_not_stop_a_dead_worker_s_journal(tmp_path: Path) -> None:
    """Segments that somebody deleted are stepped over."""
    journal = FakeJournal(tmp_path)
    for name in "abcd":
        journal.write(make_open(name))
        journal.rotate()
    journal.die()
    for number in (1, 3):
        journal.segment_path(number).unlink()
    assert Reader(journal.path).read(is_dead=True) == ["b", "d"]


def test_damage_before_a_known_position_is_jumped_over(tmp_path: Path) -> None:
    """A position that was reached once is reached again, whatever happened before it."""
    journal = FakeJournal(tmp_path)
    journal.write(make_open("a"))
    known = Position(1, journal.offset)
    journal.write(make_open("b"))
    content = bytearray(journal.segment.read_bytes())
    content[12] ^= 1
    journal.segment.write_bytes(content)
    reader = Reader(journal.path)
    reader.tail = Tail(journal.path, Position(), known)
    assert reader.read() == ["b"]
    assert reader.tail.damaged == {1}
    reader.tail = Tail(journal.path, Position(), Position(4, 0))
    assert reader.read() == []
    assert reader.tail.position == Position(4, 0)
    journal.die()


def test_a_known_position_in_an_empty_segment_is_no_damage(tmp_path: Path) -> None:
    """Where reading went on in a segment without a record, the one before was complete."""
    journal = FakeJournal(tmp_path)
    journal.write(make_open("a"))
    journal.allocate(2)
    journal.die()
    tail = Tail(journal.path, Position(), Position(2, 0))
    ids: list[str] = []

    def parse(_segment: int, content: bytes, _offset: int) -> int:
        records = list(scan(content))
        ids.extend(record.event_id for record, _ in records if isinstance(record, Open))
        return records[-1][1]

    while tail.advance(parse, is_dead=False):
        pass
    assert (ids, tail.position, tail.damaged) == (["a"], Position(2, 0), set())


def test_frames_are_counted_without_being_read() -> None:
    """Counting tells how many whole frames there are and where they end."""
    frames = [encode_record(make_open(name)) for name in "abc"]
    whole = b"".join(frames)
    assert count_frames(whole + bytes(64)) == (3, len(whole))
    assert count_frames(whole[:-1]) == (2, len(frames[0]) + len(frames[1]))
    assert count_frames(b"\xff" * 64) == (0, 0)


def test_the_last_written_segment_is_not_one_that_was_only_allocated(tmp_path: Path) -> None:
    """A dead worker's last sign of life is where its last record is."""
    journal = FakeJournal(tmp_path)
    journal.rotate()
    journal.allocate(3)
    journal.die()
    assert last_written_segment(journal.path) == 2
