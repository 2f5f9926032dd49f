"""What processes do at their start."""

import ctypes
import subprocess
import sys

import pytest

THREADS = 6
PROGRAM = f"""
import sys, threading
from penstock.kit.starting import share_heaps

if sys.argv[1] == "one":
    share_heaps()
together = threading.Barrier({THREADS} + 1)

def work():
    for _ in range(20):
        taken = [bytes(2_000) for _ in range(1_000)]
    del taken
    together.wait()
    together.wait()

for _ in range({THREADS}):
    threading.Thread(target=work).start()
together.wait()
print(open("/proc/self/statm").read().split()[1])
together.wait()
"""


def resident_pages(heaps: str) -> int:
    """Return how much memory a process has whose threads took some and let go of it."""
    command = [sys.executable, "-c", PROGRAM, heaps]
    return int(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not this C library's")
def test_threads_share_one_heap() -> None:
    """What a thread let go of another one has, where each would keep its own."""
    assert resident_pages("one") * 1.25 < resident_pages("many")
