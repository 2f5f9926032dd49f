"""Workers that nobody watches any more.

A worker outlives its agent on purpose (docs/adr/0007). When the agent had to be killed while the
whole instance stops, nobody is left to tell its workers, so they are looked for.
"""

import os
import signal
from pathlib import Path

import msgspec

from penstock.contract.node import WorkerSettings

_MODULE = "penstock.gateway"


def find_workers(data: Path, proc: Path = Path("/proc")) -> list[int]:
    """Return the process ids of the workers that journal into this data folder."""
    found = []
    for folder in proc.glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            # Gone meanwhile, or not ours to read.
            continue
        if _MODULE.encode() in words and _journals_into(words, data):
            found.append(int(folder.name))
    return found


def end_workers(data: Path) -> int:
    """Kill these workers and return how many there were.

    Their journals are whole: the next agent books what they did, and what they did not finish.
    """
    workers = find_workers(data)
    for pid in workers:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return len(workers)


def _journals_into(words: list[bytes], data: Path) -> bool:
    for word in words:
        if word.startswith(b"{"):
            try:
                settings = msgspec.json.decode(word, type=WorkerSettings)
            except msgspec.DecodeError:
                return False
            return Path(settings.journal_path).is_relative_to(data)
    return False
