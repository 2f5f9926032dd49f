"""Where an agent's files are."""

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from penstock.node.errors import RUNTIME_UNSAFE, AgentError

CACHES_SOCKET = "caches.sock"
"""In the runtime folder: where workers ask what is in engines' KV caches."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The data folder, and what is where in it."""

    data: Path

    @property
    def lock(self) -> Path:
        """Held by the one agent that runs."""
        return self.data / "node" / "agent.lock"

    @property
    def node_id(self) -> Path:
        """The node's name for ever."""
        return self.data / "node" / "id"

    @property
    def epoch(self) -> Path:
        """Start number of the worker that was started last."""
        return self.data / "node" / "epoch"

    @property
    def limits(self) -> Path:
        """What is counted of limits."""
        return self.data / "node" / "limits"

    @property
    def snapshot(self) -> Path:
        """Folder of the store that workers serve from."""
        return self.data / "node" / "snapshot"

    def worker_settings(self, slot: int) -> Path:
        """Return the file with what the slot's worker was started with."""
        return self.data / "node" / f"worker-{slot}.json"

    @property
    def journal(self) -> Path:
        """Folder of the workers' journals."""
        return self.data / "journal"

    @property
    def shipper(self) -> Path:
        """Folder of the shipper's checkpoints."""
        return self.data / "shipper"

    @property
    def refused(self) -> Path:
        """Usage events that the usage store refused for ever, for somebody to look at."""
        return self.shipper / "refused.journal"

    @property
    def pepper(self) -> Path:
        """Secret under which API keys are hashed."""
        return self.data / "secrets" / "pepper"

    @property
    def node_token(self) -> Path:
        """Secret that the control plane knows the node by."""
        return self.data / "secrets" / "node_token"

    @property
    def kek(self) -> Path:
        """Key file that credentials are opened with when no other keeper is set."""
        return self.data / "secrets" / "kek.json"

    def worker_log(self, slot: int) -> Path:
        """Return the log of the slot's workers."""
        return self.data / "logs" / f"worker-{slot}.log"

    def create(self) -> None:
        """Create the folders that are missing."""
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in ("node", "journal", "shipper", "secrets", "logs"):
            (self.data / name).mkdir(exist_ok=True, mode=0o700)


def runtime_folder(data: Path) -> Path:
    """Return the folder for a data folder's socket: short, whatever the data folder's name is.

    A Unix socket's path has about 100 bytes at most.
    """
    digest = hashlib.sha256(os.fsencode(data.resolve())).hexdigest()
    return Path(tempfile.gettempdir()) / f"penstock-{digest[:12]}"


def create_runtime_folder(path: Path) -> None:
    """Create a folder that only we can enter, in a place where everybody can create folders.

    Raises:
        AgentError: There is one already that is not ours alone, or is no folder.
    """
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise AgentError(RUNTIME_UNSAFE, f"{path} is not a folder of this user")
    if stat.S_IMODE(found.st_mode) != stat.S_IRWXU:
        path.chmod(stat.S_IRWXU)
