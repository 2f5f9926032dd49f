"""Leases of the authority in Redis: a real server gives the same as the one in memory."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import invariant
from redis.asyncio import Redis
from tests.fakes.effort import tries
from tests.fakes.lease_simulation import LeaseSimulation
from tests.fakes.limits_machine import HOLDERS, LimitsMachine
from tests.fakes.limits_reference import ReferenceAuthority
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


class RedisMachine(LimitsMachine):
    """The authority in Redis."""

    socket: Path
    """Of a server."""

    async def make_authority(self) -> RedisAuthority:
        """See `LimitsMachine`."""
        self.client = Redis(unix_socket_path=str(self.socket))
        await self.client.flushall()
        self.redis = RedisAuthority(self.client, timeout_s=PATIENCE_S, clock_ms=lambda: self.now_ms)
        return self.redis

    def make_reference(self) -> ReferenceAuthority:
        """Each bucket knows the newest time that it saw."""
        return ReferenceAuthority(has_one_clock=False)

    async def renew(self) -> None:
        """See `LimitsMachine`."""
        for holder in HOLDERS:
            await self.redis.renew(holder)

    @invariant()
    def sums_are_those_of_their_parts(self) -> None:
        """What the server says that a bucket has used is the sum of its sub-windows."""
        for bucket in self.buckets if self.most else ():
            if not bucket.is_permits:
                self.run(self.expect_sum(bucket))

    async def expect_sum(self, bucket: Bucket) -> None:
        """Fail unless the sum and its parts agree."""
        fields = await self.client.hgetall(f"ps:b:{{org}}:{bucket.id}")
        newest = int(fields.get(b"n", 0))
        counting = range(newest - bucket.count, newest + 1)
        parts = {int(at): int(n) for at, n in fields.items() if at.isdigit()}
        assert int(fields.get(b"s", 0)) == sum(n for at, n in parts.items() if at in counting)
        assert all(n >= 0 for n in parts.values())
        assert len(parts) <= bucket.count + 2

    def teardown(self) -> None:
        """Leave nothing behind."""
        self.run(self.client.aclose())
        super().teardown()


def test_it_answers_as_the_reference(socket: Path) -> None:
    """Whatever is taken, given back, killed and done to the clock, each answer is the right one."""
    RedisMachine.socket = socket
    case = RedisMachine.TestCase
    # The one in memory is the same machine and can be shrunk; here that would take minutes.
    phases = (Phase.reuse, Phase.generate)
    case.settings = settings(max_examples=tries(80), stateful_step_count=40, phases=phases)
    case().runTest()


@pytest.mark.parametrize("seed", range(6))
async def test_no_window_holds_more_than_the_limit(client: "Redis", seed: int) -> None:
    """Workers of three nodes that crash, settle late and get leases late never exceed a limit."""
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
    await client.client_pause(2_000, all=True)
    began_s = asyncio.get_running_loop().time()
    with pytest.raises(AuthorityUnavailableError):
        await authority.take([Ask(bucket, 3, 3)], take_id="1", holder="a")
    assert asyncio.get_running_loop().time() - began_s < 1.9
    patient = RedisAuthority(client, timeout_s=PATIENCE_S, clock_ms=lambda: 5_000)
    again = await patient.take([Ask(bucket, 3, 3)], take_id="1", holder="a")
    assert again == (Lease(3, 5, 7),)


async def test_a_taking_that_is_cancelled_anywhere_strands_no_permit(client: "Redis") -> None:
    """Cancelled at any await, a taking leaves what it took to end with its holder, and no more."""
    now_ms = 1_000_000
    authority = RedisAuthority(client, timeout_s=PATIENCE_S, clock_ms=lambda: now_ms)
    permits, requests = Bucket("org/flying:key", 1, 0, 1), Bucket("org/requests:key", 1, 10_000, 1)
    outcomes = set()
    for steps in range(30):
        asks = [Ask(permits, 1, 1), Ask(requests, 1, 1)]
        task = asyncio.ensure_future(authority.take(asks, take_id=f"a{steps}", holder="a"))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        outcomes.add(type(outcome))
        again = await authority.take([Ask(requests, 1, 1)], take_id=f"b{steps}", holder="b")
        assert not (isinstance(outcome, tuple) and isinstance(again, tuple)), "given twice"
        await authority.forget("a")
        now_ms += 31_000
        later = await authority.take([Ask(permits, 1, 1)], take_id=f"c{steps}", holder="c")
        assert isinstance(later, tuple)
        await authority.forget("c")
    assert asyncio.CancelledError in outcomes
