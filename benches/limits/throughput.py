"""One worker with and without the rules of an ordinary plan: rate and CPU a request."""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from benches.control.weighing import Meter
from benches.limits.turns import Block, run_turns
from benches.load.measures import SMALL_BYTES
from benches.load.payloads import chat
from benches.load.processes import Cores, Running, find_free_port, pinned
from benches.load.servers import MODEL, Bench, launch_emulator
from benches.micro.session import limit_ordinarily
from tests.fakes.fake_agent import running_agent
from tests.fakes.limits_agent import LimitsAgent
from tests.fakes.worker_process import (
    KEY,
    OTHER_KEY,
    PEPPER,
    MemoryRecords,
    running_worker,
)

from penstock.access.rules import key_mac
from penstock.contract.snapshot import (
    Alias,
    Choice,
    Deployment,
    Endpoint,
    Key,
    Route,
    Snapshot,
    Upstream,
)
from penstock.contract.snapshot_store import budgets_record, limits_record, prices_record

PLENTY = 10**15


@dataclass(frozen=True, slots=True)
class Throughput:
    """What both keys reached on the same worker."""

    blocks: list[Block]
    """First the key without limits."""
    failed: int
    others_percent: float
    """Processor time that others took meanwhile, in percent of one core."""

    def ratio(self) -> float:
        """Return the rate with limits by that without: the median of the blocks.

        A burst of other work spoils a few blocks, whichever key it falls on. In the ratio of all
        requests it would stay.
        """
        return statistics.median(self.ratios())

    def ratios(self) -> list[float]:
        """Return the ratio of each block, the least first."""
        return sorted(each.other.per_second / each.first.per_second for each in self.blocks)


def compare(folder: Path, cores: Cores, *, blocks: int) -> Throughput:
    """Measure both keys by short turns on the same worker.

    Args:
        folder: Temporary.
        cores: The worker has one for itself; engine, client and agent share the other.
        blocks: Of four turns, how many.
    """
    bench = Bench(cores, folder, find_free_port(), KEY)
    emulator = launch_emulator(bench)
    try:
        return _compare(folder, cores, emulator, blocks)
    finally:
        emulator.stop()


def _compare(folder: Path, cores: Cores, emulator: Running, blocks: int) -> Throughput:
    snapshot = _snapshot(emulator.port)
    records = MemoryRecords(snapshot)
    limit_ordinarily(records)
    fed = dict(
        [limits_record(owner, limits) for owner, limits in records.limits.items()]
        + [budgets_record(owner, budgets) for owner, budgets in records.budgets.items()]
        + [prices_record(alias, prices) for alias, prices in records.prices.items()]
    )
    agent = LimitsAgent(
        lambda: time.monotonic_ns() // 1_000_000, base_ms=10**12, budgets={"budget": PLENTY}
    )
    with running_agent(agent.clock, answer=agent.answer) as link, pinned(cores.gateway):
        context = running_worker(
            folder / "worker",
            [emulator.port],
            snapshot=snapshot,
            fed=fed,
            agent_socket=str(link.path),
            journal_segment_bytes=16 * 1024 * 1024,
        )
        with context as worker, pinned(cores.load):
            meter = Meter()
            found = run_turns(
                worker.port,
                worker.pid,
                (chat(OTHER_KEY, SMALL_BYTES), chat(KEY, SMALL_BYTES)),
                blocks=blocks,
                folder=folder,
            )
            failed = found.bad_status + found.broken
            return Throughput(found.blocks(), failed, meter.others_percent())


def _snapshot(engine_port: int) -> Snapshot:
    """Return one with a key that the ordinary plan limits, and one of another organization."""
    return Snapshot(
        version=1,
        created_at_ns=1,
        keys=(
            Key("dev-key", key_mac(PEPPER, KEY.encode()), "dev", "playground"),
            Key("free-key", key_mac(PEPPER, OTHER_KEY.encode()), "other", "other"),
        ),
        upstreams=(Upstream(MODEL, "emulator", (Endpoint("http", "127.0.0.1", engine_port),)),),
        deployments=(Deployment(MODEL, MODEL, MODEL),),
        routes=(Route(MODEL, (Choice(MODEL),)),),
        aliases=(Alias(MODEL, MODEL),),
    )
