"""Start a worker: `python -m penstock.gateway '<WorkerSettings as JSON>'`."""

import asyncio
import logging
import sys

import lmdb
import msgspec
import uvloop

from penstock.contract.node import WorkerSettings
from penstock.contract.snapshot import SnapshotFormatError
from penstock.gateway.worker import Worker
from penstock.kit.errors import PenstockError


async def _serve(settings: WorkerSettings) -> int:
    return await Worker(settings, asyncio.get_running_loop()).run()


def main() -> int:
    """Run the worker that the first argument describes; return its exit code."""
    logging.basicConfig(
        level=logging.INFO, format="time=%(asctime)s level=%(levelname)s %(name)s: %(message)s"
    )
    log = logging.getLogger("penstock.gateway")
    try:
        settings = msgspec.json.decode(sys.argv[1].encode(), type=WorkerSettings)
    except (IndexError, msgspec.DecodeError) as error:
        log.error("the only argument is WorkerSettings as JSON: %s", error)  # noqa: TRY400 - told
        return 2
    try:
        return uvloop.run(_serve(settings))
    except (OSError, PenstockError, SnapshotFormatError, lmdb.Error) as error:
        log.error("cannot start: %s", error)  # noqa: TRY400 - the cause is in the message
        return 1


if __name__ == "__main__":
    sys.exit(main())
