"""Turns of one node and of another: what a request takes there, and how many there are."""

import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from benches.control.weighing import cpu_s
from benches.load.wrk import run_wrk
from benches.telemetry.nodes import Node


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
    """Turns of one side and of the other, in pairs."""

    first: list[Turn] = field(default_factory=list)
    other: list[Turn] = field(default_factory=list)

    def add(self, more: "Compared") -> None:
        """Take in what was measured elsewhere of the same sides."""
        self.first.extend(more.first)
        self.other.extend(more.other)

    def ratio(self, of: Callable[[Turn], float]) -> float:
        """Return the median, over pairs of turns, of the other's figure by the first's."""
        return statistics.median(of(b) / of(a) for a, b in zip(self.first, self.other, strict=True))


def compare(
    folder: Path, first: Node, other: Node, *, blocks: int, seconds: float, connections: int
) -> Compared:
    """Measure one and the other, which is scraped meanwhile, by turns.

    Args:
        folder: For the client.
        first: A node.
        other: Another one, or the same.
        blocks: Of two turns each, beside one that warms up and is not counted.
        seconds: Of a turn.
        connections: Of the client.
    """
    found = Compared()

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
