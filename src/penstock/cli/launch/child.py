"""One supervised process: started, watched, started again when it dies, stopped."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from penstock.cli.errors import CHILD_FAILED, CommandError
from penstock.cli.launch import logs
from penstock.kit.clock import Clock

_TETHER = str(Path(__file__).with_name("tether.py"))
_READY_POLL_S = 0.05
_REAP_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """What to run and how."""

    name: str
    """Shown to the user; its log is `<name>.log`."""
    command: tuple[str, ...]
    log_path: Path
    is_ready: Callable[[], Awaitable[bool]]
    """Asked until it says yes; its errors are its own matter."""
    other_logs: tuple[Path, ...] = ()
    """Logs of its own children, shown with its own when it cannot start."""
    start_timeout_s: float = 60.0
    stop_grace_s: float = 5.0
    """From SIGTERM to SIGKILL."""
    hurry_grace_s: float = 3.0
    """The same, from the SIGTERM that says that there is no time."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to our own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """How soon a dead process is started again."""

    first_s: float = 0.2
    most_s: float = 15.0
    healthy_s: float = 30.0
    """After living this long, a death counts as the first one."""

    def delay_s(self, deaths: int) -> float:
        """Return the pause before the next start, after that many deaths in a row (>= 1)."""
        return min(self.first_s * 2.0 ** min(deaths - 1, 32), self.most_s)


class Keeper:
    """Keeps one child running until it is told to stop it.

    Args:
        child: What to run.
        report: Told in one sentence when the child dies and when it runs again.
        clock: Measures how long it lived and how long it may take.
        policy: How soon it is started again.
    """

    def __init__(
        self,
        child: Child,
        report: Callable[[str], None],
        clock: Clock,
        policy: RestartPolicy,
    ) -> None:
        """See the class."""
        self.child = child
        self._report = report
        self._clock = clock
        self._policy = policy
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._log_offsets: dict[Path, int] = {}
        self._started_s = 0.0

    @property
    def pid(self) -> int | None:
        """Id of the process that runs now."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Start the child and wait until it is ready.

        Raises:
            CommandError: It cannot be run, it ended, or it was not ready in time. It is left as
                it is then: call `stop`.
        """
        await self._spawn()
        deadline = self._clock.monotonic_s() + self.child.start_timeout_s
        while not await self.child.is_ready():
            code = None if self._process is None else self._process.returncode
            if code is not None:
                failure = f"ended {_describe(code)} while starting"
                raise self._failure(failure)
            if self._clock.monotonic_s() > deadline:
                failure = f"was not ready within {self.child.start_timeout_s:g} s"
                raise self._failure(failure)
            await asyncio.sleep(_READY_POLL_S)
        self._watch = asyncio.create_task(self._keep(), name=f"keep {self.child.name}")

    async def stop(self, hurry: asyncio.Event) -> bool:
        """Stop the child: SIGTERM, another one when `hurry` is set, SIGKILL after its grace.

        Returns:
            Whether it ended by itself.
        """
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
        process = self._process
        if process is None:
            return True
        if process.returncode is None:
            await self._ask_to_end(process, hurry)
        is_clean = process.returncode is not None
        # What it started itself is in its process group, unless it wanted that to outlive it.
        self._signal(signal.SIGKILL)
        try:
            async with asyncio.timeout(_REAP_S):
                await process.wait()
        except TimeoutError:
            # Stuck in the kernel: nothing more can be done, and others wait to be stopped.
            return False
        return is_clean

    async def _ask_to_end(self, process: asyncio.subprocess.Process, hurry: asyncio.Event) -> None:
        self._signal(signal.SIGTERM)
        ended = asyncio.create_task(process.wait())
        hurried = asyncio.create_task(hurry.wait())
        try:
            await asyncio.wait(
                [ended, hurried],
                timeout=self.child.stop_grace_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if hurried.done() and not ended.done():
                self._signal(signal.SIGTERM)
                await asyncio.wait([ended], timeout=self.child.hurry_grace_s)
        finally:
            ended.cancel()
            hurried.cancel()

    async def _spawn(self) -> None:
        child = self.child
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **child.environment}
        command = (sys.executable, "-IS", _TETHER, str(os.getpid()), *child.command)
        with logs.open_log(child.log_path) as log:
            # What earlier starts wrote is not shown as the words of this one.
            paths = (child.log_path, *child.other_logs)
            self._log_offsets = {path: path.stat().st_size for path in paths if path.exists()}
            # A session of its own: Ctrl-C on the terminal reaches us alone, and we stop it in turn.
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        self._started_s = self._clock.monotonic_s()

    async def _keep(self) -> None:
        deaths = 0
        while self._process is not None:
            code = await self._process.wait()
            lived_s = self._clock.monotonic_s() - self._started_s
            deaths = 1 if lived_s >= self._policy.healthy_s else deaths + 1
            delay_s = self._policy.delay_s(deaths)
            self._report(
                f"{self.child.name} ended {_describe(code)}; it is started again in "
                f"{delay_s:.1f} s (log: {self.child.log_path})"
            )
            await asyncio.sleep(delay_s)
            try:
                await self._spawn()
            except OSError as error:
                self._report(f"{self.child.name} cannot be started: {error}")
                continue
            self._report(f"{self.child.name} runs again")

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        try:
            if number is signal.SIGKILL:
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)
        except ProcessLookupError:
            pass

    def _failure(self, what: str) -> CommandError:
        child = self.child
        parts = [f"{child.name} {what}."]
        for path in (child.log_path, *child.other_logs):
            end = logs.tail(path, offset=self._log_offsets.get(path, 0))
            if end:
                parts.append(f"The end of {path}:\n{end}")
        remedy = f"See {child.log_path}, correct what it says, and start again."
        return CommandError(CHILD_FAILED, "\n".join(parts), remedy)


def _describe(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"
