"""Start it: `python -m penstock.node.caches '<CachesSettings as JSON>'`; agents do."""

import sys

import msgspec
import uvloop

from penstock.kit.logs.setup import configure, know
from penstock.kit.processes import find_memory, limit_memory
from penstock.node.caches.process import CachesSettings, serve


def main() -> int:
    """Run until standard input ends; return the exit code."""
    try:
        settings = msgspec.json.decode(sys.argv[1].encode(), type=CachesSettings)
    except (IndexError, msgspec.DecodeError) as error:
        sys.stderr.write(f"the only argument is CachesSettings as JSON: {error}\n")
        return 2
    configure("caches", form=settings.log_format, level=settings.log_level)
    know(node=settings.node_id)
    # Parts of a message that never ends are kept by ZeroMQ, which counts them as one: an engine
    # that sends such must not take the memory of workers.
    limit_memory(settings.memory_bytes or find_memory() // 2)
    uvloop.run(serve(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
