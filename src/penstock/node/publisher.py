"""What the node serves from, put into the store that its workers read.

Records come from two places that know nothing of each other: the configuration file, and the
control plane's feed. Each takes back only what it put there itself, so neither can undo the
other's.
"""

import shutil
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import lmdb
import msgspec

from penstock.contract.snapshot import (
    Deployment,
    Endpoint,
    SealedCredential,
    Snapshot,
    SnapshotFormatError,
    Upstream,
)
from penstock.contract.snapshot_store import (
    FEED_LETTERS,
    Delta,
    SnapshotStore,
    found_record,
    records_of,
)
from penstock.kit.clock import Clock
from penstock.node import log_events

_FILE = b"f"
"""Record with the names of all records that are from the file."""
_CURSOR = b"q"
"""Record with how far the control plane's feed was followed."""

_encode = msgspec.msgpack.Encoder().encode
_decode_names = msgspec.msgpack.Decoder(list[bytes]).decode
_decode_cursor = msgspec.msgpack.Decoder(tuple[str, int]).decode

Records = dict[bytes, bytes]


class Publisher:
    """The store and its two sources. Its methods may be called from any thread.

    Args:
        path: Folder of the store. One that cannot be read, or is of another format, is put aside
            and made anew: the file and the feed, whose cursor is in it, fill it again.
        clock: Tells when a version was made.

    Raises:
        OSError, lmdb.Error: It cannot be made.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        """See the class."""
        self._clock = clock
        self._lock = threading.Lock()
        self.sealed_version = 0
        """Another number whenever sealed credentials were changed."""
        self._store = _open(path)
        self.seen_version = self._store.version
        """The newest version in which anything changed that workers see."""

    @property
    def version(self) -> int:
        """Version that workers can serve from; 0 before the first."""
        return self._store.version

    @property
    def cursor(self) -> tuple[str, int]:
        """Which feed was followed and how far; ("", 0) for none."""
        value = self._store.find(_CURSOR)
        return ("", 0) if value is None else _decode_cursor(value)

    def publish_file(self, snapshot: Snapshot) -> bool:
        """Make the file's records those of `snapshot`.

        Returns:
            Whether anything changed: then there is a new version.

        Raises:
            OSError, lmdb.Error: It cannot be written; nothing changed.
        """
        with self._lock:
            new = records_of(snapshot)
            names = self._store.find(_FILE)
            old = set() if names is None else set(_decode_names(names))
            puts = {name: value for name, value in new.items() if self._store.find(name) != value}
            deletes = old - new.keys()
            if not puts and not deletes and self.version > 0:
                return False
            puts[_FILE] = _encode(sorted(new))
            self._write(puts, deletes)
            return True

    def publish_feed(
        self, feed: str, seq: int, puts: Records, deletes: Iterable[bytes], *, is_full: bool
    ) -> bool:
        """Apply what the control plane's feed says.

        Args:
            feed: Identity of the feed; a cursor means something within one feed only.
            seq: How far it was followed with this.
            puts: Records that are new or changed.
            deletes: Names of records that are gone.
            is_full: `puts` are all records of the feed: others of it are gone.

        Returns:
            Whether anything that workers see changed.

        Raises:
            OSError, lmdb.Error: It cannot be written; nothing changed.
        """
        with self._lock:
            file_names = self._store.find(_FILE)
            ours = set() if file_names is None else set(_decode_names(file_names))
            gone = set(deletes)
            if is_full:
                gone |= self._store.names(*FEED_LETTERS) - puts.keys()
            changed = {
                name: value
                for name, value in puts.items()
                if name not in ours and self._store.find(name) != value
            }
            gone = {name for name in gone - ours if self._store.find(name) is not None}
            is_seen = bool(changed or gone)
            self._write(changed | {_CURSOR: _encode((feed, seq))}, gone, is_seen=is_seen)
            self.sealed_version += any(name.startswith(b"e") for name in (*changed, *gone))
            return is_seen

    def list_sealed(self) -> list[SealedCredential]:
        """Return all sealed credentials."""
        return self._store.list_sealed()

    def list_upstreams(self) -> list[Upstream]:
        """Return all upstreams."""
        return self._store.list_upstreams()

    def list_deployments(self) -> list[Deployment]:
        """Return all deployments."""
        return self._store.list_deployments()

    def list_found(self) -> dict[str, tuple[Endpoint, ...]]:
        """Return the endpoints that were found last, by source."""
        return self._store.list_found()

    def publish_found(self, found: Mapping[str, tuple[Endpoint, ...]], gone: Sequence[str]) -> None:
        """Put the endpoints that were found.

        Args:
            found: By source; others stay.
            gone: Sources that nobody names any more.

        Raises:
            OSError, lmdb.Error: It cannot be written; nothing changed.
        """
        with self._lock:
            puts = dict(found_record(*each) for each in found.items())
            self._write(puts, [found_record(source, ())[0] for source in gone])

    def outdo(self, version: int) -> None:
        """Take a version above one that a worker already serves from: they never go back.

        That is needed when the store was lost while workers lived on.
        """
        with self._lock:
            if version >= self.version > 0:
                self._write({}, (), version=version + 1)

    def close(self) -> None:
        """Let go of the store."""
        self._store.close()

    def _write(
        self,
        puts: Records,
        deletes: Iterable[bytes],
        *,
        version: int | None = None,
        is_seen: bool = True,
    ) -> None:
        base = self.version
        new = base + 1 if version is None else version
        if is_seen:
            # Before it is written: who then reads the new cursor must not read an old one of these.
            self.seen_version = new
        self._store.apply(
            Delta(
                base_version=base,
                version=new,
                created_at_ns=self._clock.wall_ns(),
                puts=sorted(puts.items()),
                deletes=sorted(deletes),
            )
        )


def _open(path: Path) -> SnapshotStore:
    try:
        return SnapshotStore(path)
    except (SnapshotFormatError, lmdb.Error, msgspec.DecodeError) as error:
        log_events.SNAPSHOT_STORE_REMADE.log(error=error)
        shutil.rmtree(path.with_name(f"{path.name}.broken"), ignore_errors=True)
        path.rename(path.with_name(f"{path.name}.broken"))
        return SnapshotStore(path)
