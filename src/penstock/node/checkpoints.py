"""Keeps the shipper's checkpoints, one file a journal."""

from pathlib import Path

from penstock.kit.files import write_atomic
from penstock.node.progress import Checkpoint, decode_checkpoint, encode_checkpoint

_SUFFIX = ".json"


class Checkpoints:
    """Checkpoints in a folder, by the name of the journal.

    Args:
        folder: It must exist.
    """

    def __init__(self, folder: Path) -> None:
        """See the class."""
        self._folder = folder

    def get(self, name: str) -> Checkpoint:
        """Return a journal's checkpoint; that of the beginning when there is none."""
        try:
            return decode_checkpoint(self._path(name).read_bytes())
        except FileNotFoundError:
            return Checkpoint()

    def save(self, name: str, checkpoint: Checkpoint) -> None:
        """Replace a journal's checkpoint; it is on the disk then.

        Raises:
            OSError: It cannot be written; the old one stays.
        """
        write_atomic(self._path(name), encode_checkpoint(checkpoint))

    def delete(self, name: str) -> None:
        """Forget a journal that is no more."""
        self._path(name).unlink(missing_ok=True)

    def list_names(self) -> list[str]:
        """Return the names of the journals that have a checkpoint."""
        return sorted(path.stem for path in self._folder.glob(f"*{_SUFFIX}"))

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}{_SUFFIX}"
