"""One worker with and without the rules of an ordinary plan, by turns: rate and CPU a request."""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from benches.control.weighing import Meter, cpu_s
from benches.load.measures import BUSY_CONNECTIONS, SMALL_BYTES
from benches.load.payloads import Request
from benches.load.processes import Cores, Running, find_free_port, pinned
from benches.load.servers import MODEL, Bench, launch_emulator
from benches.load.wrk import Load, run_wrk
from benches.micro.session import chat_body, limit_ordinarily
from tests.fakes.fake_agent import running_agent
from tests.fakes.limits_agent import LimitsAgent
from tests.fakes.worker_process import (
    KEY,
    OTHER_KEY,
    PEPPER,
    MemoryRecords,
    WorkerProcess,
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
class Side:
    """A measure of one key."""

    per_second: float
    cpu_us: float
    """Of the worker, a request."""
    failed: int


@dataclass(frozen=True, slots=True)
class Round:
    """Both keys, one after the other."""

    free: Side
    limited: Side
    others_percent: float
    """Processor time that others took meanwhile, in percent of one core."""


def ratio(rounds: list[Round]) -> float:
    """Return the rate with limits by that without; the median of the rounds."""
    return statistics.median(one.limited.per_second / one.free.per_second for one in rounds)


def run_rounds(folder: Path, cores: Cores, *, rounds: int, seconds: float) -> list[Round]:
    """Measure both keys, round after round, on the same worker.

    Args:
        folder: Temporary.
        cores: The worker has one for itself; engine, client and agent share the other.
        rounds: How many.
        seconds: How long each measure lasts.
    """
    bench = Bench(cores, folder, find_free_port(), KEY)
    emulator = launch_emulator(bench)
    try:
        return _run(folder, cores, emulator, rounds=rounds, seconds=seconds)
    finally:
        emulator.stop()


def _run(
    folder: Path, cores: Cores, emulator: Running, *, rounds: int, seconds: float
) -> list[Round]:
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
            for key in (OTHER_KEY, KEY):
                _measure(worker, key, folder, seconds=1)
            found = []
            for number in range(rounds):
                meter = Meter()
                order = (OTHER_KEY, KEY) if number % 2 else (KEY, OTHER_KEY)
                sides = {key: _measure(worker, key, folder, seconds=seconds) for key in order}
                found.append(Round(sides[OTHER_KEY], sides[KEY], meter.others_percent()))
            return found


def _measure(worker: WorkerProcess, key: str, folder: Path, *, seconds: float) -> Side:
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    request = Request(headers, chat_body(SMALL_BYTES).decode())
    before_s = cpu_s(worker.pid)
    load: Load = run_wrk(
        worker.port, request, connections=BUSY_CONNECTIONS, seconds=seconds, folder=folder
    )
    used_s = cpu_s(worker.pid) - before_s
    return Side(load.per_second, used_s / load.requests * 1e6, load.bad_status + load.broken)


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
