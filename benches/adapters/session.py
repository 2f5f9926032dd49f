"""The bench of adapters: what a request costs through each kind's, beside the plain one."""

import argparse
import json
import random
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop
from benches.adapters.worker import Line, make_worker
from benches.load.machine import REPOSITORY, describe_machine
from rich.console import Console

from penstock.engines.registry import ENGINES

PLAIN = "openai_compatible"
TWIN = "the same again"
"""Another upstream of the plain kind: what it differs by is noise."""
MOST_US = 1.0
REQUESTS = 4
"""Of a turn: many short ones tell more than few long ones."""
KINDS = tuple(name for name, kind in ENGINES.items() if kind.speaks_openai or kind.speaks_oip)
"""Those that take chats; the rest speak only Messages, which pass as they are."""
_TRANSLATED = tuple(name for name in KINDS if not ENGINES[name].speaks_openai)


@dataclass(frozen=True, slots=True)
class Figure:
    """What a request costs through one kind's adapter."""

    kind: str
    is_stream: bool
    cpu_us: float
    """Processor time of the worker's thread, in the median of the rounds."""
    more_us: float
    """Than through the plain one in the same round, in the median."""
    sent_bytes: int
    """What the engine is sent of a request."""

    @property
    def is_good(self) -> bool:
        """Whether it costs no more than it may; what is translated has its own price."""
        return self.more_us <= MOST_US or self.kind in _TRANSLATED


async def compare(folder: Path, rounds: int, *, is_stream: bool) -> list[Figure]:
    """Ask through all adapters by turns, in another order each round.

    Args:
        folder: Empty; for the worker's files.
        rounds: How often each has its turn.
        is_stream: Whether streams are asked for.
    """
    kinds = {TWIN: PLAIN} | {
        kind: kind for kind in KINDS if not is_stream or kind not in _TRANSLATED
    }
    worker = make_worker(folder, [*kinds.items()])
    lines = {name: Line(worker, name, kind, is_stream=is_stream) for name, kind in kinds.items()}
    sent = {name: len(await line.ask()) for name, line in lines.items()}
    taken: dict[str, list[float]] = {name: [] for name in lines}
    order = list(lines)
    for _ in range(rounds):
        random.shuffle(order)
        for name in order:
            taken[name].append(await _turn_us(lines[name]))
    plain = taken[PLAIN]
    return [
        Figure(
            name,
            is_stream,
            statistics.median(all_us),
            statistics.median(one - other for one, other in zip(all_us, plain, strict=True)),
            sent[name],
        )
        for name, all_us in taken.items()
    ]


async def _turn_us(line: Line) -> float:
    began_ns = time.thread_time_ns()
    for _ in range(REQUESTS):
        await line.ask()
    return (time.thread_time_ns() - began_ns) / REQUESTS / 1_000


def main(arguments: list[str]) -> int:
    """Run the bench and write `results/adapters.md` and `adapters.json`."""
    options = _parse(arguments)
    machine = describe_machine(Path(tempfile.gettempdir()))
    figures: list[Figure] = []
    for is_stream in (False, True):
        with tempfile.TemporaryDirectory(prefix="penstock-adapters-") as name:
            figures += uvloop.run(compare(Path(name), options.rounds, is_stream=is_stream))
    text = _render(machine.lines(), figures, options.rounds)
    Console().print(text, highlight=False, soft_wrap=True)
    results = REPOSITORY / "benches" / "results"
    (results / "adapters.md").write_text(text)
    data = {"machine": machine.export(), "figures": [asdict(each) for each in figures]}
    (results / "adapters.json").write_text(json.dumps(data, indent=1) + "\n")
    return 0 if all(each.is_good for each in figures) or not options.check else 1


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benches/adapters/run.py", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3_000, help="each kind has a turn in each")
    parser.add_argument("--check", action="store_true", help="fail when an adapter is dearer")
    return parser.parse_args(arguments)


def _render(machine: list[str], figures: list[Figure], rounds: int) -> str:
    noise_us = max(abs(each.more_us) for each in figures if each.kind == TWIN)
    head = f"""\
What a chat of 200 bytes costs a worker through the adapter of each kind of engine, beside the plain
one (`{PLAIN}`), with nothing configured that a kind could do. Wanted are {MOST_US:g} µs
more at most.
"""
    foot = f"""\
Processor time of the worker's thread, system calls for the journal included; {rounds:,} turns of
{REQUESTS} requests each, in another order each round, and medians of the differences within one.
Callers and engines are in the same process, without sockets. *{TWIN}* is the plain kind,
too: what it differs by, {noise_us:.2f} µs here, is noise. There is no way past adapters to compare
with: the plain one is what is left when nothing is known of an engine.

What speaks no OpenAI ({", ".join(_TRANSLATED)}) has its chats translated into the words of its
`generate`, and its answers back: that is work, and not judged.
"""
    plain = [each for each in figures if not each.is_stream]
    streams = [each for each in figures if each.is_stream]
    lines = ["# Bench of adapters", "", *machine, "", head, *_table("Plain answers", plain)]
    return "\n".join([*lines, *_table("Streams of four chunks", streams), foot])


def _table(title: str, figures: list[Figure]) -> list[str]:
    return [
        f"## {title}",
        "",
        "| kind | µs CPU a request | more | bytes sent | |",
        "|---|--:|--:|--:|---|",
        *(
            f"| {each.kind} | {each.cpu_us:.1f} | {each.more_us:+.2f} | {each.sent_bytes}"
            f" | {_verdict(each)} |"
            for each in figures
        ),
        "",
    ]


def _verdict(figure: Figure) -> str:
    if figure.kind in {PLAIN, TWIN, *_TRANSLATED}:
        return "-"
    return "yes" if figure.is_good else "**no**"
