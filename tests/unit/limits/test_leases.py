"""Leases of the authority in memory: whatever crashes and comes late, no limit is exceeded."""

from collections.abc import Sequence

import pytest
from msgspec.structs import replace
from tests.fakes.effort import tries
from tests.fakes.lease_simulation import LeaseSimulation

from penstock.contract.limits import Ask, Bucket, Lease, Shortage
from penstock.limits.authority import MemoryAuthority

REQUESTS = Bucket("org/requests:key", 10, 1_000, 60)
PERMITS = Bucket("org/flying:key", 2, 0, 1)


class GenerousAuthority(MemoryAuthority):
    """Gives one more than each limit allows."""

    async def take(
        self, asks: Sequence[Ask], *, take_id: str, holder: str
    ) -> tuple[Lease, ...] | Shortage:
        """See `Authority`."""
        more = [
            replace(ask, bucket=replace(ask.bucket, limit=ask.bucket.limit + 1)) for ask in asks
        ]
        return await super().take(more, take_id=take_id, holder=holder)


@pytest.mark.parametrize("seed", range(tries(12)))
async def test_no_window_holds_more_than_the_limit(seed: int) -> None:
    """Workers of three nodes that crash, settle late and get leases late never exceed a limit."""
    simulation = LeaseSimulation(seed, MemoryAuthority)
    await simulation.run(2_000)
    simulation.expect_no_limit_exceeded()


async def test_the_simulation_sees_a_single_request_too_many() -> None:
    """With an authority that gives one more than a limit, some seed exceeds it."""
    for seed in range(12):
        simulation = LeaseSimulation(seed, GenerousAuthority)
        await simulation.run(1_000)
        if simulation.most_in_window("requests") > simulation.buckets["requests"].limit:
            return
    pytest.fail("none did")


async def test_all_or_nothing() -> None:
    """When one bucket has too little, nothing is deducted from any, and the wait is exact."""
    now_ms = 60_500
    authority = MemoryAuthority(lambda: now_ms)
    taken = await authority.take([Ask(PERMITS, 2, 2)], take_id="1", holder="a")
    assert taken == (Lease(2, 0, 0),)
    both = [Ask(REQUESTS, 1, 5), Ask(PERMITS, 1, 1)]
    assert await authority.take(both, take_id="2", holder="b") == Shortage(1, 0, None)
    all_of_it = [Ask(REQUESTS, 10, 10)]
    assert await authority.take(all_of_it, take_id="3", holder="b") == (Lease(10, 60, 0),)
    refused = await authority.take([Ask(REQUESTS, 1, 1)], take_id="4", holder="b")
    assert refused == Shortage(0, 0, 121_000)
    now_ms = 121_000
    taken = await authority.take([Ask(REQUESTS, 10, 10)], take_id="5", holder="b")
    assert taken == (Lease(10, 121, 0),)


async def test_a_holder_that_is_gone_gives_its_permits_back() -> None:
    """Permits of a dead holder are free again, and no others."""
    authority = MemoryAuthority(lambda: 0)
    for holder in ("a", "b"):
        await authority.take([Ask(PERMITS, 1, 1)], take_id=holder, holder=holder)
    await authority.forget("a")
    assert await authority.take([Ask(PERMITS, 2, 2)], take_id="3", holder="c") == Shortage(
        0, 1, None
    )


async def test_a_clock_that_goes_back_gives_nothing_again() -> None:
    """When the clock goes back an hour, what was taken still counts."""
    now_ms = 10_000_000
    authority = MemoryAuthority(lambda: now_ms)
    await authority.take([Ask(REQUESTS, 10, 10)], take_id="1", holder="a")
    now_ms -= 3_600_000
    refused = await authority.take([Ask(REQUESTS, 1, 1)], take_id="2", holder="a")
    assert isinstance(refused, Shortage)
