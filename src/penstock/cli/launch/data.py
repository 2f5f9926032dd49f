"""The data folder of a dev instance: its lock, its secrets, its facts."""

import fcntl
import os
import time
from pathlib import Path

import msgspec

from penstock.access.peppers import read_peppers
from penstock.access.rules import create_key
from penstock.cli.errors import BAD_OPTION, DATA_IN_USE, DATA_UNUSABLE, CommandError
from penstock.cli.instance import FACTS_FILE, LOCK_FILE, Facts
from penstock.kit.errors import PenstockError
from penstock.kit.files import read_or_create_secret, write_atomic
from penstock.kit.secrets import find_secret_fault

SHORTEST_KEY = 16
_LOCK_PATIENCE_S = 1.0
_LOCK_POLL_S = 0.05


class DataFolder:
    """A data folder that is ours alone until `close`.

    Args:
        path: Absolute path; created, with mode 0700, when missing.

    Raises:
        CommandError: Another `penstock dev` runs on it, or it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        """See the class."""
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            (path / "logs").mkdir(exist_ok=True, mode=0o700)
            # Not inherited by children: the lock must fall when we die, even while they drain.
            self._lock = os.open(path / LOCK_FILE, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(path, error) from None
        try:
            self._acquire()
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Let go of the folder; what is in it stays."""
        os.close(self._lock)

    def prepare_secrets(self, api_key: str | None) -> tuple[str, str]:
        """Create the secrets that are missing.

        Args:
            api_key: The dev API key to use from now on; None keeps, or makes, our own.

        Returns:
            The dev API key and the admin token.

        Raises:
            CommandError: The key is too short or no header can carry it, a file is unusable, or
                what it holds can be guessed.
        """
        folder = self.path / "secrets"
        try:
            key_path = folder / "dev_api_key"
            if api_key is not None:
                _check_key(api_key)
                folder.mkdir(exist_ok=True, mode=0o700)
                write_atomic(key_path, api_key.encode(), mode=0o600)
            _check_peppers(folder)
            _read_secret(folder / "node_token")
            admin_token = _read_secret(folder / "admin_token").decode()
            key = read_or_create_secret(key_path, create_key().encode()).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise _unusable(folder, error) from None
        return key, admin_token

    def write(self, name: str, content: bytes, *, mode: int = 0o600) -> Path:
        """Replace a file of the folder and return its path.

        Raises:
            CommandError: It cannot be written.
        """
        path = self.path / name
        try:
            write_atomic(path, content, mode=mode)
        except OSError as error:
            raise _unusable(path, error) from None
        return path

    def write_facts(self, facts: Facts) -> None:
        """Write `dev.json`, readable by its owner alone."""
        self.write(FACTS_FILE, msgspec.json.format(msgspec.json.encode(facts), indent=2) + b"\n")

    def log_path(self, name: str) -> Path:
        """Return where the log of that process is."""
        return self.path / "logs" / f"{name}.log"

    def _acquire(self) -> None:
        # A command that asks whether we run holds the lock for a moment: try for a moment.
        deadline = time.monotonic() + _LOCK_PATIENCE_S
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(_LOCK_POLL_S)
                    continue
                holder = os.pread(self._lock, 32, 0).decode(errors="replace").strip()
                who = f" (process {holder})" if holder else ""
                detail = f"Another `penstock dev`{who} runs on {self.path}."
                raise CommandError(DATA_IN_USE, detail) from None
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
            return


def _check_key(api_key: str) -> None:
    if len(api_key) < SHORTEST_KEY:
        detail = f"--api-key has {len(api_key)} characters."
        raise CommandError(BAD_OPTION, detail, f"Use {SHORTEST_KEY} characters or more.")
    if not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
        detail = "--api-key holds a character that no HTTP header can carry as a key."
        raise CommandError(BAD_OPTION, detail, "Use visible ASCII characters without spaces.")


def _check_peppers(folder: Path) -> None:
    try:
        read_peppers(folder)
    except PenstockError as error:
        raise CommandError(DATA_UNUSABLE, f"{error}.") from None


def _read_secret(path: Path) -> bytes:
    secret = read_or_create_secret(path)
    fault = find_secret_fault(path, secret)
    if fault is not None:
        raise CommandError(DATA_UNUSABLE, f"{fault}.")
    return secret


def _unusable(path: Path, error: OSError | UnicodeDecodeError) -> CommandError:
    reason = error.strerror if isinstance(error, OSError) else "it is no text"
    return CommandError(DATA_UNUSABLE, f"{path} cannot be used: {reason}.")
