"""Runs the control plane: `python -m penstock.control '<ControlSettings as JSON>'`."""

import sys

from penstock.kit.starting import importing, share_heaps

with importing():
    from penstock.control.program import main

if __name__ == "__main__":
    share_heaps()
    sys.exit(main(sys.argv[1:]))
