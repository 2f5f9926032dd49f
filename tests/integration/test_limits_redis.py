"""Leases of the authority in Redis: a real server gives the same as the one in memory."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from tests.fakes.lease_simulation import LeaseSimulation
from tests.fakes.redis_server import run_redis

from penstock.contract.limits import Ask, Bucket, Lease
from penstock.limits.authority import AuthorityUnavailableError, MemoryAuthority
from penstock.limits.redis_authority import RedisAuthority

PATIENCE_S = 10.0


@pytest.fixture(scope="module")
def socket() -> Iterator[Path]:
    """A server."""
    with run_redis() as path:
        yield path


@pytest.fixture
async def client(socket: Path) -> AsyncIterator["Redis"]:
    """A connection to an empty server."""
    client = Redis(unix_socket_path=str(socket))
    await client.flushall()
    yield client
    await client.aclose()


@pytest.mark.parametrize("seed", range(6))
async def test_no_window_holds_more_than_the_limit(client: "Redis", seed: int) -> None:
    """Three workers that crash, settle late and get leases late never exceed a limit."""
    simulation = LeaseSimulation(
        seed,
        lambda clock_ms: RedisAuthority(client, timeout_s=PATIENCE_S, clock_ms=clock_ms),
    )
    await simulation.run(600)
    simulation.expect_no_limit_exceeded()


@pytest.mark.parametrize("seed", range(4))
async def test_it_gives_what_memory_gives(client: "Redis", seed: int) -> None:
    """Step by step, takings and returns have the same results as in memory."""
    draw, now_ms = random.Random(seed), 1_000_000
    shared = RedisAuthority(client, timeout_s=PATIENCE_S, clock_ms=lambda: now_ms)
    own = MemoryAuthority(lambda: now_ms)
    buckets = [
        Bucket(f"org/{number}:key", draw.randint(1, 30), sub_ms, draw.randint(1, 5))
        for number, sub_ms in enumerate((250, 500, 1_000, 0))
    ]
    leases: list[tuple[Bucket, Lease, str]] = []
    for step in range(300):
        now_ms += draw.choice((0, 10, 240, 250, 900, 7_000))
        holder = draw.choice("ab")
        for each in "ab":
            await shared.renew(each)
        if leases and draw.random() < 0.3:
            bucket, lease, holder = leases.pop(draw.randrange(len(leases)))
            for authority in (shared, own):
                await authority.give_back(bucket, lease, lease.amount, holder=holder)
            continue
        asks = [
            Ask(bucket, least := draw.randint(0, 12), least + draw.randint(0, 9), is_ahead)
            for bucket in draw.sample(buckets, draw.randint(1, 4))
            for is_ahead in [not bucket.is_permits and draw.random() < 0.2]
        ]
        got = await shared.take(asks, take_id=str(step), holder=holder)
        assert got == await own.take(asks, take_id=str(step), holder=holder)
        assert got == await shared.take(asks, take_id=str(step), holder=holder)
        if isinstance(got, tuple):
            leases += [(ask.bucket, one, holder) for ask, one in zip(asks, got, strict=True)]


async def test_permits_outlive_a_silent_holder_for_a_while(client: "Redis") -> None:
    """Permits end half a minute after their holder was last heard of, and not while it renews."""
    now_ms = 0
    authority = RedisAuthority(client, timeout_s=PATIENCE_S, clock_ms=lambda: now_ms)
    permits = Bucket("org/flying:key", 1, 0, 1)
    await authority.take([Ask(permits, 1, 1)], take_id="1", holder="a")
    for _ in range(2):
        now_ms += 20_000
        await authority.renew("a")
    assert not isinstance(
        await authority.take([Ask(permits, 1, 1)], take_id="2", holder="b"), tuple
    )
    now_ms = 71_000
    assert isinstance(await authority.take([Ask(permits, 1, 1)], take_id="3", holder="b"), tuple)


async def test_nobody_waits_for_a_server_that_hangs(client: "Redis") -> None:
    """When the server hangs, a taking fails within its time and deducts once at most."""
    bucket = Bucket("org/requests:key", 10, 1_000, 60)
    authority = RedisAuthority(client, timeout_s=0.05, clock_ms=lambda: 5_000)
    await client.client_pause(400, all=True)
    began_s = asyncio.get_running_loop().time()
    with pytest.raises(AuthorityUnavailableError):
        await authority.take([Ask(bucket, 3, 3)], take_id="1", holder="a")
    assert asyncio.get_running_loop().time() - began_s < 0.3
    await asyncio.sleep(0.5)
    patient = RedisAuthority(client, timeout_s=PATIENCE_S, clock_ms=lambda: 5_000)
    again = await patient.take([Ask(bucket, 3, 3)], take_id="1", holder="a")
    assert again == (Lease(3, 5, 7),)
