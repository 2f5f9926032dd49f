"""The telemetry bench: what it costs to be seen, and that nobody who looks is felt."""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from benches.control.weighing import Meter
from benches.load.machine import REPOSITORY, describe_machine
from benches.load.measures import BUSY_CONNECTIONS
from benches.load.processes import choose_cores, find_free_port, pinned
from benches.load.servers import Bench, launch_emulator
from benches.load.wrk import is_installed
from benches.telemetry.collectors import collector, silent_collector
from benches.telemetry.nodes import MODELS, ORGANIZATIONS, Node, launch
from benches.telemetry.rendered import render
from benches.telemetry.turns import Compared, Turn, compare
from rich.console import Console

CALM_CONNECTIONS = 8
SCRAPES = 10
TURN_S = 2.0
CALM_TURN_S = 4.0
DROPPED = (
    "penstock_finished_requests_dropped_total",
    "penstock_access_log_dropped_total",
    "penstock_otlp_lost_total",
)
_NOISE = 1.15
"""How much a p99 may differ and be the same: two turns without any scrape do as well."""


@dataclass(slots=True)
class Figures:
    """All that was measured."""

    starts: int
    """How often all nodes were started."""
    cost: Compared = field(default_factory=Compared)
    """All off, then all on."""
    hung: Compared = field(default_factory=Compared)
    """All off, then traces on and a collector that answers nothing."""
    scraped: Compared = field(default_factory=Compared)
    """Not scraped, then scraped each second."""
    scrapes_ms: list[float] = field(default_factory=list)
    series: int = 0
    requests: float = 0.0
    """At full load, with all on."""
    dropped: float = 0.0
    """Those of them of which traces or the access log lack something, at most."""
    hung_bytes: int = 0
    """Memory of the agent whose collector answers nothing, at the end."""
    others_percent: float = 0.0

    def rows(self) -> list[tuple[str, str, str, bool]]:
        """Return what, how much, what is wanted, and whether that is so."""
        rate = self.cost.ratio(lambda turn: turn.per_second)
        dropped = 100 * self.dropped / self.requests
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
        figures = _measure(Path(name), options, console)
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
    parser.add_argument("--starts", type=int, default=5, help="how often all nodes start anew")
    parser.add_argument(
        "--blocks", type=int, default=1, help="of four turns each, of most measures a start"
    )
    parser.add_argument(
        "--rendered",
        type=float,
        metavar="MINUTES",
        help="ask a real Prometheus what graphs show, and measure nothing",
    )
    parser.add_argument("--check", action="store_true", help="fail when a requirement is not met")
    return parser.parse_args(arguments)


def _measure(folder: Path, options: argparse.Namespace, console: Console) -> Figures:
    cores, figures, meter = choose_cores(), Figures(options.starts), Meter()
    emulator = launch_emulator(Bench(cores, folder, find_free_port(), ""))
    with ExitStack() as ends:
        # Client, collectors and whoever scrapes leave the worker's core alone, too.
        ends.enter_context(pinned(cores.load))
        ends.callback(emulator.stop)
        for number in range(options.starts):
            console.print(f"start {number + 1} of {options.starts}")
            start = partial(launch, engine_port=emulator.port, cores=cores, seed=number)
            with _started(folder / str(number), start) as nodes:
                _add_to(figures, nodes, folder, options.blocks, console)
    figures.others_percent = meter.others_percent()
    return figures


@dataclass(frozen=True, slots=True)
class _Nodes:
    """Nodes that were started together."""

    off: Node
    hung: Node
    on: Node


@contextmanager
def _started(folder: Path, start: Callable[..., Node]) -> Iterator[_Nodes]:
    """Run nodes, and the collectors of what they send.

    Args:
        folder: For their data; it is not there yet.
        start: Starts one.
    """
    folder.mkdir()
    with ExitStack() as ends:

        def run(name: str, settings: dict[str, Any], **many: int) -> Node:
            node = start(name, folder / name, settings=settings, **many)
            ends.callback(node.running.stop)
            return node

        taken, silent = ends.enter_context(collector()), ends.enter_context(silent_collector())
        log = {"access_log": "all", "access_log_path": str(folder / "access.log")}
        many = {"models": MODELS, "organizations": ORGANIZATIONS}
        yield _Nodes(
            off=run("off", {"access_log": "off"}),
            hung=run("hung", {"access_log": "off", "otlp": {"endpoint": silent}}),
            on=run("on", {**log, "otlp": {"endpoint": taken}}, **many),
        )


def _add_to(figures: Figures, nodes: _Nodes, folder: Path, blocks: int, console: Console) -> None:
    """Measure nodes, and add it to what was measured of others."""
    on = nodes.on
    on.fill()
    time.sleep(2.0)  # until the agent was told
    for _ in range(SCRAPES):
        on.scrape()
    figures.scrapes_ms += [each * 1000 for each in on.scrapes_s]
    busy = partial(compare, folder, seconds=TURN_S, connections=BUSY_CONNECTIONS)
    console.print("  throughput, telemetry off and on")
    figures.cost.add(busy(nodes.off, on, blocks=2 * blocks))
    time.sleep(2.0)  # until the rest was told and sent
    on.scrape()
    figures.series = on.series
    figures.dropped += on.total(*DROPPED)
    figures.requests += on.total("penstock_requests_total")
    console.print("  throughput, telemetry off and with a collector that hangs")
    figures.hung.add(busy(nodes.off, nodes.hung, blocks=blocks))
    memory_bytes = psutil.Process(nodes.hung.running.pid).memory_info().rss
    figures.hung_bytes = max(figures.hung_bytes, memory_bytes)
    console.print("  latency, scraped and not")
    calm = partial(compare, folder, seconds=CALM_TURN_S, connections=CALM_CONNECTIONS)
    figures.scraped.add(calm(on, on, blocks=blocks))


def _render(machine: list[str], figures: Figures) -> str:
    rows = [
        f"| {what} | {value} | {wanted} | {'yes' if is_good else '**no**'} |"
        for what, value, wanted, is_good in figures.rows()
    ]
    middle = statistics.median(figures.scrapes_ms)
    cost, scraped, scrapes = figures.cost, figures.scraped, len(figures.scrapes_ms)
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
        f"{figures.starts} starts of all nodes, both of a pair with the same seed of hashes: with",
        "random ones two nodes of the same kind differ by up to 5 %.",
        f"{len(cost.first)} pairs of turns of {TURN_S:g} s, {BUSY_CONNECTIONS}",
        f"connections; then {len(scraped.first)} pairs of {CALM_TURN_S:g} s with",
        f"{CALM_CONNECTIONS} connections on the first node, scraped and not. Ratios are medians.",
        f"Half of {scrapes} scrapes took less than {middle:.1f} ms, the client's share included.",
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
