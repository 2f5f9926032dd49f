"""What the figures were measured on: without it they mean nothing."""

import datetime as dt
import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Machine:
    """Machine, versions and moment of a run."""

    measured_at: str
    """UTC, ISO 8601."""
    commit: str
    """Short hash; with `+changes` when the checkout differed from it."""
    processor: str
    cores: int
    memory_gb: int
    kernel: str
    python: str
    filesystem: str
    """Of the folder that holds the journal."""
    load_before: float
    """Load average of the minute before: more than 0.3 and others were at work."""

    def lines(self) -> list[str]:
        """Return one sentence each for the report."""
        return [
            f"Measured at {self.measured_at}, commit {self.commit}.",
            f"{self.processor}, {self.cores} cores, {self.memory_gb} GB, Linux {self.kernel}.",
            f"Python {self.python}; journal on {self.filesystem}.",
            f"Load average before the run: {self.load_before:.2f}.",
        ]

    def export(self) -> dict[str, object]:
        """Return it as plain data."""
        return asdict(self)


def describe_machine(journal_folder: Path) -> Machine:
    """Look at the machine; `journal_folder` is where the journal will be."""
    return Machine(
        measured_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        commit=_commit(),
        processor=_processor(),
        cores=os.cpu_count() or 0,
        memory_gb=round(psutil.virtual_memory().total / 1e9),
        kernel=platform.release(),
        python=platform.python_version(),
        filesystem=_filesystem(journal_folder),
        load_before=os.getloadavg()[0],
    )


def _git(*arguments: str) -> str:
    answer = subprocess.run(
        ["git", "-C", str(REPOSITORY), *arguments], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip()


def _commit() -> str:
    commit = _git("rev-parse", "--short=12", "HEAD") or "unknown"
    # The bench's own results do not change what is measured.
    changes = _git("status", "--porcelain", "--", ".", ":!benches/results")
    return commit + ("+changes" if changes else "")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _filesystem(folder: Path) -> str:
    mounts = {part.mountpoint: part.fstype for part in psutil.disk_partitions(all=True)}
    for parent in (folder, *folder.parents):
        if str(parent) in mounts:
            return mounts[str(parent)]
    return "unknown"
