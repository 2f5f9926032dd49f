"""The journal's writer: what is written when, who goes on when, and what trouble does to both."""

import asyncio
import errno
import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.fakes.worker_process import eventually

from penstock.contract.finished import Course, RefusedBy, Trace
from penstock.contract.journal import (
    LOCK_FILE,
    Begin,
    Close,
    Open,
    Record,
    encode_record,
    interrupted_event,
    scan,
)
from penstock.contract.usage import Attempt, UsageEvent
from penstock.gateway import errors
from penstock.gateway.journal import Journal
from penstock.gateway.limits import (
    ANSWER_ID_CHARS,
    ATTEMPTS,
    JOURNAL_SEGMENTS_AHEAD,
    SERVICE_TIER_CHARS,
)
from penstock.kit.errors import ErrorCode

SEGMENT_BYTES = 65_536
PATIENCE_S = 60.0
NAME_CHARS = 128
"""Of an upstream, and of an endpoint's place, at most."""
ERRORS = [each for each in vars(errors).values() if isinstance(each, ErrorCode)]
FLAGS = tuple(
    f"usage_{name}" for name in ("negative", "not_a_number", "absurd", "missing", "inconsistent")
)
COUNTS = [
    name
    for name, kind in UsageEvent.__annotations__.items()
    if kind in {int, int | None} and name not in Open.__struct_fields__
]


def _open(number: int, padding: int = 0) -> Open:
    return Open(
        event_id=f"event-{number:06}",
        request_id="r" * padding or f"request-{number}",
        organization="org-a",
        project="project-a",
        key_id="key-a",
        model="model-a",
        served_model="served-model",
        upstream="engine",
        operation="chat",
        is_stream=True,
        started_at_ns=1_750_000_000_000_000_000 + number,
        estimated_input_tokens=9,
    )


class Waiter:
    """A request, and what it saw of the journal when it was let go on."""

    def __init__(self, number: int, folder: Path, padding: int = 0) -> None:
        """Make a request of this number."""
        self.record = _open(number, padding)
        self.event = interrupted_event(self.record, 1_750_000_000_000_000_000 + number)
        self.reserved_bytes = 0
        self.request_id = f"request-{number}"
        self.trace_id = ""
        self.folder = folder
        self.steps: list[str] = []
        self.on_opened: Callable[[], None] = lambda: None

    def opened(self) -> None:
        """Note that OPEN is on disk."""
        assert self.record in _records(self.folder)
        self.steps.append("opened")
        self.on_opened()

    def closed(self) -> None:
        """Note that CLOSE is on disk."""
        assert Close(self.event) in _records(self.folder)
        self.steps.append("closed")


def _segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.journal"))


def _records(folder: Path) -> list[Record]:
    found: list[Record] = []
    for segment in _segments(folder):
        found += [record for record, _ in scan(segment.read_bytes())]
    return found


def _without_begins(folder: Path) -> list[Record]:
    return [record for record in _records(folder) if not isinstance(record, Begin)]


def _journal(
    folder: Path, *, kind: type[Journal] = Journal, epoch: int = 1, is_strict: bool = False
) -> Journal:
    return kind(
        folder,
        node_id="node",
        slot=3,
        epoch=epoch,
        loop=asyncio.get_running_loop(),
        wall_ns=lambda: 1_750_000_000_000_000_000,
        segment_bytes=SEGMENT_BYTES,
        is_strict=is_strict,
    )


async def _turn() -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_a_lone_record_waits_for_nobody(tmp_path: Path) -> None:
    """The first record of a loop turn is on disk, and its request goes on, within `open`."""
    journal = _journal(tmp_path)
    waiter = Waiter(1, tmp_path)
    journal.open(waiter.record, waiter)
    assert waiter.steps == ["opened"]
    assert _without_begins(tmp_path) == [waiter.record]
    journal.finish()


async def test_the_others_of_a_turn_share_one_write(tmp_path: Path) -> None:
    """Records behind the first of a turn are written together at its end, in order."""
    journal = _journal(tmp_path)
    waiters = [Waiter(number, tmp_path) for number in range(10)]
    for waiter in waiters:
        journal.open(waiter.record, waiter)
    assert [waiter.steps for waiter in waiters] == [["opened"], *[[]] * 9]
    await _turn()
    assert [waiter.steps for waiter in waiters] == [["opened"]] * 10
    assert _without_begins(tmp_path) == [waiter.record for waiter in waiters]
    journal.finish()


