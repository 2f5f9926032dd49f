"""Workers that use all they get of leases, crash and settle late; against any authority."""

import random
from bisect import bisect_left
from collections.abc import Callable
from itertools import accumulate

from penstock.contract.limits import Ask, Bucket, Lease
from penstock.limits.allowances import (
    METRICS,
    Allowance,
    Allowances,
    Held,
    costs_of,
    refill_of,
    sum_of,
)
from penstock.limits.authority import Authority

WORKERS = 3


class LeaseSimulation:
    """Three workers, one authority and a clock, all by one seed."""

    def __init__(self, seed: int, make_authority: Callable[[Callable[[], int]], Authority]) -> None:
        """Make a rule each for requests, tokens and concurrency.

        Args:
            seed: Decides everything.
            make_authority: Makes an empty one that lives by a clock in milliseconds.
        """
        self.random = random.Random(seed)
        self.now_ms = 1_000_000 + self.random.randrange(1_000)
        self.authority = make_authority(lambda: self.now_ms)
        draw = self.random.randint
        self.buckets = {
            "requests": Bucket(f"org-{seed}/r:k", draw(3, 40), 250, draw(1, 6)),
            "input_tokens": Bucket(f"org-{seed}/t:k", draw(20, 200), draw(1, 2) * 250, draw(1, 6)),
            "concurrency": Bucket(f"org-{seed}/c:k", draw(1, 30), 0, 1),
        }
        self.lives = [0] * WORKERS
        self.shares = [Allowances() for _ in range(WORKERS)]
        self.flights: list[list[Held]] = [[] for _ in range(WORKERS)]
        self.used: list[tuple[int, int]] = []
        """When a request was let in, and its tokens."""
        self.most_flying = 0
        self.count = 0
        self.late: list[tuple[int, int, int, Allowance, Lease]] = []
        """Leases under way: when they arrive, at which worker in which life."""

    async def run(self, steps: int) -> None:
        """Let the workers be busy."""
        for _ in range(steps):
            self.now_ms += self.random.choice((0, 0, 1, 3, 10, 30, 120))
            worker = self.random.randrange(WORKERS)
            self.arrive()
            match self.random.random():
                case chance if chance < 0.6:
                    await self.request(worker)
                case chance if chance < 0.9:
                    self.settle(worker)
                case chance if chance < 0.99:
                    await self.give_back(worker)
                case _:
                    await self.crash(worker)

    async def request(self, worker: int) -> None:
        """A caller asks; what lacks is asked for, now and then ahead, and may arrive late."""
        shares = self.shares[worker]
        meters = tuple(shares.get(b, METRICS.index(name)) for name, b in self.buckets.items())
        costs = costs_of(input_tokens=self.random.randint(0, 20), output_tokens=0)
        held = shares.take(meters, costs, self.now_ms)
        if held is None:
            for meter in list(shares.lacking(meters, costs)):
                is_ahead = not meter.bucket.is_permits and self.random.random() < 0.2
                ask = refill_of(meter, least=costs[meter.metric], is_ahead=is_ahead)
                await self.ask(worker, meter, ask)
            held = shares.take(meters, costs, self.now_ms)
        if held is not None:
            self.flights[worker].append(held)
            self.used.append((self.now_ms, costs[1]))
            self.most_flying = max(self.most_flying, sum(map(len, self.flights)))

    async def ask(self, worker: int, meter: Allowance, ask: Ask) -> None:
        """Ask the authority, twice with the same name."""
        self.count += 1
        holder = f"{worker}-{self.lives[worker]}"
        for _ in range(2):
            got = await self.authority.take([ask], take_id=str(self.count), holder=holder)
        if isinstance(got, tuple):
            delay_ms = self.random.choice((0, 0, 0, 5, 200, 600))
            entry = (self.now_ms + delay_ms, worker, self.lives[worker], meter, got[0])
            self.late.append(entry)
            self.arrive()

    def arrive(self) -> None:
        """Hand out the leases whose time has come."""
        for entry in [one for one in self.late if one[0] <= self.now_ms]:
            self.late.remove(entry)
            _, worker, life, meter, lease = entry
            if life == self.lives[worker]:
                self.shares[worker].granted(meter, lease, now_ms=self.now_ms)

    def settle(self, worker: int) -> None:
        """A request ends, having used all that it held but its place."""
        if self.flights[worker]:
            held = self.flights[worker].pop(0)
            self.shares[worker].settle(held, (*held.costs[:4], 0))

    async def give_back(self, worker: int) -> None:
        """A worker sends back what it has too much."""
        shares = self.shares[worker]
        shares.turn(self.now_ms)
        for one in sum_of(shares.collect_returns()):
            lease = Lease(one.amount, one.sub_window, 0)
            holder = f"{worker}-{self.lives[worker]}"
            await self.authority.give_back(one.bucket, lease, one.amount, holder=holder)

    async def crash(self, worker: int) -> None:
        """A worker is killed: its requests end, its shares are lost."""
        await self.authority.forget(f"{worker}-{self.lives[worker]}")
        self.lives[worker] += 1
        self.flights[worker] = []
        self.shares[worker] = Allowances()

    def most_in_window(self, name: str) -> int:
        """Return the most that any stretch of a window's length holds."""
        bucket = self.buckets[name]
        length_ms = bucket.sub_window_ms * bucket.count
        times = [at for at, _ in self.used]
        sums = [0, *accumulate(1 if name == "requests" else tokens for _, tokens in self.used)]
        return max(
            sums[bisect_left(times, at + length_ms)] - sums[bisect_left(times, at)] for at in times
        )

    def expect_no_limit_exceeded(self) -> None:
        """Fail unless every window and moment is within its limit, and something was let in."""
        for name in ("requests", "input_tokens"):
            assert self.most_in_window(name) <= self.buckets[name].limit, name
        assert self.most_flying <= self.buckets["concurrency"].limit
        assert self.used
