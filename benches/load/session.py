"""One run of the load bench, from the command line to the report."""

import argparse
import functools
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benches.load import wrk
from benches.load.disturbance import REPEATS, Disturbance
from benches.load.figures import DIRECT, OTHERS, Samples, Values
from benches.load.machine import REPOSITORY, describe_machine
from benches.load.measures import Measures
from benches.load.processes import (
    Running,
    StartError,
    choose_cores,
    find_free_port,
    raise_open_files,
)
from benches.load.report import Outcome, print_report, write_report
from benches.load.servers import GATEWAYS, Bench, Gateway, launch_emulator
from rich.console import Console

from penstock.access.rules import create_key

SPARE_FILES = 1_000
"""Open files that a gateway needs besides two a stream."""
SLACK_S = 0.5
"""What a measure takes besides its own seconds."""
PATIENCE = 0.5
"""Part of the time limit in which disturbed measures are taken again."""


class Session:
    """A run: the emulator is up, gateways come and go.

    Args:
        options: See `_parse`.
        bench: What the servers need to know.
        console: Takes the progress.
    """

    def __init__(self, options: argparse.Namespace, bench: Bench, console: Console) -> None:
        """See the class."""
        self._options = options
        self._bench = bench
        self._console = console
        self._began_at_s = time.monotonic()
        self.samples = Samples()
        self.remarks: list[str] = []
        self.versions: dict[str, str] = {}
        self._measures = Measures(bench, self.samples, options.seconds)
        self.rounds_done = 0

    def run(self, emulator: Running) -> None:
        """Measure everything that is installed."""
        direct = emulator.renamed(DIRECT)
        gateways = [gateway for gateway in GATEWAYS if self._is_wanted(gateway)]
        with ExitStack() as stack:
            targets = [direct]
            for gateway in gateways:
                running = self._launch(gateway, stack)
                if running is not None:
                    targets.append(running)
            self._run_rounds(targets)
        # Memory wants fresh programs: one that has served keeps what it freed.
        self._run_memory(direct)
        for gateway in gateways:
            if gateway.name in self.samples.names():
                with ExitStack() as stack:
                    running = self._launch(gateway, stack, is_warm=False)
                    if running is not None:
                        self._run_memory(running)

    def _is_wanted(self, gateway: Gateway) -> bool:
        if self._options.only and gateway.name not in self._options.only:
            return False
        program = gateway.find_program()
        if program is None:
            self.remarks.append(f"{gateway.name} is not installed: {gateway.install}")
            return False
        self.versions[gateway.name] = gateway.version(program)
        return True

    def _launch(
        self, gateway: Gateway, stack: ExitStack, *, is_warm: bool = True
    ) -> Running | None:
        try:
            running = gateway.launch(self._bench)
            stack.callback(running.stop)
            if is_warm:
                self._measures.warm_up(running)
        except StartError as error:
            self.remarks.append(str(error).splitlines()[0])
            self._console.print(f"[red]{gateway.name} is skipped:[/red] {error}")
            return None
        return running

    def _run_rounds(self, targets: list[Running]) -> None:
        steps: dict[str, Callable[[Running], Values]] = {
            "chat, 64 connections": self._measures.chat,
            "chat, 1 connection": self._measures.single,
            "chat of 64 KB": self._measures.large,
            "chat of 400 KB": self._measures.huge,
            "streams": self._measures.streaming,
        }
        disturbance = Disturbance(self._bench.cores, targets)
        round_s = len(steps) * len(targets) * (self._options.seconds + SLACK_S)
        memory_s = 10.0 * len(targets)
        for number in range(1, self._options.rounds + 1):
            if self._elapsed_s() + round_s + memory_s > self._options.limit:
                self.remarks.append(f"out of time after {number - 1} rounds")
                break
            for title, step in steps.items():
                for target in targets:
                    self._tell(f"round {number}: {title}", target)
                    self._take(target, functools.partial(step, target), disturbance)
            self.rounds_done = number

    def _take(
        self, target: Running, measure: Callable[[], Values], disturbance: Disturbance
    ) -> None:
        """Record a measure; take it again when it was disturbed, as long as time is no issue."""
        is_early = self._elapsed_s() < self._options.limit * PATIENCE
        reading = disturbance.least_disturbed(measure, repeats=REPEATS if is_early else 0)
        self.samples.record_all(target.name, reading.values)
        self.samples.record(target.name, OTHERS, reading.others_percent)

    def _run_memory(self, target: Running) -> None:
        self._tell("memory", target)
        values = self._measures.memory(target, self._options.streams)
        self.samples.record_all(target.name, values)

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._began_at_s

    def _tell(self, title: str, target: Running) -> None:
        self._console.print(f"{self._elapsed_s():4.0f} s  {title}: {target.name}", style="dim")


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benches/load/run.py", description=__doc__)
    names = [gateway.name for gateway in GATEWAYS]
    parser.add_argument("--only", action="append", choices=names, help="gateway; repeatable")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measure in a round")
    parser.add_argument("--streams", type=int, default=4_000, help="open for the memory figures")
    parser.add_argument("--limit", type=float, default=350.0, help="seconds for the whole run")
    parser.add_argument("--quick", action="store_true", help="one short round, 500 streams")
    parser.add_argument("--check", action="store_true", help="end with 1 if a requirement fails")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benches" / "results")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.seconds, options.streams = 1, 1.0, 500
    return options


def _stem(options: argparse.Namespace) -> str:
    """Return the results' file name: only a full run may replace the latest."""
    return "trial" if options.quick or options.only else "latest"


def main(arguments: list[str]) -> int:
    """Run the bench; return the exit status."""
    options = _parse(arguments)
    console = Console()
    if not wrk.is_installed():
        console.print(f"The client is missing: {wrk.INSTALL}")
        return 2
    try:
        cores = choose_cores()
        open_files = raise_open_files()
    except StartError as error:
        console.print(str(error))
        return 2
    folder = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    os.sched_setaffinity(0, {cores.load})
    # Ended from outside, the programs that were started are still ended first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    bench = Bench(cores, folder, find_free_port(), create_key())
    session = Session(options, bench, console)
    if 2 * options.streams + SPARE_FILES > open_files:
        options.streams = (open_files - SPARE_FILES) // 2
        session.remarks.append(f"open files are limited to {open_files}: fewer streams")
    machine = describe_machine(folder)
    try:
        with ExitStack() as stack:
            emulator = launch_emulator(bench)
            stack.callback(emulator.stop)
            session.run(emulator)
    except (StartError, wrk.ClientError) as error:
        console.print(f"[red]The run failed:[/red] {error}")
        return 2
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    outcome = Outcome(
        machine=machine,
        settings={
            "rounds": session.rounds_done,
            "seconds": options.seconds,
            "streams": options.streams,
        },
        versions=session.versions,
        notes={gateway.name: gateway.note for gateway in GATEWAYS},
        samples=session.samples,
        remarks=session.remarks,
    )
    print_report(outcome, console)
    for path in write_report(outcome, options.out, _stem(options)):
        console.print(f"written: {path}", highlight=False)
    failed = any(verdict.word == "FAIL" for verdict in outcome.verdicts())
    return 1 if options.check and failed else 0
