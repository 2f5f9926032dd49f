"""Starts an agent: `python -m penstock.node '<AgentSettings as JSON>'`."""

import sys

from penstock.kit.starting import importing, share_heaps

with importing():
    from penstock.node.program import main

if __name__ == "__main__":
    share_heaps()
    sys.exit(main(sys.argv[1:]))
