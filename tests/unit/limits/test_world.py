"""Workers and agents of three nodes, as they are, in virtual time: nothing slips."""

from pathlib import Path

import pytest
from tests.fakes.effort import tries
from tests.fakes.limits_world import WINDOWED, World, draw_limits
from tests.fakes.virtual_loop import run_virtual

from penstock.contract.limits import Limit, Metric
from penstock.limits.authority import MemoryAuthority

PLENTY = 10**9


@pytest.mark.parametrize("seed", range(tries(4)))
def test_nothing_is_over_admitted_whatever_crashes(tmp_path: Path, seed: int) -> None:
    """With workers, agents and machines killed every other second, no window holds too much."""
    limits = draw_limits(seed)

    async def run() -> World:
        world = World(tmp_path, seed, limits, MemoryAuthority, is_skewed=True)
        await world.run(25, per_second=100, crashes_per_minute=30)
        return world

    world = run_virtual(run())
    for metric in WINDOWED:
        assert world.most_in_window(metric) <= world.limits[metric].limit, metric
    assert world.most_flying <= world.limits[Metric.CONCURRENCY].limit
    assert world.crashes > 5
    assert world.refused > 0


def test_a_saturated_limit_is_used(tmp_path: Path) -> None:
    """Of a limit that is asked for twice over, at least 97 of 100 are used, and none more."""
    limit, window_s = 2_000, 60
    limits = [
        Limit("requests", Metric.REQUESTS, limit, window_s),
        Limit("flying", Metric.CONCURRENCY, PLENTY, window_s=0),
    ]

    async def run() -> World:
        world = World(tmp_path, 1, limits, MemoryAuthority)
        await world.run(window_s * 3.1, per_second=2 * limit / window_s, crashes_per_minute=0)
        return world

    world = run_virtual(run())
    first_ms = world.admitted_ms[0]
    # Two whole turns of the ring, which is a second longer than the window.
    turns_ms = 2 * (window_s + 1) * 1_000
    used = sum(at_ms - first_ms < turns_ms for at_ms in world.admitted_ms)
    assert used >= 0.97 * limit * turns_ms / (window_s * 1_000)
    assert world.most_in_window(Metric.REQUESTS) <= limit
    assert world.unavailable == 0
