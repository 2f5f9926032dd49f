"""Start a worker: `python -m penstock.gateway '<WorkerSettings as JSON>'`."""

import asyncio
import sys

import lmdb
import msgspec
import uvloop

from penstock.contract.node import WorkerSettings
from penstock.contract.snapshot import SnapshotFormatError
from penstock.gateway import log_events
from penstock.gateway.worker import Worker
from penstock.kit.errors import PenstockError
from penstock.kit.logs.setup import configure, know


async def _serve(settings: WorkerSettings) -> int:
    return await Worker(settings, asyncio.get_running_loop()).run()


def main() -> int:
    """Run the worker that the first argument describes; return its exit code."""
    try:
        settings = msgspec.json.decode(sys.argv[1].encode(), type=WorkerSettings)
    except (IndexError, msgspec.DecodeError) as error:
        sys.stderr.write(f"the only argument is WorkerSettings as JSON: {error}\n")
        return 2
    configure("worker", form=settings.log_format, level=settings.log_level)
    know(node=settings.node_id, slot=settings.slot)
    try:
        return uvloop.run(_serve(settings))
    except (OSError, PenstockError, SnapshotFormatError, lmdb.Error) as error:
        log_events.CANNOT_START.log(why=error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
