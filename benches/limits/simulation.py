"""Three nodes of four workers in virtual time: how much of a limit is used, and what slips."""

from dataclasses import dataclass
from pathlib import Path

from tests.fakes.limits_world import WINDOWED, World, draw_limits
from tests.fakes.virtual_loop import run_virtual

from penstock.contract.limits import Limit, Metric
from penstock.limits.authority import MemoryAuthority

SATURATED = 10_000
"""Requests a minute."""


@dataclass(frozen=True, slots=True)
class Simulated:
    """A run with crashes."""

    admitted: int
    refused: int
    crashes: int
    excess: int
    """How much the worst window, or moment, held beyond its limit."""
    fullest: float
    """The worst window by its limit."""


def saturate(folder: Path) -> float:
    """Return how much of a limit is used that is asked for twice over, on three nodes."""
    limits = [
        Limit("requests", Metric.REQUESTS, SATURATED, 60),
        Limit("flying", Metric.CONCURRENCY, 10**9, window_s=0),
    ]

    async def run() -> World:
        world = World(folder, 1, limits, MemoryAuthority)
        await world.run(184.0, per_second=2 * SATURATED / 60, crashes_per_minute=0)
        return world

    world = run_virtual(run())
    first_ms = world.admitted_ms[0]
    # Three whole turns of the ring, which is a second longer than the window.
    used = sum(at_ms - first_ms < 183_000 for at_ms in world.admitted_ms)
    return used / (SATURATED * 183 / 60)


def simulate(folder: Path, seed: int) -> Simulated:
    """Kill workers, agents and machines of three nodes, and count what slips through."""
    limits = draw_limits(seed)

    async def run() -> World:
        world = World(folder, seed, limits, MemoryAuthority, is_skewed=True)
        await world.run(60, per_second=100, crashes_per_minute=30)
        return world

    world = run_virtual(run())
    used = {metric: world.most_in_window(metric) for metric in WINDOWED}
    used[Metric.CONCURRENCY] = world.most_flying
    limit_of = {metric: world.limits[metric].limit for metric in used}
    return Simulated(
        admitted=len(world.admitted_ms),
        refused=world.refused,
        crashes=world.crashes,
        excess=sum(max(0, amount - limit_of[metric]) for metric, amount in used.items()),
        fullest=max(amount / limit_of[metric] for metric, amount in used.items()),
    )
