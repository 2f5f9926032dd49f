"""Run the telemetry bench: `python benches/telemetry/run.py --help`."""

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    sys.exit(importlib.import_module("benches.telemetry.session").main(sys.argv[1:]))
