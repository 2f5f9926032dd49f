"""The soak bench: a node under many streams for hours, of whose callers some leave at any moment.

What must be left when the last stream has ended: no request in flight, no money held, a usage event
for each request that the engine got, and as much memory as in the beginning.

With `--clocks 4` the clocks of all processes run four times as fast, by `faketime`: four hours of
leases, timers and rollovers pass in one, and time-outs are a quarter as long.
"""

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from benches.load.machine import REPOSITORY, describe_machine
from benches.load.processes import raise_open_files
from rich.console import Console
from tests.fakes.limited_site import running_site
from tests.fakes.soak import Plan, Soaked, soak

HOURS = 4.0
SLOPE_MB = 1.0
"""An hour: what caches of the first hours may still grow by."""
_TELLING_S = 900.0
"""In shorter runs memory still grows with the streams that come, and its slope tells nothing."""
_TELL_S = 60.0
_SAMPLES_KEPT = 500


def main(arguments: list[str]) -> int:
    """Run the bench and write `results/<name>.md` and `.json`."""
    options = _parse(arguments)
    console = Console()
    _have_clocks_run(options.clocks, arguments)
    machine = describe_machine(Path(tempfile.gettempdir()))
    raise_open_files()
    told_s = 0.0

    def tell(elapsed_s: float) -> None:
        nonlocal told_s
        if elapsed_s >= told_s:
            told_s = elapsed_s + _TELL_S
            console.print(f"{elapsed_s:7.0f} s", style="dim")

    plan = Plan(
        options.streams,
        options.hours * 3_600,
        options.leaving,
        gap_ms=options.gap_ms,
        tell=tell,
    )
    with (
        tempfile.TemporaryDirectory(prefix="penstock-soak-") as folder,
        running_site(Path(folder), nodes=1) as site,
    ):
        seen = asyncio.run(soak(site, plan))
    text = _render(machine.lines(), plan, seen, options.clocks)
    console.print(text, highlight=False, soft_wrap=True)
    results = REPOSITORY / "benches" / "results"
    (results / f"{options.name}.md").write_text(text)
    data = {
        "machine": machine.export(),
        "hours": seen.seconds / 3_600,
        "clocks": options.clocks,
        "complete": seen.complete,
        "left": seen.left,
        "postponed": seen.postponed,
        "faults": seen.faults(),
        "slope_mb_per_hour": _slope(seen),
        "samples": seen.samples[:: len(seen.samples) // _SAMPLES_KEPT + 1],
    }
    (results / f"{options.name}.json").write_text(json.dumps(data, indent=1) + "\n")
    is_good = not seen.faults() and (_slope(seen) or 0) <= SLOPE_MB
    return 0 if is_good or not options.check else 1


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benches/soak/run.py", description=__doc__)
    so_long = "new streams begin for so long, or until SIGTERM"
    parser.add_argument("--hours", type=float, default=HOURS, help=so_long)
    parser.add_argument("--streams", type=int, default=1_000, help="open at a time")
    parser.add_argument("--gap-ms", type=int, default=250, help="between tokens of a stream")
    faster = "have all clocks run so many times as fast"
    parser.add_argument("--clocks", type=float, default=1, metavar="TIMES", help=faster)
    parser.add_argument("--leaving", type=float, default=0.2, help="which part of callers hang up")
    parser.add_argument("--name", default="soak", help="of the files that are written")
    parser.add_argument("--check", action="store_true", help="fail when a requirement is not met")
    return parser.parse_args(arguments)


def _have_clocks_run(times: float, arguments: list[str]) -> None:
    """See to it that clocks run as is asked for, and not as somebody set them."""
    wanted = "" if times == 1 else f"+0 x{times:g}"
    found = os.environ.get("FAKETIME", "")
    is_ours = found == wanted and "faketime" in os.environ.get("LD_PRELOAD", "")
    if found and not is_ours:
        sys.exit(f"FAKETIME is {found!r}: clocks may run otherwise than --clocks says. Unset it.")
    if wanted and not found:
        _run_faster(wanted, arguments)


def _run_faster(speed: str, arguments: list[str]) -> NoReturn:
    """Run the same below a program that makes clocks run faster, and says so in FAKETIME."""
    program = shutil.which("faketime")
    if program is None:
        sys.exit("Clocks cannot run faster here: apt-get install faketime")
    script = str(Path(__file__).with_name("run.py"))
    command = [program, "-f", speed, sys.executable, script, *arguments]
    os.execv(program, command)  # noqa: S606 - SIGTERM is for what it runs


def _slope(seen: Soaked) -> float | None:
    return seen.slope_mb_per_hour() if seen.seconds >= _TELLING_S else None


def _render(machine: list[str], plan: Plan, seen: Soaked, clocks: float) -> str:
    memory = [sum(mb) for _, mb in seen.samples]
    agent, *children = seen.samples[-1][1]
    slope = _slope(seen)
    cost = (max(memory) - memory[0]) * 1_000 / plan.streams
    rows = [
        ("streams that failed", str(sum(seen.failed.values())), "0"),
        ("requests in flight at the end", f"{seen.in_flight:.0f}", "0"),
        ("money held at the end, EUR", f"{seen.held}", "0"),
        ("usage events", f"{seen.events:,}", f"{seen.asked:,} or a few who left before"),
        ("settled, EUR", f"{seen.settled.normalize():f}", f"{seen.cost.normalize():f}"),
    ]
    faster = []
    if clocks != 1:
        took_h = seen.seconds / 3_600 / clocks
        faster = [f"Clocks of all processes ran {clocks:g} times as fast: it took {took_h:.2f} h."]
    how = ""
    if slope is not None:
        rows.append(("memory, MB an hour", f"{slope:+.2f}", f"<= {SLOPE_MB:g}"))
        how = "The slope is the median of those of all pairs of samples of the second half."
    lines = [
        "# Soak bench",
        "",
        *machine,
        "",
        f"{plan.streams:,} streams at a time for {seen.seconds / 3_600:.2f} h, each of",
        f"{plan.tokens} tokens {plan.gap_ms} ms apart: {seen.complete:,} came to their end,",
        f"{seen.left:,} callers hung up, at any moment; {seen.postponed:,} times 503 was answered",
        "and they came again. One agent and two workers; control plane on SQLite.",
        *faster,
        "",
        "| | measured | wanted |",
        "|---|--:|--:|",
        *(f"| {what} | {value} | {wanted} |" for what, value, wanted in rows),
        "",
        f"Memory of agent and workers: {memory[0]:.1f} MB at the first sample, {max(memory):.1f}",
        f"at most, {memory[-1]:.1f} at the last: at most {cost:.0f} KB more for each stream.",
        f"At the last {agent:.1f} of it are the agent's, and {sum(children):.1f} its workers'.",
        *([how] if how else []),
        "",
        *(f"- {count:,} streams failed: {how}" for how, count in seen.failed.most_common()),
    ]
    return "\n".join(lines)
