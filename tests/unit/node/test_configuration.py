"""The configuration that a node serves from."""

from pathlib import Path

import pytest

from penstock.catalog.errors import PlatformFileError
from penstock.contract.snapshot import decode_snapshot
from penstock.kit.clock import ManualClock
from penstock.node.configuration import Configuration

GOOD = "version: 1\norganizations: [{name: dev}]\n"
OTHER = GOOD + "upstreams: [{name: u, endpoints: ['http://127.0.0.1:1']}]\n"
BAD = "version: 1\nroots: []\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a valid configuration file."""
    path = tmp_path / "penstock.yaml"
    path.write_text(GOOD)
    return path


def configuration(file: Path) -> Configuration:
    """Return the configuration of a node that starts."""
    return Configuration(file, file.parent / "snapshot.msgpack", b"pepper", ManualClock())


def saved_version(file: Path) -> int:
    """Return the version that is on the disk."""
    return decode_snapshot((file.parent / "snapshot.msgpack").read_bytes()).version


def test_versions_grow_with_changes_and_over_restarts(file: Path) -> None:
    """A change gives the next version, the same content none, a restart neither."""
    first = configuration(file)
    first.start()
    assert (first.version, saved_version(file)) == (1, 1)
    assert not first.reload()
    file.write_text(OTHER)
    assert first.reload()
    assert (first.version, saved_version(file)) == (2, 2)
    second = configuration(file)
    second.start()
    assert second.version == 2
    file.write_text(GOOD)
    assert second.reload()
    assert second.version == 3


def test_a_bad_reload_keeps_the_last_good_one(file: Path) -> None:
    """A file that is not valid changes nothing but the flag, until it is valid again."""
    subject = configuration(file)
    subject.start()
    file.write_text(BAD)
    assert subject.has_changed()
    assert not subject.reload()
    assert subject.is_rejected
    assert not subject.has_changed()
    assert (subject.version, saved_version(file)) == (1, 1)
    file.write_text(GOOD)
    assert not subject.reload()
    assert not subject.is_rejected


def test_a_bad_start_falls_back(file: Path) -> None:
    """A broken or absent file at start is served around when a last good one is known."""
    configuration(file).start()
    file.write_text(BAD)
    subject = configuration(file)
    subject.start()
    assert subject.is_rejected
    assert subject.version == 1
    file.unlink()
    subject = configuration(file)
    subject.start()
    assert subject.is_rejected


def test_a_bad_first_start_fails(file: Path) -> None:
    """Without a last good snapshot the findings are raised."""
    file.write_text(BAD)
    with pytest.raises(PlatformFileError, match="roots: is no field"):
        configuration(file).start()


def test_a_damaged_snapshot_is_as_good_as_none(file: Path) -> None:
    """A snapshot that cannot be read is made anew from the file."""
    (file.parent / "snapshot.msgpack").write_bytes(b"\xff\0broken")
    subject = configuration(file)
    subject.start()
    assert (subject.version, saved_version(file)) == (1, 1)


def test_workers_never_have_to_go_back(file: Path) -> None:
    """When workers serve from a newer version than is known, that is outdone."""
    subject = configuration(file)
    subject.start()
    subject.outdo(0)
    assert subject.version == 1
    subject.outdo(7)
    assert (subject.version, saved_version(file)) == (8, 8)


def test_a_full_disk_is_tried_again(file: Path) -> None:
    """A snapshot that cannot be written is not served from and the file is read again."""
    subject = configuration(file)
    subject.start()
    file.write_text(OTHER)
    snapshot = file.parent / "snapshot.msgpack"
    snapshot.unlink()
    snapshot.mkdir()
    assert not subject.reload()
    assert subject.version == 1
    assert subject.has_changed()
    snapshot.rmdir()
    assert subject.reload()
    assert saved_version(file) == 2