async def test_a_request_that_goes_elsewhere_keeps_one_room(tmp_path: Path) -> None:
    """A second OPEN of a request is written behind the first, and takes no second room."""
    journal = _journal(tmp_path)
    waiter = Waiter(1, tmp_path)
    first = waiter.record
    journal.open(first, waiter)
    waiter.record = msgspec.structs.replace(first, upstream="a-fallback-with-a-longer-name")
    journal.open(waiter.record, waiter)
    await _turn()
    assert waiter.steps == ["opened"] * 2
    journal.close(waiter.event, waiter)
    await _turn()
    assert _without_begins(tmp_path) == [first, waiter.record, Close(waiter.event)]
    assert journal._reserved == 0
    journal.finish()


async def test_a_sync_between_strands_nobody(tmp_path: Path) -> None:
    """A sync that writes what a turn left pending does not keep its requests waiting."""
    journal = _journal(tmp_path)
    first, second = Waiter(1, tmp_path), Waiter(2, tmp_path)
    journal.open(first.record, first)
    journal.open(second.record, second)
    journal._start_sync()  # as a timer does that is due before the turn's end
    await _turn()
    assert second.steps == ["opened"]
    await eventually(lambda: journal.sync_count > 0)
    journal.finish()


async def test_a_request_may_end_while_it_is_let_go_on(tmp_path: Path) -> None:
    """CLOSE may be recorded from inside `opened`, as when no engine can be reached."""
    journal = _journal(tmp_path)
    waiters = [Waiter(number, tmp_path) for number in range(3)]
    for waiter in waiters:
        waiter.on_opened = lambda waiter=waiter: journal.close(waiter.event, waiter)  # type: ignore[misc]
        journal.open(waiter.record, waiter)
    await _turn()
    await _turn()
    assert [waiter.steps for waiter in waiters] == [["opened", "closed"]] * 3
    journal.finish()


async def test_one_requests_bug_strands_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """When a request fails as it is let go on, those behind it go on all the same."""
    journal = _journal(tmp_path)
    waiters = [Waiter(number, tmp_path) for number in range(4)]

    def fail() -> None:
        raise ZeroDivisionError

    waiters[0].on_opened = waiters[2].on_opened = fail
    for waiter in waiters:
        journal.open(waiter.record, waiter)
    await _turn()
    assert [waiter.steps for waiter in waiters] == [["opened"]] * 4
    first, second = (line for line in caplog.messages if "request failed" in line)
    assert "request_id=request-0" in first
    assert "request_id=request-2" in second
    journal.finish()


class GatedJournal(Journal):
    """A journal whose syncs wait until they are let through."""

    gate = threading.Event()

    @staticmethod
    def sync(descriptor: int) -> None:
        """Sync once the gate is open."""
        assert GatedJournal.gate.wait(PATIENCE_S)
        os.fdatasync(descriptor)


async def test_strict_closes_wait_for_the_sync(tmp_path: Path) -> None:
    """In strict mode OPEN goes on after write and CLOSE only after fsync."""
    GatedJournal.gate.clear()
    journal = _journal(tmp_path, kind=GatedJournal, is_strict=True)
    waiters = [Waiter(number, tmp_path) for number in range(5)]
    for waiter in waiters:
        journal.open(waiter.record, waiter)
    await _turn()
    for waiter in waiters:
        journal.close(waiter.event, waiter)
    await asyncio.sleep(0.05)
    assert [waiter.steps for waiter in waiters] == [["opened"]] * 5
    GatedJournal.gate.set()
    await eventually(lambda: all(waiter.steps == ["opened", "closed"] for waiter in waiters))
    assert journal.sync_count < 5, "they share syncs"
    journal.finish()


class FailingJournal(Journal):
    """A journal whose disk fails."""

    @staticmethod
    def sync(descriptor: int) -> None:  # noqa: ARG004 - it never gets so far
        """Fail as a dying disk does."""
        raise OSError(errno.EIO, os.strerror(errno.EIO))


async def test_a_failed_sync_is_the_end(tmp_path: Path) -> None:
    """After a failed fsync nothing is admitted, no strict CLOSE goes on, and it is told once."""
    journal = _journal(tmp_path, kind=FailingJournal, is_strict=True)
    told: list[bool] = []
    journal.on_broken = lambda: told.append(True)
    waiter = Waiter(1, tmp_path)
    journal.open(waiter.record, waiter)
    journal.close(waiter.event, waiter)
    await eventually(lambda: bool(told))
    await asyncio.sleep(0.05)
    assert told == [True]
    assert journal.is_broken
    assert not journal.can_admit
    assert waiter.steps == ["opened"]
    assert journal.sync_count == 1, "it is not tried again"


class LateFailingJournal(Journal):
    """A journal whose disk fails while a segment is ended."""

    ended: int | None = None

    @staticmethod
    def sync(descriptor: int) -> None:
        """Fail for a file that was cut to what is written."""
        if os.fstat(descriptor).st_size < SEGMENT_BYTES:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


