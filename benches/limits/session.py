"""The limits bench: what limits cost, how much of a limit is used, and that none is exceeded."""

import argparse
import json
import shutil
import statistics
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from benches.limits.simulation import SATURATED, Simulated, saturate, simulate
from benches.limits.throughput import Throughput, compare
from benches.limits.turns import TURN_S, Side
from benches.load.machine import REPOSITORY, describe_machine
from benches.load.processes import choose_cores
from benches.micro.session import chat_body, limits_case, measure_us
from rich.console import Console
from tests.fakes.limits_memory import weigh_rules
from tests.fakes.limits_world import NODES, WORKERS

RULES = 100_000


@dataclass(frozen=True, slots=True)
class Figures:
    """All that was measured."""

    throughput: Throughput
    admission_us: float
    utilisation: float
    simulated: list[Simulated]
    memory_mb: float

    def rows(self) -> list[tuple[str, str, str, bool]]:
        """Return what, how much, what is wanted, and whether that is so."""
        reached = self.throughput.ratio()
        excess = sum(one.excess for one in self.simulated)
        return [
            ("throughput with limits / without", f"{reached:.3f}", ">= 0.85", reached >= 0.85),
            (
                "admission, µs CPU a request",
                f"{self.admission_us:.2f}",
                "<= 12",
                self.admission_us <= 12,
            ),
            ("over-admission, all seeds", str(excess), "0", excess == 0),
            (
                f"utilisation of a saturated {SATURATED:,} requests a minute",
                f"{self.utilisation:.2%}",
                ">= 97 %",
                self.utilisation >= 0.97,
            ),
            (f"{RULES:,} live rules, MB", f"{self.memory_mb:.0f}", "<= 200", self.memory_mb <= 200),
        ]


def main(arguments: list[str]) -> int:
    """Run the bench and write `results/limits.md` and `limits.json`."""
    options = _parse(arguments)
    console = Console()
    if shutil.which("wrk") is None:
        console.print("The client is missing: apt-get install wrk")
        return 2
    machine = describe_machine(Path(tempfile.gettempdir()))
    cores = choose_cores()
    with tempfile.TemporaryDirectory(prefix="penstock-limits-") as name:
        folder = Path(name)
        console.print("throughput with limits and without")
        throughput = compare(folder, cores, blocks=options.blocks)
        if options.only_throughput:
            console.print(
                "\n".join(_render_throughput(throughput)), highlight=False, soft_wrap=True
            )
            return 0
        console.print("admission")
        admission_us = measure_us(limits_case(chat_body(200)))
        console.print("a saturated limit")
        utilisation = saturate(_subfolder(folder, "saturated"))
        simulated = []
        for seed in range(options.seeds):
            console.print(f"crashes, seed {seed + 1} of {options.seeds}")
            simulated.append(simulate(_subfolder(folder, f"seed-{seed}"), seed))
        console.print("memory")
        memory_mb = weigh_rules(RULES) / 1e6
    figures = Figures(throughput, admission_us, utilisation, simulated, memory_mb)
    text = _render(machine.lines(), figures)
    console.print(text, highlight=False, soft_wrap=True)
    results = REPOSITORY / "benches" / "results"
    (results / "limits.md").write_text(text)
    data = {"machine": machine.export(), "ratio": throughput.ratio(), **asdict(figures)}
    (results / "limits.json").write_text(json.dumps(data, indent=1) + "\n")
    is_good = all(good for *_, good in figures.rows())
    return 0 if is_good or not options.check else 1


def _subfolder(folder: Path, name: str) -> Path:
    path = folder / name
    path.mkdir()
    return path


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benches/limits/run.py", description=__doc__)
    parser.add_argument("--blocks", type=int, default=60, help="of throughput, four turns each")
    parser.add_argument("--only-throughput", action="store_true", help="and write no results")
    parser.add_argument("--seeds", type=int, default=12, help="of the simulation with crashes")
    parser.add_argument("--check", action="store_true", help="fail when a requirement is not met")
    return parser.parse_args(arguments)


def _render(machine: list[str], figures: Figures) -> str:
    simulated = figures.simulated
    rows = [
        f"| {what} | {value} | {wanted} | {'yes' if is_good else '**no**'} |"
        for what, value, wanted, is_good in figures.rows()
    ]
    lines = [
        "# Limits bench",
        "",
        *machine,
        "",
        "| | measured | wanted | |",
        "|---|--:|--:|---|",
        *rows,
        "",
        *_render_throughput(figures.throughput),
        f"Simulated: {NODES} nodes of {WORKERS} workers, the product's limiters and brokers in",
        f"virtual time, clocks apart, {len(simulated)} seeds of a minute with",
        f"{sum(one.crashes for one in simulated)} crashes of workers, agents and machines;",
        f"{sum(one.admitted for one in simulated):,} let in,",
        f"{sum(one.refused for one in simulated):,} refused; the fullest window or moment held",
        f"{max(one.fullest for one in simulated):.1%} of its limit.",
        "",
    ]
    return "\n".join(lines)


def _render_throughput(found: Throughput) -> list[str]:
    blocks, ratios = found.blocks, found.ratios()
    low, _, high = statistics.quantiles(ratios, n=4)
    free, limited = _total(each.first for each in blocks), _total(each.other for each in blocks)
    rates = limited.per_second / free.per_second
    return [
        "An ordinary plan: requests, input tokens, output tokens and concurrency of the key and",
        "of the project, a budget of the organization. One worker on a core of its own,",
        "64 connections, chats of 200 bytes. The ratio is the median of",
        f"{len(blocks)} blocks of four turns of {TURN_S} s, {found.ratio():.3f}; half of them are",
        f"from {low:.3f} to {high:.3f}. Others took {found.others_percent:.0f} % of a core",
        f"meanwhile; {found.failed} requests failed.",
        "",
        "| all blocks | requests/s | µs CPU of the worker a request | core used |",
        "|---|--:|--:|--:|",
        _row("without", free),
        _row("with all rules of an ordinary plan", limited),
        f"| with / without | {rates:.3f} | {limited.cpu_us / free.cpu_us:.3f} | |",
        "",
    ]


def _row(name: str, side: Side) -> str:
    used = side.cpu_s / side.seconds
    return f"| {name} | {side.per_second:,.0f} | {side.cpu_us:.1f} | {used:.0%} |"


def _total(sides: Iterable[Side]) -> Side:
    """Return what was measured of a key in all blocks."""
    found = list(sides)
    return Side(
        sum(each.requests for each in found),
        sum(each.seconds for each in found),
        sum(each.cpu_s for each in found),
    )
