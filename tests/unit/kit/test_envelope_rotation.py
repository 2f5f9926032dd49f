"""A rotation over many records: interrupted anywhere, it ends as if it had not been."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from penstock.kit.rotation import MAX_PASSES, Archive, Batch, Progress, Report, rotate


@dataclass(frozen=True)
class Record:
    """A record that is current when its version is 2."""

    id: str
    version: int = 1
    is_broken: bool = False


class BrokenError(Exception):
    """The record does not open."""


class CrashError(Exception):
    """The process died here."""


class MemoryArchive(Archive[Record]):
    """Records in memory, with transactions, that fails at a given call."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = {record.id: record for record in records}
        self.progress: Progress | None = None
        self.renewals: list[str] = []
        self.put_aside: set[str] = set()
        self.calls = 0
        self.crash_at: int | None = None
        self.crash: BaseException = CrashError()
        self.before_store: list[Record] = []

    def _step(self) -> None:
        self.calls += 1
        if self.crash_at == self.calls:
            raise self.crash

    async def load(self) -> Progress | None:
        """See `Archive`."""
        self._step()
        return self.progress

    async def list_after(self, cursor: str | None, limit: int) -> Sequence[Record]:
        """See `Archive`."""
        self._step()
        names = sorted(name for name in self.records if cursor is None or name > cursor)
        return [self.records[name] for name in names[:limit]]

    async def store(self, batch: Batch[Record]) -> None:
        """See `Archive`; the call can fail before and after the transaction."""
        self._step()
        while self.before_store:
            late = self.before_store.pop()
            self.records[late.id] = late
        for old, new in batch.renewed:
            if self.records[old.id] == old:
                self.records[old.id] = new
                self.renewals.append(old.id)
        self.put_aside |= {record.id for record in batch.unreadable}
        self.progress = batch.progress
        self._step()

    async def count_outdated(self) -> int:
        """See `Archive`."""
        self._step()
        return sum(record.version != 2 for record in self.records.values())


def renew(record: Record) -> Record | None:
    """Return the record with version 2."""
    if record.is_broken:
        raise BrokenError
    return None if record.version == 2 else replace(record, version=2)


async def run(archive: MemoryArchive, batch_size: int = 3) -> Report:
    """Rotate the archive."""
    return await rotate(archive, renew, unreadable=(BrokenError,), batch_size=batch_size)


def make_records() -> list[Record]:
    """Return eleven records, two of them broken and one current."""
    return [Record(f"{n:02}", 2 if n == 4 else 1, is_broken=n in {2, 9}) for n in range(11)]


async def test_every_record_is_renewed_once() -> None:
    """What is outdated is renewed, what is current is left alone, and the count says so."""
    archive = MemoryArchive([Record("a"), Record("b", 2), Record("c")])
    report = await run(archive, batch_size=1)
    assert report == Report(renewed=2, unreadable=0, outdated=0)
    assert report.is_complete
    assert archive.renewals == ["a", "c"]


async def test_nothing_to_do_is_done() -> None:
    """An empty archive is complete."""
    assert (await run(MemoryArchive([]))).is_complete


async def test_broken_records_are_put_aside() -> None:
    """A record that does not open stops nothing, is put aside, and keeps the old key needed."""
    archive = MemoryArchive(make_records())
    report = await run(archive)
    assert report == Report(renewed=8, unreadable=2, outdated=2)
    assert not report.is_complete
    assert archive.put_aside == {"02", "09"}


@pytest.mark.parametrize("crash", [CrashError(), asyncio.CancelledError()])
async def test_a_rotation_can_be_interrupted_at_every_step(crash: BaseException) -> None:
    """Killed at any call, before or after a commit, the next run goes on and nothing is lost."""
    whole = MemoryArchive(make_records())
    expected = await run(whole)
    assert whole.calls > 12
    for call in range(1, whole.calls + 1):
        archive = MemoryArchive(make_records())
        archive.crash, archive.crash_at = crash, call
        with pytest.raises(type(crash)):
            await run(archive)
        archive.crash_at = None
        report = await run(archive)
        assert archive.records == whole.records, call
        # The last call comes after the end was stored: there a new rotation finds nothing to do.
        assert report == (expected if call < whole.calls else replace(expected, renewed=0)), call
        assert sorted(archive.renewals) == sorted(whole.renewals), call


async def test_a_rotation_can_be_interrupted_again_and_again() -> None:
    """A run that dies every few calls still comes to its end."""
    archive = MemoryArchive(make_records())
    report = None
    for _ in range(50):
        archive.crash_at = archive.calls + 6
        try:
            report = await run(archive)
        except CrashError:
            continue
        break
    assert report is not None
    assert report.outdated == 2
    assert len(archive.renewals) == len(set(archive.renewals)) == 8


async def test_another_error_stops_at_what_was_stored() -> None:
    """A key keeper that goes away ends the run, and the batches before it stay."""

    def renew_some(record: Record) -> Record | None:
        if record.id == "05":
            raise ConnectionError
        return renew(record)

    archive = MemoryArchive(make_records())
    with pytest.raises(ConnectionError):
        await rotate(archive, renew_some, unreadable=(BrokenError,), batch_size=3)
    assert archive.renewals == ["00", "01"]
    assert (await run(archive)).renewed == 8


async def test_records_that_come_late_get_another_pass() -> None:
    """A record that appears behind the cursor, or changes meanwhile, is renewed before the end."""
    archive = MemoryArchive([Record("b"), Record("c"), Record("d")])
    archive.before_store = [Record("a"), Record("b", version=0)]
    report = await run(archive, batch_size=1)
    assert report.is_complete
    assert {record.version for record in archive.records.values()} == {2}
    assert sorted(archive.renewals) == ["a", "b", "c", "d"]


async def test_a_run_ends_though_records_keep_coming() -> None:
    """Where outdated records keep appearing, the run ends and says that it is not complete."""

    class Growing(MemoryArchive):
        async def count_outdated(self) -> int:
            self.records["0"] = Record("0")
            return await super().count_outdated()

    archive = Growing(make_records())
    report = await run(archive)
    assert not report.is_complete
    assert archive.progress is not None
    assert (archive.progress.passes, archive.progress.is_finished) == (MAX_PASSES, True)


async def test_a_finished_rotation_starts_anew() -> None:
    """The next rotation looks at every record again."""
    archive = MemoryArchive([Record("a")])
    await run(archive)
    archive.records["a"] = Record("a", version=0)
    assert await run(archive) == Report(renewed=1, unreadable=0, outdated=0)
