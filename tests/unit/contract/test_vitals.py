"""How a process fares, as it sees it itself."""

import asyncio
import gc
import os
import time

from tests.fakes.agent_process import until

from penstock.contract.vitals import Vitals
from penstock.kit.processes import find_use


async def test_a_loop_that_stood_still_was_late() -> None:
    """A turn that takes long makes a timer late, and a collection is counted by its generation."""
    vitals = Vitals("worker-0")
    lag, *pauses = vitals.histograms
    vitals.start(asyncio.get_running_loop())
    try:
        await asyncio.sleep(0.02)
        time.sleep(0.2)  # noqa: ASYNC251 - that is what is to be seen
        await until(lambda: sum(lag.counts), "a beat")
        gc.collect()
    finally:
        vitals.stop()
    assert lag.sum > 0.05
    assert lag.labels == ("worker-0",)
    assert pauses[2].labels == ("worker-0", "2")
    before = sum(pauses[2].counts)
    assert before >= 1
    gc.collect()
    assert sum(pauses[2].counts) == before


def test_what_a_process_uses() -> None:
    """Of this process memory, time and files are known; of one that is gone nothing."""
    before = find_use(os.getpid())
    reading, writing = os.pipe()
    after = find_use(os.getpid())
    os.close(reading)
    os.close(writing)
    assert before is not None
    assert after is not None
    assert after.open_files == before.open_files + 2
    assert after.memory_bytes > 5_000_000
    assert after.cpu_s >= before.cpu_s > 0
    assert find_use(2**22 + 1) is None
