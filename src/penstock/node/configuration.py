"""The node's configuration: compiled from the file, kept on the disk, replaced when it changes.

A file that is not valid is never applied in part: the last valid one is served from, over
restarts too.
"""

import logging
from pathlib import Path

from msgspec.structs import replace

from penstock.catalog.errors import PlatformFileError
from penstock.catalog.platform_file import load_platform_file
from penstock.contract.snapshot import (
    Snapshot,
    SnapshotFormatError,
    decode_snapshot,
    encode_snapshot,
)
from penstock.kit.clock import Clock
from penstock.kit.files import write_atomic
from penstock.node.log import line

log = logging.getLogger(__name__)

_SHOWN_FINDINGS = 50

Fingerprint = tuple[int, int, int]


class Configuration:
    """The configuration file and the snapshot made of it.

    Args:
        path: The configuration file.
        snapshot_path: Where the last valid snapshot is kept, for workers and for the next start.
        pepper: Secret under which API keys are hashed.
        clock: Tells when a snapshot was made.
    """

    def __init__(self, path: Path, snapshot_path: Path, pepper: bytes, clock: Clock) -> None:
        """See the class."""
        self.is_rejected = False
        """Whether the file is not valid now."""
        self._path = path
        self._snapshot_path = snapshot_path
        self._pepper = pepper
        self._clock = clock
        self._snapshot = self._read_last()
        self._fingerprint: Fingerprint | None = None

    @property
    def version(self) -> int:
        """Version of the snapshot that is served from; 0 before the first."""
        return 0 if self._snapshot is None else self._snapshot.version

    def start(self) -> None:
        """Read the file for the first time; fall back to the last valid snapshot.

        Raises:
            PlatformFileError: It is not valid, and no valid one is known.
            OSError: The snapshot cannot be written, and none is known.
        """
        try:
            self._load()
        except PlatformFileError as error:
            if self._snapshot is None:
                raise
            self._reject(error)
        except OSError as error:
            if self._snapshot is None:
                raise
            self._fail(error)

    def reload(self) -> bool:
        """Read the file and its secrets again.

        Returns:
            Whether there is a new snapshot now. When the file is not valid there is none: that
            is logged and shown in `is_rejected`.
        """
        before = self.version
        try:
            self._load()
        except PlatformFileError as error:
            self._reject(error)
        except OSError as error:
            self._fail(error)
        return self.version != before

    def has_changed(self) -> bool:
        """Tell whether the file is another one than when it was last read."""
        return _fingerprint(self._path) != self._fingerprint

    def outdo(self, version: int) -> None:
        """Take a version above one that a worker already serves from.

        That is needed when the snapshot's file was lost while workers lived on: they never go
        back.
        """
        if self._snapshot is not None and version >= self.version:
            self._keep(replace(self._snapshot, version=version + 1))

    def _load(self) -> None:
        # Taken before the reading: a change in between is seen the next time.
        self._fingerprint = _fingerprint(self._path)
        new = load_platform_file(
            self._path,
            self._pepper,
            version=self.version + 1,
            created_at_ns=self._clock.wall_ns(),
        )
        last = self._snapshot
        if last is None or new != replace(
            last, version=new.version, created_at_ns=new.created_at_ns
        ):
            self._keep(new)
            log.info(line("config accepted", version=new.version))
        elif self.is_rejected:
            log.info(line("config accepted", version=last.version, unchanged=True))
        self.is_rejected = False

    def _keep(self, snapshot: Snapshot) -> None:
        write_atomic(self._snapshot_path, encode_snapshot(snapshot), mode=0o600)
        self._snapshot = snapshot

    def _fail(self, error: OSError) -> None:
        """Go on as before when the snapshot cannot be written, and look again soon."""
        self._fingerprint = None
        log.error(line("config not saved", error=error))

    def _reject(self, error: PlatformFileError) -> None:
        self.is_rejected = True
        for finding in error.findings[:_SHOWN_FINDINGS]:
            log.error(line("config rejected", finding=finding))
        hidden = len(error.findings) - _SHOWN_FINDINGS
        if hidden > 0:
            log.error(line("config rejected", more_findings=hidden))
        log.error(line("config kept", version=self.version))

    def _read_last(self) -> Snapshot | None:
        try:
            return decode_snapshot(self._snapshot_path.read_bytes())
        except FileNotFoundError:
            return None
        except SnapshotFormatError as error:
            log.error(line("last snapshot unusable", error=error))  # noqa: TRY400  # no bug
            return None


def _fingerprint(path: Path) -> Fingerprint:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)