async def test_a_failed_sync_of_an_ended_segment_is_the_end_too(tmp_path: Path) -> None:
    """The last fsync of a full segment counts like any other."""
    journal = _journal(tmp_path, kind=LateFailingJournal)
    told: list[bool] = []
    journal.on_broken = lambda: told.append(True)
    for number in range(100):  # more than one segment holds
        waiter = Waiter(number, tmp_path, padding=1000)
        journal.open(waiter.record, waiter)
        journal.close(waiter.event, waiter)
        await asyncio.sleep(0.001)
        await eventually(lambda: journal.can_admit or bool(told))
        if told:
            break
    await eventually(lambda: bool(told))
    assert journal.is_broken


def _next_segment(folder: Path, number: int) -> Path:
    return folder / "3-00000001" / f"{number:08d}.journal"


async def test_admission_stops_while_every_close_still_fits(tmp_path: Path) -> None:
    """When no segment can be added, admission stops in time: every CLOSE finds its room."""
    journal = _journal(tmp_path)
    _next_segment(tmp_path, 2).touch()  # as good as a full disk: it cannot be made
    waiters: list[Waiter] = []
    while journal.can_admit:
        waiter = Waiter(len(waiters), tmp_path, padding=128)
        waiters.append(waiter)
        journal.open(waiter.record, waiter)
        if len(waiters) % 10 == 0:
            await _turn()
    await _turn()
    assert len(waiters) > 20
    for waiter in waiters:
        journal.close(waiter.event, waiter)
    await _turn()
    assert all(waiter.steps == ["opened", "closed"] for waiter in waiters)
    assert not _next_segment(tmp_path, 3).exists()

    _next_segment(tmp_path, 2).unlink()
    await eventually(lambda: bool(journal._ahead))  # it tries again without traffic
    assert journal.can_admit
    journal.finish()
    assert len(_without_begins(tmp_path)) == 2 * len(waiters)


async def test_there_is_room_for_the_ends_of_all_that_is_open(tmp_path: Path) -> None:
    """However many requests are open, each finds room for its CLOSE, and the next is let in."""
    journal = _journal(tmp_path)
    waiters: list[Waiter] = []
    while sum(waiter.reserved_bytes for waiter in waiters) < 8 * SEGMENT_BYTES:
        await eventually(lambda: journal.can_admit)
        waiter = Waiter(len(waiters), tmp_path, padding=128)
        waiters.append(waiter)
        journal.open(waiter.record, waiter)
    for waiter in reversed(waiters):
        journal.close(waiter.event, waiter)
    await _turn()
    assert all(waiter.steps == ["opened", "closed"] for waiter in waiters)
    journal.finish()
    assert len(_without_begins(tmp_path)) == 2 * len(waiters)


def _count_unused(folder: Path) -> int:
    return sum(not any(segment.read_bytes()[:4]) for segment in _segments(folder))


async def test_segments_ahead_have_a_bound(tmp_path: Path) -> None:
    """A worker takes so much of its disk ahead and no more: then some must end first."""
    journal = _journal(tmp_path)
    waiters: list[Waiter] = []

    def is_full() -> bool:
        while journal.can_admit:
            waiter = Waiter(len(waiters), tmp_path, padding=128)
            waiters.append(waiter)
            journal.open(waiter.record, waiter)
        is_made = journal._preparing is None  # a file may be there before the journal knows of it
        return is_made and _count_unused(tmp_path) == JOURNAL_SEGMENTS_AHEAD

    await eventually(is_full)
    await asyncio.sleep(0.1)
    assert _count_unused(tmp_path) == JOURNAL_SEGMENTS_AHEAD
    assert not journal.can_admit
    for waiter in waiters[:100]:
        journal.close(waiter.event, waiter)
    await eventually(lambda: journal.can_admit)
    journal.finish()


def _hold_up_space(journal: Journal) -> threading.Event:
    """Keep segments from being made until the event is set."""
    gate = threading.Event()
    journal._space_thread.submit(gate.wait, PATIENCE_S)
    return gate


