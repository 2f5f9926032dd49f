"""Telling of requests that have ended: what is read of journals, when, and how much of it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.fakes.fake_worker import FakeJournal, make_event, make_open

from penstock.contract.finished import Course, FinishedRequest, Trace
from penstock.contract.journal import Close
from penstock.contract.node import RefusedRequests
from penstock.node import finished
from penstock.node.finished import FinishedRequests

TRACE = Trace("1" * 32, "2" * 15 + "0", "3" * 16, is_sampled=True)


class Reading:
    """A reader of a folder, and what it told."""

    def __init__(self, folder: Path) -> None:
        """Begin."""
        self.told: list[FinishedRequest] = []
        self.requests = FinishedRequests(folder, [self.told.extend])

    def look(self) -> list[str]:
        """Read once; return the ids that came."""
        before = len(self.told)
        asyncio.run(self.requests.look())
        return [each.event_id for each in self.told[before:]]


def _close(name: str, course: Course | None = None) -> Close:
    return Close(make_event(make_open(name)), course)


def test_each_end_is_told_once(tmp_path: Path) -> None:
    """What is written is told with all that is known of it, over segments, and never again."""
    reading = Reading(tmp_path)
    assert reading.look() == []
    journal = FakeJournal(tmp_path, slot=3)
    course = Course(TRACE, 5, 7, ("engine:8000",), 11, 13)
    journal.write(make_open("a"), _close("a", course), make_open("b"))
    assert reading.look() == ["a"]
    assert reading.look() == []
    journal.rotate()
    journal.write(_close("b"))
    assert reading.look() == ["b"]
    first, second = reading.told
    assert (first.trace, first.trace_id, first.slot) == (TRACE, "1" * 32, 3)
    assert (first.received_at_ns, first.dispatched_at_ns) == (5, 7)
    assert (first.endpoints, first.request_bytes, first.answer_bytes) == (("engine:8000",), 11, 13)
    assert (second.trace, second.received_at_ns) == (None, second.started_at_ns)


def test_what_was_there_before_is_not_told(tmp_path: Path) -> None:
    """A new agent begins at the end of what living workers wrote, and never reads the dead."""
    alive, dead = FakeJournal(tmp_path), FakeJournal(tmp_path, slot=1, epoch=2)
    alive.write(_close("a"))
    alive.rotate()
    alive.write(_close("b"))
    dead.write(_close("c"))
    dead.die()
    reading = Reading(tmp_path)
    assert reading.look() == []
    alive.write(_close("d"))
    assert reading.look() == ["d"]


def test_the_last_words_of_a_worker_are_told(tmp_path: Path) -> None:
    """What a worker wrote before its death is told, and its journal is then left alone."""
    reading = Reading(tmp_path)
    reading.look()
    journal = FakeJournal(tmp_path)
    journal.write(_close("a"))
    assert reading.look() == ["a"]
    journal.write(_close("b"))
    journal.die()
    assert [*reading.look(), *reading.look(), *reading.look()] == ["b"]
    journal.segment.unlink()
    assert reading.look() == []


def test_who_is_behind_passes_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond what is told at once, requests are counted and passed over, and it goes on behind."""
    monkeypatch.setattr(finished, "AT_ONCE", 10)
    reading = Reading(tmp_path)
    reading.look()
    journal = FakeJournal(tmp_path)
    journal.write(*(_close(str(number)) for number in range(25)))
    assert reading.look() == [str(number) for number in range(10)]
    assert reading.requests.dropped == 15
    journal.write(_close("later"))
    assert reading.look() == ["later"]


@pytest.mark.parametrize(("count", "times"), [(30, 3), (40, 4), (90, 4)])
def test_who_is_behind_keeps_the_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, times: int
) -> None:
    """Others have the core while there is little to tell of; with much, telling goes first."""
    yielded = 0

    def take_note() -> None:
        nonlocal yielded
        yielded += 1

    monkeypatch.setattr(finished, "_IN_A_ROW", 10)
    monkeypatch.setattr(finished, "_HURRY", 40)
    monkeypatch.setattr("os.sched_yield", take_note)
    reading = Reading(tmp_path)
    reading.look()
    FakeJournal(tmp_path).write(*(_close(str(number)) for number in range(count)))
    assert len(reading.look()) == count
    assert yielded == times


def test_a_damaged_frame_ends_the_reading_of_a_segment_only(tmp_path: Path) -> None:
    """What is behind damage is not told; the next segment is."""
    reading = Reading(tmp_path)
    reading.look()
    journal = FakeJournal(tmp_path)
    journal.write(_close("a"))
    journal.write_raw(b"\x09\0\0\0damaged damaged")
    journal.rotate()
    journal.write(_close("b"))
    assert reading.look() == ["a", "b"]


def test_refused_and_interrupted_requests_are_told(tmp_path: Path) -> None:
    """What workers say of refusals is told as it is, and what they left open has an end."""
    reading = Reading(tmp_path)
    reading.requests.interrupted([make_open("a")], 2, 2 * 10**18)
    assert reading.look() == ["a"]
    (interrupted,) = reading.told
    assert (interrupted.event_id, interrupted.outcome, interrupted.slot) == ("a", "interrupted", 2)
    assert (interrupted.error_source, interrupted.finished_at_ns) == ("internal", 2 * 10**18)
    assert interrupted.dispatched_at_ns == interrupted.started_at_ns
    reading.requests.take(RefusedRequests((interrupted,), dropped=4))
    assert reading.look() == ["a"]
    assert reading.told == [interrupted, interrupted]
    assert reading.requests.dropped == 4


def test_nobody_asks_nothing_is_read(tmp_path: Path) -> None:
    """Without a consumer a node's workers are not asked, and no journal is looked at."""

    async def main() -> None:
        requests = FinishedRequests(tmp_path / "absent", [])
        assert not requests.is_wanted
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(requests.run(), 0.05)
        requests.take(RefusedRequests(()))

    asyncio.run(main())


def test_few_are_told_of_at_once(tmp_path: Path) -> None:
    """Others have the core in between, whether requests are read or handed over; all are told."""
    told: list[Sequence[FinishedRequest]] = []
    requests = FinishedRequests(tmp_path, [told.append])
    asyncio.run(requests.look())
    names = [str(number) for number in range(100)]
    FakeJournal(tmp_path).write(*map(_close, names))
    asyncio.run(requests.look())
    read = [each for few in told for each in few]
    assert [each.event_id for each in read] == names
    requests.take(RefusedRequests(tuple(read)))
    asyncio.run(requests.look())
    assert [each for few in told for each in few] == read * 2
    assert max(map(len, told)) < len(names)
