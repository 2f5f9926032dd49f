"""Start it: `python -m penstock.node.caches '<CachesSettings as JSON>'`; agents do."""

import sys

import msgspec
import uvloop

from penstock.kit.logs.setup import configure, know
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
    uvloop.run(serve(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
