"""Starts an agent: `python -m penstock.node '<AgentSettings as JSON>'`."""

import sys

from penstock.kit.starting import importing, use_one_heap

with importing():
    from penstock.node.program import main

if __name__ == "__main__":
    use_one_heap()
    sys.exit(main(sys.argv[1:]))
