"""The telemetry bench: what it costs to be seen, and that nobody who looks is felt."""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from benches.control.weighing import Meter, cpu_s
from benches.load.machine import REPOSITORY, describe_machine
from benches.load.measures import BUSY_CONNECTIONS
from benches.load.processes import choose_cores, find_free_port, pinned
from benches.load.servers import Bench, launch_emulator
from benches.load.wrk import is_installed, run_wrk
from benches.telemetry.collectors import collector, silent_collector
from benches.telemetry.nodes import MODELS, ORGANIZATIONS, Node, launch
from benches.telemetry.rendered import render
from rich.console import Console

CALM_CONNECTIONS = 8
SCRAPES = 30
TURN_S = 2.0
CALM_TURN_S = 4.0
DROPPED = (
    "penstock_finished_requests_dropped_total",
    "penstock_access_log_dropped_total",
    "penstock_otlp_lost_total",
)
_NOISE = 1.15
"""How much a p99 may differ and be the same: two turns without any scrape do as well."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What was measured in one go."""

    per_second: float
    worker_us: float
    """Processor time of the worker a request."""
    agent_us: float
    """The same of the agent."""
    p99_us: int
    failed: int


@dataclass(frozen=True, slots=True)
class Compared:
    """Turns of one side and of the other."""

    first: list[Turn]
    other: list[Turn]

    def ratio(self, of: Callable[[Turn], float]) -> float:
        """Return the median, over pairs of turns, of the other's figure by the first's."""
        return statistics.median(of(b) / of(a) for a, b in zip(self.first, self.other, strict=True))


@dataclass(frozen=True, slots=True)
class Figures:
    """All that was measured."""

    cost: Compared
    """All off, then all on."""
    hung: Compared
    """All off, then traces on and a collector that answers nothing."""
    scraped: Compared
    """Not scraped, then scraped each second."""
    scrapes_ms: list[float]
    series: int
    dropped_percent: float
    """Requests at full load of which traces or the access log lack something, at most."""
    hung_bytes: int
    """Memory of the agent whose collector answers nothing, at the end."""
    others_percent: float

    def rows(self) -> list[tuple[str, str, str, bool]]:
        """Return what, how much, what is wanted, and whether that is so."""
        rate = self.cost.ratio(lambda turn: turn.per_second)
        dropped = self.dropped_percent
        hung = self.hung.ratio(lambda turn: turn.per_second)
        worker = self.cost.ratio(lambda turn: turn.worker_us)
        p99 = self.scraped.ratio(lambda turn: turn.p99_us)
        worst, memory_mb = max(self.scrapes_ms), self.hung_bytes / 1e6
        all_turns = (self.cost, self.hung, self.scraped)
        failed = sum(turn.failed for each in all_turns for turn in (*each.first, *each.other))
        series = self.series
        return [
            ("throughput, all telemetry on / off", f"{rate:.3f}", ">= 0.9", rate >= 0.9),
            ("the worker's time a request, on / off", f"{worker:.3f}", "<= 1.1", worker <= 1.1),
            ("requests left out by then, %", f"{dropped:.2f}", "<= 0.1", dropped <= 0.1),
            ("throughput, collector hangs / off", f"{hung:.3f}", ">= 0.9", hung >= 0.9),
            ("memory of its agent, MB", f"{memory_mb:.0f}", "<= 250", memory_mb <= 250),
            ("series of a scrape", f"{series:,}", ">= 10,000", series >= 10_000),
            ("slowest scrape, ms", f"{worst:.1f}", "<= 100", worst <= 100),
            ("p99, scraped each second / not", f"{p99:.3f}", f"<= {_NOISE}", p99 <= _NOISE),
            ("requests that failed", str(failed), "0", failed == 0),
        ]


def main(arguments: list[str]) -> int:
    """Run the bench and write `results/telemetry.md` and `telemetry.json`."""
    options = _parse(arguments)
    console = Console()
    if not is_installed():
        console.print("The client is missing: apt-get install wrk")
        return 2
    if options.rendered:
        return 0 if render(options.rendered) else 1
    machine = describe_machine(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix="penstock-telemetry-") as name:
        figures = _measure(Path(name), options.blocks, console)
    rows = figures.rows()
    text = _render(machine.lines(), figures)
    console.print(text, highlight=False, soft_wrap=True)
    results = REPOSITORY / "benches" / "results"
    (results / "telemetry.md").write_text(text)
    data = {"machine": machine.export(), **asdict(figures)}
    (results / "telemetry.json").write_text(json.dumps(data, indent=1) + "\n")
    return 0 if all(good for *_, good in rows) or not options.check else 1


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benches/telemetry/run.py", description=__doc__)
    parser.add_argument("--blocks", type=int, default=15, help="of four turns each")
    parser.add_argument(
        "--rendered",
        type=float,
        metavar="MINUTES",
        help="ask a real Prometheus what graphs show, and measure nothing",
    )
    parser.add_argument("--check", action="store_true", help="fail when a requirement is not met")
    return parser.parse_args(arguments)


