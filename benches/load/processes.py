"""Start, weigh and end the programs of a run; each is ended by its own process id."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

STOP_S = 5.0
START_S = 20.0


class StartError(Exception):
    """A program did not come up; the message ends with the last lines of its log."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core runs what."""

    gateway: int
    """The one core of the gateway under test."""
    load: int
    """The core that the emulator and the client share."""


def choose_cores() -> Cores:
    """Return the first two cores that this process may use.

    Raises:
        StartError: There is only one: gateway and client would fight over it.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        message = "the bench needs two cores: one for the gateway, one for emulator and client"
        raise StartError(message)
    return Cores(gateway=allowed[0], load=allowed[1])


def raise_open_files() -> int:
    """Raise the limit on open files to the hard limit, for us and what we start; return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def find_free_port() -> int:
    """Return a port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def forget_file(path: Path) -> None:
    """Drop a file from the page cache, so that a start is a cold one."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fdatasync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def pinned(core: int) -> Iterator[None]:
    """Run the block on one core; a child started in it stays there with all its threads."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Running:
    """A started program.

    Args:
        name: What it is called in the table.
        process: The program itself; its descendants are weighed with it.
        port: Where it listens on 127.0.0.1.
        log: File that takes its output.
    """

    def __init__(self, name: str, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        """See the class."""
        self.name = name
        self.port = port
        self._process = process
        self._log = log

    def renamed(self, name: str) -> "Running":
        """Return the same program under another name."""
        return Running(name, self._process, self.port, self._log)

    @property
    def pid(self) -> int:
        """Id of the program's own process."""
        return self._process.pid

    def _pids(self) -> list[int]:
        main = psutil.Process(self._process.pid)
        return [main.pid, *(child.pid for child in main.children(recursive=True))]

    def cpu_ns(self) -> int:
        """Return the processor time used so far, user and system, of all its processes."""
        return sum(time.clock_gettime_ns(cpu_clock(pid)) for pid in self._pids())

    def rss_bytes(self) -> int:
        """Return the resident memory of all its processes; pages that they share count twice."""
        return sum(psutil.Process(pid).memory_info().rss for pid in self._pids())

    def wait_for_port(self) -> None:
        """Return when it accepts connections.

        Raises:
            StartError: It ended, or did not accept any within `START_S`.
        """
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            if self._process.poll() is not None:
                break
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        self.fail("did not start")

    def fail(self, what: str) -> None:
        """Raise `StartError` saying `what`, with the end of the log."""
        tail = self._log.read_text(errors="replace").strip().splitlines()[-8:]
        message = f"{self.name} {what}\n" + "\n".join(tail)
        raise StartError(message)

    def stop(self) -> None:
        """End it: politely, then by force, its descendants as well."""
        if self._process.poll() is not None:
            return
        descendants = psutil.Process(self._process.pid).children(recursive=True)
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for child in descendants:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.send_signal(signal.SIGKILL)


def cpu_clock(pid: int) -> int:
    """Return the id of a process's processor-time clock: exact, where /proc counts ticks.

    Source: clock_getcpuclockid(3) and CPUCLOCK_SCHED in the kernel's posix-timers_types.h.
    """
    return (~pid << 3) | 2


def start(
    name: str,
    command: Sequence[str],
    port: int,
    *,
    core: int,
    folder: Path,
    environment: Mapping[str, str] | None = None,
) -> Running:
    """Start a program on one core and wait until it listens.

    Args:
        name: What it is called.
        command: The program and its arguments; it must stay in the foreground.
        port: Where it will listen.
        core: The core for it and all its threads and children.
        folder: Its working folder; takes `output.log`.
        environment: Variables beside those of this process.

    Raises:
        StartError: It did not come up.
    """
    log = folder / "output.log"
    with log.open("ab") as output, pinned(core):
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
            env=os.environ | (environment or {}),
            start_new_session=True,
        )
    running = Running(name, process, port, log)
    try:
        running.wait_for_port()
    except BaseException:
        running.stop()
        raise
    return running
