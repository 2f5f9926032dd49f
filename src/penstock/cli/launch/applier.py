"""Keeps a dev instance at what penstock.yaml says."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from penstock.catalog.errors import PlatformFileError
from penstock.cli.applying import read_files, send
from penstock.cli.control_client import ControlClient
from penstock.cli.errors import BAD_CONFIG, CommandError
from penstock.cli.instance import ControlPlane
from penstock.cli.launch.reporter import Reporter

SET = "dev"
"""Name of the set of files that penstock.yaml is here."""
_POLL_S = 1.0
_READY_POLL_S = 0.05

Question = Callable[[], Awaitable[bool]]
Fingerprint = tuple[int, int, int]


class Applier:
    """Applies penstock.yaml at the start, and again whenever it changes.

    It is done when requests meet what was applied, or when that takes too long, which is said.

    Args:
        config: The file.
        control: Where it is applied.
        is_control_ready: Asked until it says yes.
        is_served: Whether requests meet what control has.
        reporter: Told what was done, and what went wrong.
        patience_s: How long requests may take to meet it until that is said.
    """

    def __init__(
        self,
        config: Path,
        control: ControlPlane,
        *,
        is_control_ready: Question,
        is_served: Question,
        reporter: Reporter,
        patience_s: float = 30.0,
    ) -> None:
        """See the class."""
        self._config = config
        self._control = control
        self._is_control_ready = is_control_ready
        self._is_served = is_served
        self._reporter = reporter
        self._patience_s = patience_s
        self._applied: Fingerprint | None = None

    async def start(self) -> None:
        """Apply the file as soon as the control plane is there, and wait until it is served.

        Raises:
            CommandError: It cannot be applied.
        """
        await _until(self._is_control_ready)
        try:
            await self._apply()
        except PlatformFileError as error:
            remedy = (
                f"Correct {self._config}. If it is about the secret of a key that was revoked, "
                "make another one: a new `secrets/dev_api_key` is made once the file is deleted."
            )
            raise CommandError(BAD_CONFIG, _sentence(error), remedy) from None
        await self._until_served()

    async def follow(self) -> None:
        """Apply the file again whenever it changes; one that is wrong changes nothing."""
        while True:
            await asyncio.sleep(_POLL_S)
            if _fingerprint(self._config) == self._applied:
                continue
            try:
                await self._apply()
                if await self._until_served():
                    self._reporter.progress(f"{self._config} was applied and is served from")
            except PlatformFileError as error:
                faults = _sentence(error)
                self._reporter.warn(
                    f"{self._config} is not valid, and nothing was changed: {faults}"
                )
            except CommandError as error:
                # Control is away for a moment: it is tried again.
                self._applied = None
                self._reporter.warn(f"{self._config} could not be applied: {error}")

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
                sentence = f"what is no longer in {self._config} stays: {_sentence(error)}"
                self._reporter.warn(sentence)

    async def _until_served(self) -> bool:
        try:
            async with asyncio.timeout(self._patience_s):
                await _until(self._is_served)
        except TimeoutError:
            self._reporter.warn(
                f"{self._config} was applied, but the gateway did not follow within "
                f"{self._patience_s:g} s: requests may still meet what was there before; "
                "see `logs/agent.log` in the data folder"
            )
            return False
        return True


async def _until(question: Question) -> None:
    while True:
        if await question():
            return
        await asyncio.sleep(_READY_POLL_S)


def _sentence(error: PlatformFileError) -> str:
    return "\n".join(str(finding) for finding in error.findings)


def _fingerprint(path: Path) -> Fingerprint:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)
