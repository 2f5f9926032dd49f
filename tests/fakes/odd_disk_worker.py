"""A real worker on a disk that is slow to sync, or fails to.

usage: python odd_disk_worker.py slow|failing '<WorkerSettings as JSON>'
"""

import asyncio
import errno
import os
import sys
import time

import msgspec
import uvloop

from penstock.contract.node import WorkerSettings
from penstock.gateway.journal import Journal
from penstock.gateway.worker import Worker

SLOW_S = 0.2


class SlowJournal(Journal):
    """A journal whose disk takes its time."""

    @staticmethod
    def sync(descriptor: int) -> None:
        """Sync late."""
        time.sleep(SLOW_S)
        os.fdatasync(descriptor)


class FailingJournal(Journal):
    """A journal whose disk fails."""

    @staticmethod
    def sync(descriptor: int) -> None:  # noqa: ARG004 - it never gets so far
        """Fail as a dying disk does."""
        raise OSError(errno.EIO, os.strerror(errno.EIO))


async def _run(kind: str, settings: WorkerSettings) -> int:
    journal_type = {"slow": SlowJournal, "failing": FailingJournal}[kind]
    return await Worker(settings, asyncio.get_running_loop(), journal_type).run()


if __name__ == "__main__":
    sys.exit(uvloop.run(_run(sys.argv[1], msgspec.json.decode(sys.argv[2], type=WorkerSettings))))
