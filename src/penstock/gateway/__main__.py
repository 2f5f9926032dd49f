"""Start a worker: `python -m penstock.gateway '<WorkerSettings as JSON>'`."""

import asyncio
import sys

import lmdb
import msgspec
import uvloop

from penstock.contract.node import WorkerSettings
from penstock.contract.snapshot import SnapshotFormatError
from penstock.gateway import log_events
from penstock.gateway.limits import FILES_KEPT
from penstock.gateway.worker import Worker
from penstock.kit.errors import PenstockError
from penstock.kit.logs.setup import configure, know
from penstock.kit.processes import raise_open_files


def _within(settings: WorkerSettings, files: int) -> WorkerSettings:
    """Return settings by which callers' connections leave enough of the files for all else."""
    most = max(1, (files - FILES_KEPT) // 2)
    if settings.max_connections <= most:
        return settings
    log_events.FEWER_CONNECTIONS.log(max_connections=most, files=files)
    return msgspec.structs.replace(settings, max_connections=most)


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
        return uvloop.run(_serve(_within(settings, raise_open_files())))
    except (OSError, PenstockError, SnapshotFormatError, lmdb.Error) as error:
        log_events.CANNOT_START.log(why=error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
