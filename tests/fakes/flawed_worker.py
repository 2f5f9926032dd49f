"""A real worker, some of whose connections cannot be looked at for a bug.

usage: python flawed_worker.py '<WorkerSettings as JSON>'
"""

import asyncio
import sys
from typing import cast

import msgspec
import uvloop

from penstock.contract.node import WorkerSettings
from penstock.gateway.server import Downstream
from penstock.gateway.worker import Worker

COUNT = 8
"""Of such connections, in whatever order connections are looked at."""


class Flawed:
    """A connection with a bug."""

    def sweep(self, now_s: float) -> None:
        """Fail."""
        message = f"a bug at {now_s}"
        raise RuntimeError(message)

    def drain(self) -> None:
        """Never end."""

    def interrupt(self) -> None:
        """Nothing is under way."""


async def _run(settings: WorkerSettings) -> int:
    worker = Worker(settings, asyncio.get_running_loop())
    for _ in range(COUNT):
        assert worker.join(cast("Downstream", Flawed()))
    return await worker.run()


if __name__ == "__main__":
    sys.exit(uvloop.run(_run(msgspec.json.decode(sys.argv[1], type=WorkerSettings))))