async def test_no_close_is_longer_than_what_is_kept_for_it(tmp_path: Path) -> None:
    """Whatever is said of a request when it ends has room, also on a disk that is full by then."""
    moment, slug = 2**63 - 1, "u" * NAME_CHARS
    trace = Trace("a" * 32, "b" * 16, "c" * 16, is_sampled=True)
    opened = msgspec.structs.replace(_open(1), upstream=slug, trace=trace)
    attempts = (Attempt(slug, "upstream_saturated", moment, moment),) * (ATTEMPTS - 1)
    event = msgspec.structs.replace(
        interrupted_event(opened, moment),
        **dict.fromkeys(COUNTS, moment),
        outcome="upstream_error",
        error_code=max((each.code for each in ERRORS), key=len),
        flags=FLAGS,
        key_secret_id="s" * 36,
        service_tier="t" * SERVICE_TIER_CHARS,
        upstream_request_id="i" * ANSWER_ID_CHARS,
        earlier_attempts=attempts,
    )
    by = RefusedBy("r" * 36, "output_tokens", moment, moment)
    places = ("h" * NAME_CHARS,) * ATTEMPTS
    course = Course(
        trace, moment, moment, places, moment, moment, "downstream", by, "p" * 20, "d" * 64
    )
    journal, request = _journal(tmp_path), Waiter(1, tmp_path)
    request.record = opened
    journal.open(opened, request)
    assert len(encode_record(Close(event, course))) <= request.reserved_bytes
    journal.close(request.event, request)
    journal.finish()


async def test_a_slow_disk_does_not_hold_up_the_next_segment(tmp_path: Path) -> None:
    """While an fsync takes long, the next segment is made all the same, and admission goes on."""
    GatedJournal.gate.clear()
    journal = _journal(tmp_path, kind=GatedJournal)
    for number in range(150):
        waiter = Waiter(number, tmp_path, padding=128)
        journal.open(waiter.record, waiter)
        journal.close(waiter.event, waiter)
        await asyncio.sleep(0.001)
        await eventually(lambda: journal.can_admit)
    assert len(_segments(tmp_path)) >= 2
    assert journal.sync_count == 0, "the fsync took all that time"
    GatedJournal.gate.set()
    journal.finish()


async def test_a_segment_under_way_is_waited_for(tmp_path: Path) -> None:
    """A record that needs the next segment before it is there waits for it, in its order."""
    journal = _journal(tmp_path)
    gate = _hold_up_space(journal)
    waiters = [Waiter(number, tmp_path, padding=4000) for number in range(20)]
    for waiter in waiters:  # more than admission would let in
        journal.open(waiter.record, waiter)
        await asyncio.sleep(0.002)
    assert [waiter.steps for waiter in waiters][-1] == []
    assert not journal.can_admit
    gate.set()
    await eventually(lambda: all(waiter.steps == ["opened"] for waiter in waiters))
    assert _without_begins(tmp_path) == [waiter.record for waiter in waiters]
    journal.finish()


async def test_a_clean_end_gives_space_and_lock_back(tmp_path: Path) -> None:
    """At the end files are as long as what is in them, unused ones are gone, the lock is free."""
    journal = _journal(tmp_path)
    for number in range(150):
        waiter = Waiter(number, tmp_path, padding=128)
        journal.open(waiter.record, waiter)
    await _turn()
    await eventually(lambda: bool(journal._ahead))
    assert len(_segments(tmp_path)) >= 2
    journal.finish()
    (segment,) = _segments(tmp_path)
    assert list(scan(segment.read_bytes()))[-1][1] == segment.stat().st_size
    assert segment.stat().st_mode & 0o777 == 0o600
    lock = os.open(segment.parent / LOCK_FILE, os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(lock)


async def test_an_end_while_a_segment_is_made_leaves_nothing(tmp_path: Path) -> None:
    """A segment that is being made when the end comes does not stay behind."""
    journal = _journal(tmp_path)
    gate = _hold_up_space(journal)
    for number in range(150):
        waiter = Waiter(number, tmp_path, padding=128)
        journal.open(waiter.record, waiter)
    await _turn()
    assert journal._preparing is not None
    gate.set()
    journal.finish()
    assert len(_segments(tmp_path)) == 1


async def test_a_folder_is_never_used_twice(tmp_path: Path) -> None:
    """A start with a slot and epoch that were used before is refused."""
    _journal(tmp_path).finish()
    with pytest.raises(FileExistsError):
        _journal(tmp_path)
    _journal(tmp_path, epoch=2).finish()


async def test_counters_say_what_was_written(tmp_path: Path) -> None:
    """Records, bytes and syncs are counted as they happen."""
    journal = _journal(tmp_path)
    waiter = Waiter(1, tmp_path)
    journal.open(waiter.record, waiter)
    journal.close(waiter.event, waiter)
    await eventually(lambda: journal.sync_count == 1)
    assert journal.record_count == 3
    journal.finish()
    (segment,) = _segments(tmp_path)
    assert journal.byte_count == segment.stat().st_size


async def test_a_segment_says_whose_it_is(tmp_path: Path) -> None:
    """Every segment begins with its producer, epoch and number."""
    journal = _journal(tmp_path, epoch=7)
    waiter = Waiter(1, tmp_path)
    journal.open(waiter.record, waiter)
    journal.finish()
    begin = _records(tmp_path)[0]
    assert begin == Begin("node/3", 7, 1, 1_750_000_000_000_000_000)
