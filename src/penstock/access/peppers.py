"""Peppers: what API keys are hashed under, kept outside the database."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from penstock.access.errors import PEPPER_INVALID
from penstock.access.rules import key_mac
from penstock.kit.errors import PenstockError
from penstock.kit.files import read_or_create_secret
from penstock.kit.secrets import find_secret_fault

MIN_PEPPER_BYTES = 32
MAX_PEPPERS = 2

_CHECK_TEXT = b"penstock: which pepper is this?"
"""No key: keys have no spaces."""
_FILE = re.compile(r"pepper\.(?P<id>[0-9]{1,4})")


@dataclass(frozen=True, slots=True)
class Peppers:
    """One pepper, or two while keys move from the old to the new one."""

    values: Mapping[int, bytes] = field(repr=False)
    """By id."""

    @property
    def active_id(self) -> int:
        """Id of the one that new keys are hashed under: the highest."""
        return max(self.values)

    @property
    def active(self) -> bytes:
        """The one that new keys are hashed under."""
        return self.values[self.active_id]

    @property
    def check(self) -> bytes:
        """Tells the active pepper from others, and nothing of what it is."""
        return key_mac(self.active, _CHECK_TEXT)

    def mac(self, text: str) -> bytes:
        """Return a key's hash under the active pepper."""
        return key_mac(self.active, text.encode())

    def macs(self, text: str) -> dict[int, bytes]:
        """Return a key's hash under each pepper, by the pepper's id."""
        return {
            pepper_id: key_mac(pepper, text.encode()) for pepper_id, pepper in self.values.items()
        }


def read_peppers(folder: Path, *, may_create: bool = True) -> Peppers:
    """Return the peppers in a folder; made when there is none, and the caller may.

    `pepper` is number 1, `pepper.2` and so on come later. To change the pepper: add the next
    file on every node, restart it, then the same for the control plane, which hashes under the new
    one from then on. Wait until the report of old hashes is empty, remove the old file.

    Raises:
        PenstockError: `PEPPER_INVALID`: one is short or can be guessed, or there are over two.
        OSError: The folder cannot be read or written, or there is none and none may be made.
    """
    numbered = {
        int(match["id"]): path
        for path in (folder.iterdir() if folder.exists() else ())
        if (match := _FILE.fullmatch(path.name)) is not None
    }
    first = folder / "pepper"
    if first.exists() or not numbered:
        if not may_create:
            first.stat()  # raises when it is not there
        numbered[1] = first
    values = {
        pepper_id: read_or_create_secret(path) for pepper_id, path in sorted(numbered.items())
    }
    if len(values) > MAX_PEPPERS:
        raise PenstockError(PEPPER_INVALID, f"{folder} has over {MAX_PEPPERS} peppers")
    for pepper_id, pepper in values.items():
        if len(pepper) < MIN_PEPPER_BYTES:
            raise PenstockError(PEPPER_INVALID, f"{numbered[pepper_id]} is too short")
        fault = find_secret_fault(numbered[pepper_id], pepper)
        if fault is not None:
            raise PenstockError(PEPPER_INVALID, fault)
    return Peppers(values)