def _measure(folder: Path, blocks: int, console: Console) -> Figures:
    cores = choose_cores()
    emulator = launch_emulator(Bench(cores, folder, find_free_port(), ""))
    meter = Meter()
    with ExitStack() as ends:
        # Client, collectors and whoever scrapes leave the worker's core alone, too.
        ends.enter_context(pinned(cores.load))
        ends.callback(emulator.stop)

        def run(name: str, settings: dict[str, Any], *, models: int = 1, many: int = 1) -> Node:
            node = launch(
                name,
                folder / name,
                emulator.port,
                cores=cores,
                models=models,
                organizations=many,
                settings=settings,
            )
            ends.callback(node.running.stop)
            return node

        taken, silent = ends.enter_context(collector()), ends.enter_context(silent_collector())
        log = {"access_log": "all", "access_log_path": str(folder / "access.log")}
        off = run("off", {"access_log": "off"})
        hung = run("hung", {"access_log": "off", "otlp": {"endpoint": silent}})
        on = run("on", {**log, "otlp": {"endpoint": taken}}, models=MODELS, many=ORGANIZATIONS)
        console.print(f"{ORGANIZATIONS * MODELS} requests that make series")
        on.fill()
        time.sleep(2.0)  # until the agent was told
        console.print("scrapes")
        for _ in range(SCRAPES):
            on.scrape()
        scrapes_ms = [each * 1000 for each in on.scrapes_s]
        busy = partial(_compare, folder, seconds=TURN_S, connections=BUSY_CONNECTIONS)
        console.print("throughput, telemetry off and on")
        cost = busy(off, on, blocks=blocks)
        time.sleep(2.0)  # until the rest was told and sent
        on.scrape()
        dropped_percent = 100 * on.total(*DROPPED) / on.total("penstock_requests_total")
        console.print("throughput, telemetry off and with a collector that hangs")
        without = busy(off, hung, blocks=blocks // 2)
        hung_bytes = psutil.Process(hung.running.pid).memory_info().rss
        console.print("latency, scraped and not")
        scraped = _compare(
            folder, on, on, blocks=blocks // 2, seconds=CALM_TURN_S, connections=CALM_CONNECTIONS
        )
    others = meter.others_percent()
    return Figures(
        cost, without, scraped, scrapes_ms, on.series, dropped_percent, hung_bytes, others
    )


def _compare(
    folder: Path, first: Node, other: Node, *, blocks: int, seconds: float, connections: int
) -> Compared:
    """Measure one and the other, which is scraped meanwhile, by turns."""
    found = Compared([], [])

    def turn(node: Node, *, is_scraped: bool) -> Turn:
        context: AbstractContextManager[None] = node.scraped() if is_scraped else nullcontext()
        with context:
            before_s = cpu_s(node.worker_pid), cpu_s(node.running.pid)
            load = run_wrk(
                node.running.port,
                node.request(),
                connections=connections,
                seconds=seconds,
                folder=folder,
            )
            after_s = cpu_s(node.worker_pid), cpu_s(node.running.pid)
        if not load.requests:
            node.running.fail("answered nothing")
        worker_us, agent_us = (
            (after - before) * 1e6 / load.requests
            for before, after in zip(before_s, after_s, strict=True)
        )
        failed = load.bad_status + load.broken
        return Turn(load.per_second, worker_us, agent_us, load.p99_us, failed)

    for number in range(blocks + 1):
        one, others = turn(first, is_scraped=False), [turn(other, is_scraped=True) for _ in "ab"]
        last = turn(first, is_scraped=False)
        if number:  # the first block warms up
            found.first.extend([one, last])
            found.other.extend(others)
    return found


def _render(machine: list[str], figures: Figures) -> str:
    rows = [
        f"| {what} | {value} | {wanted} | {'yes' if is_good else '**no**'} |"
        for what, value, wanted, is_good in figures.rows()
    ]
    middle = statistics.median(figures.scrapes_ms)
    cost, scraped = figures.cost, figures.scraped
    lines = [
        "# Telemetry bench",
        "",
        *machine,
        "",
        "| | measured | wanted | |",
        "|---|--:|--:|---|",
        *rows,
        "",
        "A node that writes a line of access log for each request, sends the trace of each, is",
        "scraped each second and has",
        f"the series of {ORGANIZATIONS} organizations and {MODELS} models, beside a node that has",
        "one of each and does neither. Workers have a core to themselves; agents share the other",
        "with engine, client and collector.",
        f"{len(cost.first)} pairs of turns of {TURN_S:g} s, {BUSY_CONNECTIONS}",
        f"connections; then {len(scraped.first)} pairs of {CALM_TURN_S:g} s with",
        f"{CALM_CONNECTIONS} connections on the first node, scraped and not. Ratios are medians.",
        f"Half of {SCRAPES} scrapes took less than {middle:.1f} ms, the client's share included.",
        f"Others took {figures.others_percent:.0f} % of a core meanwhile.",
        "",
        "| | requests/s | µs of the worker a request | µs of the agent | p99, µs |",
        "|---|--:|--:|--:|--:|",
        _row("off", cost.first),
        _row("on", cost.other),
        _row("off, in the turns of the next", figures.hung.first),
        _row("collector hangs", figures.hung.other),
        _row(f"{CALM_CONNECTIONS} connections, not scraped", scraped.first),
        _row(f"{CALM_CONNECTIONS} connections, scraped", scraped.other),
        "",
    ]
    return "\n".join(lines)


def _row(name: str, turns: list[Turn]) -> str:
    rate = statistics.median(turn.per_second for turn in turns)
    worker_us = statistics.median(turn.worker_us for turn in turns)
    agent_us = statistics.median(turn.agent_us for turn in turns)
    p99 = statistics.median(turn.p99_us for turn in turns)
    return f"| {name} | {rate:,.0f} | {worker_us:.1f} | {agent_us:.1f} | {p99:,.0f} |"
