"""Checks of the machine and of what is installed."""

import platform
import re
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path

from penstock.cli.checks.model import Finding, Verdict
from penstock.kit.clock import Clock

OLDEST_PYTHON = (3, 11)
FILES_FEW = 1024
FILES_ENOUGH = 8192
DISK_FAILED_BYTES = 256 * 1024 * 1024
DISK_NOTE_BYTES = 2 * 1024 * 1024 * 1024
BUILT_AT_NS = 1_735_689_600_000_000_000
"""2025-01-01: no clock that is right says an earlier time."""
_CLOCK_SLACK_NS = 300 * 1_000_000_000
_DRIFT_S = 0.02
_MEASURED_S = 0.05
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*>=\s*(?P<least>[0-9.]+)")


def check_python(version: tuple[int, int] = sys.version_info[:2]) -> Finding:
    """Look at the version of Python."""
    text = platform.python_version()
    if version < OLDEST_PYTHON:
        remedy = "Use Python 3.11 or newer."
        return Finding("Python", Verdict.FAILED, f"{text} is too old", remedy)
    return Finding("Python", Verdict.OK, text)


def check_platform(system: str = sys.platform) -> Finding:
    """Look at the operating system: the node needs Linux."""
    text = f"{platform.system()} {platform.release()} on {platform.machine()}"
    if system != "linux":
        remedy = "Run Penstock on Linux: workers share their port by Linux's SO_REUSEPORT."
        return Finding("Platform", Verdict.FAILED, text, remedy)
    return Finding("Platform", Verdict.OK, text)


def check_dependencies(
    requirements: Iterable[str] | None = None,
    version_of: Callable[[str], str] = metadata.version,
) -> Finding:
    """Compare what is installed with the least versions that we ask for.

    Args:
        requirements: `name>=version` lines; those of the installed package when None.
        version_of: Returns the version of an installed package.
    """
    if requirements is None:
        requirements = metadata.requires("penstock") or ()
    wrong = []
    count = 0
    for line in requirements:
        match = _REQUIREMENT.match(line)
        if match is None or "extra ==" in line:
            continue
        count += 1
        try:
            installed = version_of(match["name"])
        except metadata.PackageNotFoundError:
            wrong.append(f"{match['name']} is missing")
            continue
        if _version(installed) < _version(match["least"]):
            wrong.append(f"{match['name']} {installed} is older than {match['least']}")
    if wrong:
        remedy = "Install again: `make setup`, or `pip install --upgrade penstock`."
        return Finding("Dependencies", Verdict.FAILED, "; ".join(wrong), remedy)
    return Finding("Dependencies", Verdict.OK, f"{count} packages are recent enough")


def check_open_files(limits: tuple[int, int] | None = None) -> Finding:
    """Look at how many files, and so connections, a process may open."""
    soft, hard = limits or resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return Finding("Open files", Verdict.OK, "no limit")
    detail = f"{soft:,} a process (at most {hard:,})" if hard >= 0 else f"{soft:,} a process"
    remedy = "Raise it before the start: `ulimit -n 65536`; a stream needs two."
    if soft < FILES_FEW:
        return Finding("Open files", Verdict.FAILED, detail, remedy)
    if soft < FILES_ENOUGH:
        return Finding("Open files", Verdict.NOTE, detail, remedy)
    return Finding("Open files", Verdict.OK, detail)


def check_disk(folder: Path, free_bytes: int | None = None) -> Finding:
    """Look at the free space where the data folder is, or will be."""
    place = next(path for path in (folder, *folder.parents) if path.is_dir())
    if free_bytes is None:
        free_bytes = shutil.disk_usage(place).free
    detail = f"{free_bytes / 1e9:,.1f} GB free in {place}"
    remedy = "Free some space, or put the data elsewhere with --data."
    if free_bytes < DISK_FAILED_BYTES:
        # The journal refuses requests when it cannot be sure to book them.
        return Finding("Disk", Verdict.FAILED, detail, remedy)
    if free_bytes < DISK_NOTE_BYTES:
        return Finding("Disk", Verdict.NOTE, detail, remedy)
    return Finding("Disk", Verdict.OK, detail)


def check_clock(folder: Path, clock: Clock, sleep: Callable[[float], None] = time.sleep) -> Finding:
    """Look whether the wall clock is plausible, goes at the right pace, and did not go back."""
    remedy = "Set the clock, e.g. with an NTP service: usage is booked by its time."
    begin_ns, begin_s = clock.wall_ns(), clock.monotonic_s()
    sleep(_MEASURED_S)
    now_ns = clock.wall_ns()
    drift_s = (now_ns - begin_ns) / 1e9 - (clock.monotonic_s() - begin_s)
    newest_ns = max(
        (path.stat().st_mtime_ns for path in folder.glob("*") if path.is_file()), default=0
    )
    if now_ns < BUILT_AT_NS:
        return Finding("Clock", Verdict.FAILED, "it is before 2025", remedy)
    if newest_ns > now_ns + _CLOCK_SLACK_NS:
        ahead_s = (newest_ns - now_ns) / 1e9
        detail = f"a file in {folder} is {ahead_s:,.0f} s ahead of it: it was set back"
        return Finding("Clock", Verdict.FAILED, detail, remedy)
    if abs(drift_s) > _DRIFT_S:
        detail = f"it jumped by {drift_s:+.3f} s while measured"
        return Finding("Clock", Verdict.NOTE, detail, remedy)
    return Finding("Clock", Verdict.OK, "plausible and steady")


def _version(text: str) -> tuple[int, ...]:
    # Releases only: of 1.2.0.dev3 and 1.2rc1, what counts is 1.2.
    numbers = []
    for part in text.split("."):
        digits = re.match(r"\d+", part)
        if digits is None:
            break
        numbers.append(int(digits[0]))
        if digits[0] != part:
            break
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
