"""A KEK in a file, for development and for machines of one's own.

The file holds every version of the key in clear, so whoever can read it and the database can read
everything: mode 0600, on another disk and in another backup than the database.
"""

import base64
import binascii
import fcntl
import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.kit.envelope import (
    KEY_BYTES,
    NONCE_BYTES,
    DecryptionError,
    RandomBytes,
    Sealed,
    SecretBytes,
    bind,
    generate_key,
    seal,
    unseal,
)
from penstock.kit.files import write_atomic
from penstock.kit.kek.model import (
    Context,
    KekRefusedError,
    KekUnavailableError,
    KekVersion,
    UnwrapError,
    WrappedKey,
    foreign,
)

FORMAT = 1
MAX_FILE_BYTES = 65_536
_SCHEME = "file:"
_ID_BYTES = 8
_MODE = 0o600


@dataclass(frozen=True, slots=True)
class KeyFile:
    """What a key file holds."""

    id: str
    """Names this key wherever the file is moved to."""
    keys: dict[int, SecretBytes]
    """By version, 1 or more of them."""

    @property
    def current(self) -> int:
        """The version that wraps."""
        return max(self.keys)


class FileKek:
    """Wraps data keys with a key file.

    The file is read for every call: a version that another process adds is used from then on.

    Args:
        path: A file that `create_key_file` made.
        random_bytes: Where nonces come from.
    """

    def __init__(self, path: Path, *, random_bytes: RandomBytes = secrets.token_bytes) -> None:
        """See the class."""
        self._path = path
        self._random_bytes = random_bytes

    def current(self) -> KekVersion:
        """See `Kek`."""
        file = read_key_file(self._path)
        return KekVersion(_SCHEME + file.id, file.current)

    def serves(self, uri: str) -> bool:
        """See `Kek`."""
        return uri.startswith(_SCHEME) and uri == _SCHEME + read_key_file(self._path).id

    def wrap(self, key: SecretBytes, context: Context) -> WrappedKey:
        """See `Kek`."""
        file = read_key_file(self._path)
        version = KekVersion(_SCHEME + file.id, file.current)
        sealed = seal(
            file.keys[file.current], key, _associated(version, context), self._random_bytes
        )
        return WrappedKey(version, sealed.nonce + sealed.ciphertext)

    def unwrap(self, wrapped: WrappedKey, context: Context) -> SecretBytes:
        """See `Kek`."""
        file = read_key_file(self._path)
        if wrapped.kek.uri != _SCHEME + file.id:
            raise foreign(wrapped)
        key = file.keys.get(wrapped.kek.number)
        if key is None:
            there = ", ".join(map(str, sorted(file.keys)))
            message = (
                f"the key was wrapped with version {wrapped.kek.number} of {wrapped.kek.uri}, and "
                f"{self._path} has {there}; restore a newer copy of the file"
            )
            raise UnwrapError(message)
        sealed = Sealed(wrapped.ciphertext[:NONCE_BYTES], wrapped.ciphertext[NONCE_BYTES:])
        try:
            return unseal(key, sealed, _associated(wrapped.kek, context))
        except DecryptionError as error:
            message = f"a key wrapped with {wrapped.kek.uri} does not open: {error}"
            raise UnwrapError(message) from None


def read_key_file(path: Path) -> KeyFile:
    """Return what a key file holds.

    Raises:
        KekRefusedError: There is none (any more).
        KekUnavailableError: It cannot be read, others can read it, or it is no key file. The
            message names the file and the remedy and never what is in it.
    """
    try:
        # Not to hang on a pipe, which has no end.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _unusable(path, "is no regular file")
            if status.st_mode & 0o077:
                mode = stat.S_IMODE(status.st_mode)
                raise _unusable(path, f"can be read by others (mode {mode:04o}); chmod it to 0600")
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        unusable = _unusable(path, f"cannot be read: {reason}; create it or restore it")
        is_gone = isinstance(error, FileNotFoundError)
        raise (KekRefusedError(str(unusable)) if is_gone else unusable) from None
    parsed = _parse(content)
    if parsed is None:
        raise _unusable(path, "is damaged or no key file; restore it from its backup")
    return parsed


def create_key_file(path: Path, *, random_bytes: RandomBytes = secrets.token_bytes) -> KeyFile:
    """Write a new key file with version 1, mode 0600; its folder is made (0700) when missing.

    Raises:
        FileExistsError: There is one already: it is never replaced.
        OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _locked(path):
        if path.exists():
            message = f"{path} is there already; what it wrapped would be lost without it"
            raise FileExistsError(message)
        file = KeyFile(random_bytes(_ID_BYTES).hex(), {1: generate_key(random_bytes)})
        write_atomic(path, _dump(file), mode=_MODE)
    return file


def add_key_version(path: Path, *, random_bytes: RandomBytes = secrets.token_bytes) -> int:
    """Add a version to a key file and return its number; new keys are wrapped with it.

    Two processes that do so at once add two versions; none is lost.

    Raises:
        KekUnavailableError: The file cannot be used as it is.
        OSError: It cannot be written; it is as it was.
    """
    with _locked(path):
        file = read_key_file(path)
        number = file.current + 1
        keys = file.keys | {number: generate_key(random_bytes)}
        write_atomic(path, _dump(KeyFile(file.id, keys)), mode=_MODE)
    return number


def remove_key_version(path: Path, number: int) -> None:
    """Destroy an old version. What is still wrapped with it can never be opened again.

    Raises:
        ValueError: It is the current version, or there is none of this number.
        KekUnavailableError: The file cannot be used as it is.
        OSError: It cannot be written; it is as it was.
    """
    with _locked(path):
        file = read_key_file(path)
        if number == file.current or number not in file.keys:
            message = f"version {number} of {path} is current or not there; add a version first"
            raise ValueError(message)
        keys = {version: key for version, key in file.keys.items() if version != number}
        write_atomic(path, _dump(KeyFile(file.id, keys)), mode=_MODE)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock beside the file, which itself is replaced and so cannot be locked."""
    lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, _MODE)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _associated(version: KekVersion, context: Context) -> bytes:
    pairs = (text for pair in sorted(context.items()) for text in pair)
    return bind("kek", version.uri, str(version.number), *pairs)


def _dump(file: KeyFile) -> bytes:
    keys = {
        str(number): base64.b64encode(key.reveal()).decode()
        for number, key in sorted(file.keys.items())
    }
    return json.dumps({"format": FORMAT, "id": file.id, "keys": keys}, indent=2).encode() + b"\n"


def _parse(content: bytes) -> KeyFile | None:
    try:
        document: Any = json.loads(content)
        keys = {
            int(number): SecretBytes(base64.b64decode(key, validate=True))
            for number, key in document["keys"].items()
        }
        is_whole = (
            document["format"] == FORMAT
            and isinstance(document["id"], str)
            and document["id"].isalnum()
            and len(keys) == len(document["keys"]) > 0
            and min(keys) > 0
            and all(len(key.reveal()) == KEY_BYTES for key in keys.values())
        )
        return KeyFile(document["id"], keys) if is_whole else None
    except (ValueError, TypeError, KeyError, AttributeError, binascii.Error, RecursionError):
        return None


def _unusable(path: Path, problem: str) -> KekUnavailableError:
    return KekUnavailableError(f"the key file {path} {problem}")
