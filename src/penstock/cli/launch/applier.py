"""Keeps the control plane of a dev instance at what penstock.yaml says."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from penstock.catalog.errors import PlatformFileError
from penstock.cli.applying import read_files, send
from penstock.cli.control_client import ControlClient
from penstock.cli.errors import BAD_CONFIG, CommandError
from penstock.cli.instance import ControlPlane

SET = "dev"
"""Name of the set of files that penstock.yaml is here."""
_POLL_S = 1.0
_READY_POLL_S = 0.05

Fingerprint = tuple[int, int, int]


class Applier:
    """Applies penstock.yaml at the start, and again whenever it changes.

    Args:
        config: The file.
        control: Where it is applied.
        is_control_ready: Asked until it says yes.
        warn: Told in a sentence what went wrong with a change of the file.
    """

    def __init__(
        self,
        config: Path,
        control: ControlPlane,
        is_control_ready: Callable[[], Awaitable[bool]],
        warn: Callable[[str], None],
    ) -> None:
        """See the class."""
        self._config = config
        self._control = control
        self._is_control_ready = is_control_ready
        self._warn = warn
        self._applied: Fingerprint | None = None

    async def start(self) -> None:
        """Apply the file as soon as the control plane is there.

        Raises:
            CommandError: It cannot be applied.
        """
        while True:
            if await self._is_control_ready():
                break
            await asyncio.sleep(_READY_POLL_S)
        try:
            await self._apply()
        except PlatformFileError as error:
            remedy = (
                f"Correct {self._config}. If it is about the secret of a key that was revoked, "
                "make another one: a new `secrets/dev_api_key` is made once the file is deleted."
            )
            raise CommandError(BAD_CONFIG, _sentence(error), remedy) from None

    async def follow(self) -> None:
        """Apply the file again whenever it changes; one that is wrong changes nothing."""
        while True:
            await asyncio.sleep(_POLL_S)
            if _fingerprint(self._config) == self._applied:
                continue
            try:
                await self._apply()
            except PlatformFileError as error:
                faults = _sentence(error)
                self._warn(f"{self._config} is not valid, and nothing was changed: {faults}")
            except CommandError as error:
                # Control is away for a moment: it is tried again.
                self._applied = None
                self._warn(f"{self._config} could not be applied: {error}")

    async def _apply(self) -> None:
        # Taken before the reading: a change in between is seen the next time.
        self._applied = _fingerprint(self._config)
        await asyncio.to_thread(self._apply_now)

    def _apply_now(self) -> None:
        document = read_files([self._config])
        with ControlClient(self._control) as client:
            try:
                send(client, document, set_name=SET, is_pruning=True)
            except PlatformFileError as error:
                if any(finding.path for finding in error.findings):
                    raise
                # Something that the user made still uses what left the file.
                send(client, document, set_name=SET)
                self._warn(f"what is no longer in {self._config} stays: {_sentence(error)}")


def _sentence(error: PlatformFileError) -> str:
    return "\n".join(str(finding) for finding in error.findings)


def _fingerprint(path: Path) -> Fingerprint:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)
