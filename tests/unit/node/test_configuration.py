"""The configuration that a node serves from."""

import errno
import os
from pathlib import Path

import pytest

from penstock.catalog.errors import PlatformFileError
from penstock.contract.snapshot import Snapshot
from penstock.kit.clock import ManualClock
from penstock.node.configuration import Configuration
from penstock.node.publisher import Publisher

GOOD = "version: 1\norganizations: [{name: dev}]\n"
OTHER = GOOD + "upstreams: [{name: u, endpoints: ['http://127.0.0.1:1']}]\n"
BAD = "version: 1\nroots: []\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a valid configuration file."""
    path = tmp_path / "penstock.yaml"
    path.write_text(GOOD)
    return path


class Start:
    """A node's configuration from its start on."""

    def __init__(self, file: Path, publisher_type: type[Publisher] = Publisher) -> None:
        """Open the store beside the file and read the file."""
        self.publisher = publisher_type(file.parent / "snapshot", ManualClock())
        self.subject = Configuration(file, self.publisher, b"pepper", ManualClock())
        try:
            self.subject.start()
        except PlatformFileError:
            self.publisher.close()
            raise

    @property
    def version(self) -> int:
        """Version that workers can serve from."""
        return self.publisher.version

    def reload(self) -> int:
        """Read the file again and return the version behind it."""
        self.subject.reload()
        return self.version

    def end(self) -> None:
        """End as a killed agent does."""
        self.publisher.close()


class FullDisk(Publisher):
    """A publisher whose disk can be full."""

    is_full = False

    def publish_file(self, snapshot: Snapshot) -> bool:
        """Publish, unless the disk is full."""
        if self.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().publish_file(snapshot)


def test_versions_grow_with_changes_and_over_restarts(file: Path) -> None:
    """A change gives the next version, the same content none, a restart neither."""
    first = Start(file)
    assert first.version == 1
    assert first.reload() == 1
    file.write_text(OTHER)
    assert first.reload() == 2
    first.end()
    second = Start(file)
    assert second.version == 2
    file.write_text(GOOD)
    assert second.reload() == 3
    second.end()


def test_without_a_file_there_is_an_empty_snapshot(file: Path) -> None:
    """Workers can start at once, and what an earlier file said is gone."""
    first = Start(file)
    assert first.version == 1
    first.end()
    publisher = Publisher(file.parent / "snapshot", ManualClock())
    subject = Configuration(None, publisher, b"pepper", ManualClock())
    subject.start()
    assert not subject.has_changed()
    subject.reload()
    assert (publisher.version, subject.is_rejected) == (1, False), "the file had no records"
    publisher.close()
    fresh = Publisher(file.parent / "fresh", ManualClock())
    Configuration(None, fresh, b"pepper", ManualClock()).start()
    assert fresh.version == 1
    fresh.close()


def test_a_bad_reload_keeps_the_last_good_one(file: Path) -> None:
    """A file that is not valid changes nothing but the flag, until it is valid again."""
    start = Start(file)
    file.write_text(BAD)
    assert start.subject.has_changed()
    assert start.reload() == 1
    assert start.subject.is_rejected
    assert not start.subject.has_changed()
    file.write_text(GOOD)
    assert start.reload() == 1
    assert not start.subject.is_rejected
    start.end()


def test_a_bad_start_falls_back(file: Path) -> None:
    """A broken or absent file at start is served around when a last good one is known."""
    Start(file).end()
    file.write_text(BAD)
    start = Start(file)
    assert start.subject.is_rejected
    assert start.version == 1
    start.end()
    file.unlink()
    start = Start(file)
    assert start.subject.is_rejected
    start.end()


def test_a_bad_first_start_fails(file: Path) -> None:
    """Without a last good snapshot the findings are raised."""
    file.write_text(BAD)
    with pytest.raises(PlatformFileError, match="roots: is no field"):
        Start(file)


def test_a_damaged_store_is_as_good_as_none(file: Path) -> None:
    """A store that cannot be read is put aside and made anew from the file."""
    (file.parent / "snapshot").mkdir()
    (file.parent / "snapshot" / "data.mdb").write_bytes(b"nonsense" * 2_000)
    start = Start(file)
    assert start.version == 1
    assert (file.parent / "snapshot.broken" / "data.mdb").exists()
    start.end()


def test_workers_never_have_to_go_back(file: Path) -> None:
    """When workers serve from a newer version than is known, that is outdone."""
    start = Start(file)
    start.publisher.outdo(0)
    assert start.version == 1
    start.publisher.outdo(7)
    assert start.version == 8
    start.end()


def test_a_full_disk_is_tried_again(file: Path) -> None:
    """A snapshot that cannot be written is not served from and the file is read again."""
    start = Start(file, FullDisk)
    publisher = start.publisher
    assert isinstance(publisher, FullDisk)
    file.write_text(OTHER)
    publisher.is_full = True
    assert start.reload() == 1
    assert start.subject.has_changed()
    publisher.is_full = False
    assert start.reload() == 2
    start.end()
