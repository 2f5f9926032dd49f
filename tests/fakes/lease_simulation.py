"""Workers of several nodes that use all they get, crash and settle late; on any authority."""

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
from penstock.limits.rules import STEP_MS, geometry_of

NODES = 3
WORKERS = 4
"""Of each node."""


class LeaseSimulation:
    """Twelve workers on three nodes with a clock each, and one authority; all by one seed."""

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
        self.windows_s = {"requests": draw(4, 12), "input_tokens": draw(4, 40)}
        self.buckets = {
            "requests": self._bucket("requests", draw(3, 80), seed),
            "input_tokens": self._bucket("input_tokens", draw(40, 600), seed),
            "concurrency": Bucket(f"org-{seed}/c:k", draw(8, 40), 0, 1),
        }
        # Of the authority's; nodes are apart by less than the shortest sub-window.
        self.skews_ms = [draw(0, STEP_MS - 1) - STEP_MS // 2 for _ in range(NODES)]
        self.lives = [0] * NODES * WORKERS
        self.shares = [Allowances() for _ in self.lives]
        self.flights: list[list[Held]] = [[] for _ in self.lives]
        self.used: list[tuple[int, int]] = []
        """When a request was let in, and its tokens."""
        self.most_flying = 0
        self.crashes = 0
        self.count = 0
        self.late: list[tuple[int, int, int, Allowance, Lease]] = []
        """Leases under way: when they arrive, at which worker in which life."""

    async def run(self, steps: int) -> None:
        """Let the workers be busy."""
        for _ in range(steps):
            self.now_ms += self.random.choice((0, 0, 0, 1, 3, 10, 30, 70))
            worker = self.random.randrange(len(self.lives))
            self.arrive()
            match self.random.random():
                case chance if chance < 0.5:
                    for _ in range(self.random.randint(1, 8)):
                        await self.request(worker)
                case chance if chance < 0.9:
                    for _ in range(self.random.randint(1, 8)):
                        self.settle(worker)
                case chance if chance < 0.992:
                    await self.give_back(worker)
                case chance if chance < 0.998:
                    await self.crash(worker)
                case _:  # a whole node
                    first = worker - worker % WORKERS
                    for each in range(first, first + WORKERS):
                        await self.crash(each)

    def clock_ms(self, worker: int) -> int:
        """Return the time as a worker sees it."""
        return self.now_ms + self.skews_ms[worker // WORKERS]

    async def request(self, worker: int) -> None:
        """A caller asks; what lacks is asked for, now and then ahead, and may arrive late."""
        shares = self.shares[worker]
        meters = tuple(shares.get(b, METRICS.index(name)) for name, b in self.buckets.items())
        costs = costs_of(input_tokens=self.random.randint(0, 20), output_tokens=0)
        held = shares.take(meters, costs, self.clock_ms(worker))
        if held is None:
            for meter in list(shares.lacking(meters, costs)):
                await self.ask(worker, meter, refill_of(meter, least=costs[meter.metric]))
                if not meter.bucket.is_permits and self.random.random() < 0.1:
                    await self.ask(worker, meter, refill_of(meter, is_ahead=True))
            held = shares.take(meters, costs, self.clock_ms(worker))
        if held is not None:
            self.flights[worker].append(held)
            self.used.append((self.now_ms, costs[1]))
            self.most_flying = max(self.most_flying, sum(map(len, self.flights)))

    async def ask(self, worker: int, meter: Allowance, ask: Ask) -> None:
        """Ask the authority, twice with the same name."""
        self.count += 1
        for _ in range(2):
            got = await self.authority.take(
                [ask], take_id=str(self.count), holder=self._holder(worker)
            )
        if isinstance(got, tuple):
            delay_ms = self.random.choice((*[0] * 20, 5, 200, 600))
            entry = (self.now_ms + delay_ms, worker, self.lives[worker], meter, got[0])
            self.late.append(entry)
            self.arrive()

    def arrive(self) -> None:
        """Hand out the leases whose time has come."""
        for entry in [one for one in self.late if one[0] <= self.now_ms]:
            self.late.remove(entry)
            _, worker, life, meter, lease = entry
            if life == self.lives[worker]:
                self.shares[worker].granted(meter, lease, now_ms=self.clock_ms(worker))

    def settle(self, worker: int) -> None:
        """A request ends, having used all that it held but its place."""
        if self.flights[worker]:
            held = self.flights[worker].pop(0)
            self.shares[worker].settle(held, (*held.costs[:4], 0))

    async def give_back(self, worker: int) -> None:
        """A worker sends back what it has too much."""
        shares = self.shares[worker]
        shares.turn(self.clock_ms(worker))
        for one in sum_of(shares.collect_returns()):
            lease = Lease(one.amount, one.sub_window, 0)
            await self.authority.give_back(
                one.bucket, lease, one.amount, holder=self._holder(worker)
            )

    async def crash(self, worker: int) -> None:
        """A worker is killed: its requests end, its shares are lost."""
        await self.authority.forget(self._holder(worker))
        self.crashes += 1
        self.lives[worker] += 1
        self.flights[worker] = []
        self.shares[worker] = Allowances()

    def most_in_window(self, name: str) -> int:
        """Return the most that any stretch of a window's length holds."""
        length_ms = self.windows_s[name] * 1_000
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
        assert self.crashes

    def _bucket(self, name: str, limit: int, seed: int) -> Bucket:
        return Bucket(f"org-{seed}/{name}:k", limit, *geometry_of(self.windows_s[name]))

    def _holder(self, worker: int) -> str:
        return f"{worker}-{self.lives[worker]}"
