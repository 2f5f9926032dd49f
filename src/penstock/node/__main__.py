"""Starts an agent: `python -m penstock.node '<AgentSettings as JSON>'`."""

import sys

from penstock.kit.starting import importing

with importing():
    from penstock.node.program import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
