"""The bench of gRPC: how many calls to infer a worker answers on one core, and what each costs."""

import argparse
import asyncio
import json
import math
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import uvloop
from benches.control.weighing import Meter, cpu_s
from benches.grpc.traffic import CALLS_EACH, CONNECTIONS, TEXT_BYTES, Source, engine, head, question
from benches.load.figures import LEAST_CORE_PERCENT
from benches.load.machine import REPOSITORY, describe_machine
from benches.load.processes import choose_cores, find_free_port, pinned
from rich.console import Console
from tests.fakes.worker_process import KEY, make_snapshot, running_worker

from penstock.contract.snapshot import Endpoint, Snapshot

WANTED_PER_SECOND = 2_500
ROUND_S = 3.0
_WARMING_S = 1.0


@dataclass(frozen=True, slots=True)
class Round:
    """What was measured in one go."""

    calls: int
    failed: int
    seconds: float
    cpu_s: float
    """Of the worker."""
    others_percent: float
    """Processor time that others took meanwhile, in percent of one core."""

    @property
    def per_second(self) -> float:
        """Good answers a second."""
        return (self.calls - self.failed) / self.seconds

    @property
    def cpu_us(self) -> float:
        """Microseconds of the worker a call; infinite when none was answered."""
        return self.cpu_s / self.calls * 1e6 if self.calls else math.inf

    @property
    def core_percent(self) -> float:
        """How much of its core the worker used."""
        return self.cpu_s / self.seconds * 100

    @property
    def per_core_second(self) -> float:
        """Calls that a whole core answers in a second.

        What others left of the core, or what the load did not ask for, is no fault of the worker.
        """
        is_busy = self.core_percent >= LEAST_CORE_PERCENT
        return self.per_second if is_busy else 1e6 / self.cpu_us


def main(arguments: list[str]) -> int:
    """Run the bench and write `results/grpc.md` and `grpc.json`."""
    options = _parse(arguments)
    machine = describe_machine(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix="penstock-grpc-") as name:
        rounds = _measure(Path(name), options.rounds)
    reached = statistics.median(each.per_core_second for each in rounds)
    is_good = reached >= WANTED_PER_SECOND and not any(each.failed for each in rounds)
    text = _render(machine.lines(), rounds, reached)
    Console().print(text, highlight=False, soft_wrap=True)
    results = REPOSITORY / "benches" / "results"
    (results / "grpc.md").write_text(text)
    data = {
        "machine": machine.export(),
        "per_core_second": reached,
        "rounds": [asdict(each) for each in rounds],
    }
    (results / "grpc.json").write_text(json.dumps(data, indent=1) + "\n")
    return 0 if is_good or not options.check else 1


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benches/grpc/run.py", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help=f"of {ROUND_S:.0f} s")
    parser.add_argument("--check", action="store_true", help="fail when a requirement is not met")
    return parser.parse_args(arguments)


def _measure(folder: Path, rounds: int) -> list[Round]:
    """Start a worker on a core of its own, and load it from the other."""
    cores, engine_port, grpc_port = choose_cores(), find_free_port(), find_free_port()
    with pinned(cores.gateway):
        context = running_worker(
            folder,
            [],
            snapshot=_snapshot(engine_port),
            grpc_port=grpc_port,
            journal_segment_bytes=16 * 1024 * 1024,
        )
        with context as worker, pinned(cores.load):
            return uvloop.run(_load(worker.pid, engine_port, grpc_port, rounds))


def _snapshot(engine_port: int) -> Snapshot:
    plain = make_snapshot([engine_port])  # upstreams have an endpoint of HTTP, which nobody asks
    upstream = msgspec.structs.replace(
        plain.upstreams[0],
        provider="triton",
        endpoints=(*plain.upstreams[0].endpoints, Endpoint("grpc", "127.0.0.1", engine_port)),
    )
    return msgspec.structs.replace(plain, upstreams=(upstream,))


async def _load(worker_pid: int, engine_port: int, grpc_port: int, rounds: int) -> list[Round]:
    async with engine(engine_port):
        source = Source(head(KEY), question("model-a"))
        await source.connect(grpc_port)
        source.begin()
        await asyncio.sleep(_WARMING_S)
        found = [await _round(source, worker_pid) for _ in range(rounds)]
        source.close()
        return found


async def _round(source: Source, worker_pid: int) -> Round:
    meter, began_s, began_cpu_s = Meter(), time.monotonic(), cpu_s(worker_pid)
    ended, good = source.ended_count, source.good_count
    await asyncio.sleep(ROUND_S)
    seconds, used_s = time.monotonic() - began_s, cpu_s(worker_pid) - began_cpu_s
    calls = source.ended_count - ended
    failed = calls - (source.good_count - good)
    return Round(calls, failed, seconds, used_s, meter.others_percent())


def _render(machine: list[str], rounds: list[Round], reached: float) -> str:
    rows = [
        f"| {number} | {each.per_second:,.0f} | {each.cpu_us:.0f} | {each.core_percent:.0f} % "
        f"| {each.others_percent:.0f} % | {each.failed} |"
        for number, each in enumerate(rounds, 1)
    ]
    verdict = "met" if reached >= WANTED_PER_SECOND else "**missed**"
    lines = [
        "# Bench of gRPC",
        "",
        *machine,
        "",
        f"{reached:,.0f} calls a second on a core, in the median of the rounds; wanted are",
        f"{WANTED_PER_SECOND:,}: {verdict}. Of a round in which the worker used less than",
        f"{LEAST_CORE_PERCENT} % of its core, it is what the processor time a call comes to.",
        "",
        "| round | calls/s | µs CPU of the worker a call | core used | others took | failed |",
        "|--:|--:|--:|--:|--:|--:|",
        *rows,
        "",
        f"`ModelInfer` with a text of {TEXT_BYTES} bytes, an answer of one text, and no deadline;",
        f"{CONNECTIONS * CALLS_EACH} calls in flight on {CONNECTIONS} connections. One worker on",
        "a core of its own does its whole work: key, facts of the message, journal, usage.",
        f"Callers and engine share the other core; rounds of {ROUND_S:.0f} s.",
        "",
    ]
    return "\n".join(lines)
