"""Two sources of records, one store: each takes back only its own."""

from collections.abc import Iterator
from pathlib import Path

import lmdb
import msgspec
import pytest

from penstock.contract.snapshot import FORMAT, Alias, Key, Snapshot
from penstock.contract.snapshot_store import key_record, suspension_name
from penstock.kit.clock import ManualClock
from penstock.node.publisher import Publisher

FILE_KEY = key_record(Key("from-file", b"f" * 32, "dev", "playground"))
FED_KEY = key_record(Key("fed", b"k" * 32, "org", "prj"))


def _file(*keys: Key) -> Snapshot:
    return Snapshot(1, 1, keys, (), (), (), (Alias("model", "route"),))


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[Publisher]:
    """Return a publisher with a store of its own."""
    found = Publisher(tmp_path / "snapshot", ManualClock())
    yield found
    found.close()


def test_a_feed_adds_and_removes_its_own(publisher: Publisher) -> None:
    """Records of the feed come and go, and its cursor with them in one transaction."""
    publisher.publish_file(_file(Key("from-file", b"f" * 32, "dev", "playground")))
    assert publisher.cursor == ("", 0)
    assert publisher.publish_feed("feed", 4, dict([FED_KEY]), (), is_full=False)
    assert publisher.cursor == ("feed", 4)
    assert publisher._store.find(FED_KEY[0]) == FED_KEY[1]
    assert publisher.publish_feed("feed", 5, {}, [FED_KEY[0]], is_full=False)
    assert publisher._store.find(FED_KEY[0]) is None
    assert publisher._store.find(FILE_KEY[0]) == FILE_KEY[1]


def test_nothing_new_is_no_change(publisher: Publisher) -> None:
    """A feed that says what is known moves the cursor and tells workers nothing."""
    publisher.publish_feed("feed", 1, dict([FED_KEY]), (), is_full=False)
    assert not publisher.publish_feed("feed", 2, dict([FED_KEY]), [b"kgone"], is_full=False)
    assert publisher.cursor == ("feed", 2)
    assert (publisher.version, publisher.seen_version) == (2, 1)


def test_sources_cannot_undo_each_other(publisher: Publisher) -> None:
    """The feed cannot touch the file's records, nor the file the feed's."""
    publisher.publish_file(_file(Key("from-file", b"f" * 32, "dev", "playground")))
    publisher.publish_feed("feed", 1, {FILE_KEY[0]: b"other"}, [FILE_KEY[0]], is_full=False)
    assert publisher._store.find(FILE_KEY[0]) == FILE_KEY[1]
    publisher.publish_feed("feed", 2, dict([FED_KEY]), (), is_full=False)
    publisher.publish_file(_file())
    assert publisher._store.find(FILE_KEY[0]) is None
    assert publisher._store.find(FED_KEY[0]) == FED_KEY[1]


def test_a_full_feed_replaces_what_was_fed(publisher: Publisher) -> None:
    """All that the feed once said and does not say any more is gone."""
    publisher.publish_file(_file(Key("from-file", b"f" * 32, "dev", "playground")))
    suspended = (suspension_name("org"), b"")
    publisher.publish_feed("feed", 1, dict([FED_KEY, suspended]), (), is_full=False)
    other = key_record(Key("other", b"o" * 32, "org", "prj"))
    publisher.publish_feed("feed-2", 9, dict([other]), (), is_full=True)
    assert publisher._store.names(b"k") == {FILE_KEY[0], other[0]}
    assert publisher._store.names(b"s") == set()
    assert publisher._store.names(b"a") == {b"amodel"}
    assert publisher.cursor == ("feed-2", 9)


@pytest.mark.parametrize(
    "meta",
    [
        {"version": 41, "created_at_ns": 1, "upstreams_version": 3, "format": FORMAT - 1},
        {"version": 41, "created_at_ns": 1, "upstreams_version": 3, "format": FORMAT + 1},
        {"something": "else"},
    ],
    ids=["older", "newer", "unreadable"],
)
def test_a_store_of_another_version_of_penstock_is_made_anew(
    tmp_path: Path, meta: dict[str, object]
) -> None:
    """After an upgrade, or back, the node starts over: nothing old is read, all is fed again."""
    (tmp_path / "snapshot").mkdir()
    environment = lmdb.open(str(tmp_path / "snapshot"))
    with environment.begin(write=True) as transaction:
        transaction.put(b"m", msgspec.msgpack.encode(meta))
        transaction.put(b"c", msgspec.msgpack.encode(("feed", 9)))
        transaction.put(FED_KEY[0], b"in the words of that time")
    environment.close()
    publisher = Publisher(tmp_path / "snapshot", ManualClock())
    assert (publisher.version, publisher.cursor) == (0, ("", 0))
    assert publisher._store.find(FED_KEY[0]) is None
    publisher.publish_feed("feed", 9, dict([FED_KEY]), (), is_full=True)
    publisher.close()
    again = Publisher(tmp_path / "snapshot", ManualClock())
    assert again._store.find(FED_KEY[0]) == FED_KEY[1]
    again.close()
