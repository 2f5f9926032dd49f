"""Runs the control plane: `python -m penstock.control '<ControlSettings as JSON>'`."""

import sys

from penstock.kit.starting import importing, use_one_heap

with importing():
    from penstock.control.program import main

if __name__ == "__main__":
    use_one_heap()
    sys.exit(main(sys.argv[1:]))
