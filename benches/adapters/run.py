"""Run the bench of adapters: `python benches/adapters/run.py --help`."""

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    sys.exit(importlib.import_module("benches.adapters.session").main(sys.argv[1:]))
