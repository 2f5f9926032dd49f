"""The node's configuration: compiled from the file, kept on the disk, replaced when it changes.

A file that is not valid is never applied in part: the last valid one is served from, over
restarts too.
"""

from pathlib import Path

import lmdb

from penstock.catalog.errors import PlatformFileError
from penstock.catalog.platform_file import load_platform_file
from penstock.contract.snapshot import Snapshot
from penstock.kit.clock import Clock
from penstock.node import log_events
from penstock.node.publisher import Publisher

_SHOWN_FINDINGS = 50

Fingerprint = tuple[int, int, int]


class Configuration:
    """The configuration file and what is published of it.

    Args:
        path: The configuration file; None for none, then all comes from the control plane.
        publisher: Takes what is valid; what it holds at the start is the last valid one.
        pepper: Secret under which API keys are hashed.
        clock: Tells when a snapshot was made.
    """

    def __init__(
        self, path: Path | None, publisher: Publisher, pepper: bytes, clock: Clock
    ) -> None:
        """See the class."""
        self.is_rejected = False
        """Whether the file is not valid now."""
        self._path = path
        self._publisher = publisher
        self._pepper = pepper
        self._clock = clock
        self._fingerprint: Fingerprint | None = None

    def start(self) -> None:
        """Read the file for the first time; fall back to what is published.

        Raises:
            PlatformFileError: It is not valid, and no valid one is known.
            OSError, lmdb.Error: It cannot be published, and none is known.
        """
        try:
            self._load()
        except PlatformFileError as error:
            if self._publisher.version == 0:
                raise
            self._reject(error)
        except (OSError, lmdb.Error) as error:
            if self._publisher.version == 0:
                raise
            self._fail(error)

    def reload(self) -> None:
        """Read the file and its secrets again.

        When the file is not valid nothing changes: that is logged and shown in `is_rejected`.
        """
        try:
            self._load()
        except PlatformFileError as error:
            self._reject(error)
        except (OSError, lmdb.Error) as error:
            self._fail(error)

    def has_changed(self) -> bool:
        """Tell whether the file is another one than when it was last read."""
        return _fingerprint(self._path) != self._fingerprint

    def _load(self) -> None:
        # Taken before the reading: a change in between is seen the next time.
        self._fingerprint = _fingerprint(self._path)
        snapshot = self._read(self._publisher.version + 1, self._clock.wall_ns())
        if self._publisher.publish_file(snapshot):
            log_events.CONFIG_ACCEPTED.log(version=self._publisher.version)
        elif self.is_rejected:
            log_events.CONFIG_ACCEPTED.log(version=self._publisher.version, unchanged=True)
        self.is_rejected = False

    def _read(self, version: int, created_at_ns: int) -> Snapshot:
        if self._path is None:
            # Published all the same: workers start, and what an earlier file said is gone.
            return Snapshot(version, created_at_ns, (), (), (), (), ())
        return load_platform_file(
            self._path, self._pepper, version=version, created_at_ns=created_at_ns
        )

    def _fail(self, error: OSError | lmdb.Error) -> None:
        """Go on as before when the snapshot cannot be written, and look again soon."""
        self._fingerprint = None
        log_events.CONFIG_NOT_SAVED.log(error=error)

    def _reject(self, error: PlatformFileError) -> None:
        self.is_rejected = True
        for finding in error.findings[:_SHOWN_FINDINGS]:
            log_events.CONFIG_REJECTED.log(finding=str(finding))
        hidden = len(error.findings) - _SHOWN_FINDINGS
        if hidden > 0:
            log_events.CONFIG_REJECTED.log(more_findings=hidden)
        log_events.CONFIG_KEPT.log(version=self._publisher.version)


def _fingerprint(path: Path | None) -> Fingerprint:
    if path is None:
        return (0, 0, 0)
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)
