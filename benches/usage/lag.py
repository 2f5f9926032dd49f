"""How long after its end an event is in the database: journal, shipper, control plane."""

import asyncio
import random
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from benches.usage.plane import Kind, Plane, Usage, running_plane
from sqlalchemy import select
from tests.fakes.fake_worker import FakeJournal
from tests.fakes.organizations import ALL

from penstock.contract.journal import Close
from penstock.kit.clock import SystemClock
from penstock.metering.tables import UsageEvents
from penstock.node.checkpoints import Checkpoints
from penstock.node.delivery import ControlPlane
from penstock.node.shipper import Shipper
from penstock.storage.database import Database

PER_SECOND = 1_500
"""Half of what the control plane is to take in."""
_TICK_S = 0.02
_WORKERS = 2


@dataclass(frozen=True, slots=True)
class Lag:
    """How far the database is behind the journals, in seconds."""

    kind: Kind
    events: int
    median_s: float
    p99_s: float
    most_s: float


def measure(kind: Kind, folder: Path, seconds: float) -> Lag:
    """Write journals at a steady rate while a node's shipper ships them."""
    with running_plane(kind, folder) as plane:
        return asyncio.run(_measure(kind, plane, folder, seconds))


async def _measure(kind: Kind, plane: Plane, folder: Path, seconds: float) -> Lag:
    journals = folder / "journal"
    (folder / "shipper").mkdir()
    store = ControlPlane(plane.url, plane.token_path)
    shipper = Shipper(
        journals=journals,
        checkpoints=Checkpoints(folder / "shipper"),
        refused=folder / "refused",
        node_id="node-test",
        store=store,
        clock=SystemClock(),
        random=random.random,
        retention_s=3_600,
    )
    writers = [FakeJournal(journals, slot, segment_bytes=1 << 20) for slot in range(_WORKERS)]
    is_over = asyncio.Event()
    shipping = asyncio.create_task(shipper.run(is_over, 60))
    written = await _write(writers, seconds)
    is_over.set()
    await shipping
    await store.close()
    lags = await _read(plane.location)
    if len(lags) != written:
        message = f"{len(lags)} of {written} events were shipped"
        raise RuntimeError(message)
    return Lag(
        kind, written, statistics.median(lags), statistics.quantiles(lags, n=100)[98], max(lags)
    )


async def _write(writers: list[FakeJournal], seconds: float) -> int:
    usage = Usage()
    start_s = time.monotonic()
    written = 0
    while (elapsed_s := time.monotonic() - start_s) < seconds:
        due = int(elapsed_s * PER_SECOND) - written
        for number, writer in enumerate(writers):
            events = [usage.make() for _ in range(due // 2 + (due % 2 and number == 0))]
            writer.write(*map(Close, events))
        written += due
        await asyncio.sleep(_TICK_S)
    return written


async def _read(location: Path | str) -> list[float]:
    database = Database(location)
    await database.open()
    async with database.read(ALL) as session:
        columns = select(UsageEvents.recorded_at, UsageEvents.finished_at)
        rows = await session.rows(columns)
    await database.close()
    return [(recorded - finished) / 1e6 for recorded, finished in rows]
