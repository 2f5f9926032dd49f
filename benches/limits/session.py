"""The limits bench: what limits cost, how much of a limit is used, and that none is exceeded."""

import argparse
import json
import shutil
import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from benches.limits.simulation import SATURATED, Simulated, saturate, simulate
from benches.limits.throughput import Round, ratio, run_rounds
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

    rounds: list[Round]
    admission_us: float
    utilisation: float
    simulated: list[Simulated]
    memory_mb: float

    def rows(self) -> list[tuple[str, str, str, bool]]:
        """Return what, how much, what is wanted, and whether that is so."""
        reached = ratio(self.rounds)
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
        rounds = run_rounds(folder, cores, rounds=options.rounds, seconds=options.seconds)
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
    figures = Figures(rounds, admission_us, utilisation, simulated, memory_mb)
    text = _render(machine.lines(), figures)
    console.print(text, highlight=False)
    results = REPOSITORY / "benches" / "results"
    (results / "limits.md").write_text(text)
    data = {"machine": machine.export(), "ratio": ratio(rounds), **asdict(figures)}
    (results / "limits.json").write_text(json.dumps(data, indent=1) + "\n")
    is_good = all(good for *_, good in figures.rows())
    return 0 if is_good or not options.check else 1


def _subfolder(folder: Path, name: str) -> Path:
    path = folder / name
    path.mkdir()
    return path


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benches/limits/run.py", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="of throughput")
    parser.add_argument("--seconds", type=float, default=3, help="of each measure in a round")
    parser.add_argument("--seeds", type=int, default=12, help="of the simulation with crashes")
    parser.add_argument("--check", action="store_true", help="fail when a requirement is not met")
    return parser.parse_args(arguments)


def _render(machine: list[str], figures: Figures) -> str:
    rounds, simulated = figures.rounds, figures.simulated
    rows = [
        f"| {what} | {value} | {wanted} | {'yes' if is_good else '**no**'} |"
        for what, value, wanted, is_good in figures.rows()
    ]
    sides = {
        "without": [one.free for one in rounds],
        "with all rules of an ordinary plan": [one.limited for one in rounds],
    }
    speeds = [
        f"| {name} | {statistics.median(one.per_second for one in side):,.0f} "
        f"| {statistics.median(one.cpu_us for one in side):.1f} "
        f"| {sum(one.failed for one in side)} |"
        for name, side in sides.items()
    ]
    others = statistics.median(one.others_percent for one in rounds)
    lines = [
        "# Limits bench",
        "",
        *machine,
        "",
        "| | measured | wanted | |",
        "|---|--:|--:|---|",
        *rows,
        "",
        "An ordinary plan: requests, input tokens, output tokens and concurrency of the key and",
        "of the project, a budget of the organization. One worker on a core of its own,",
        f"64 connections, chats of 200 bytes; medians of {len(rounds)} rounds by turns. Others",
        f"took {others:.0f} % of a core meanwhile.",
        "",
        "| limits | requests/s | µs CPU of the worker a request | failed |",
        "|---|--:|--:|--:|",
        *speeds,
        "",
        f"Simulated: {NODES} nodes of {WORKERS} workers, the product's limiters and brokers in",
        f"virtual time, clocks apart, {len(simulated)} seeds of a minute with",
        f"{sum(one.crashes for one in simulated)} crashes of workers, agents and machines;",
        f"{sum(one.admitted for one in simulated):,} let in,",
        f"{sum(one.refused for one in simulated):,} refused; the fullest window or moment held",
        f"{max(one.fullest for one in simulated):.1%} of its limit.",
        "",
    ]
    return "\n".join(lines)
