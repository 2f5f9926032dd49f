"""A worker's shares of buckets: taken from at once, filled in the background.

A request is let in by subtraction: no lock, no await, no clock. What was leased for a sub-window
may be used in it only; when it is over, what is left goes back.
"""

from collections.abc import Collection, Iterator, Sequence

import msgspec

from penstock.contract.limits import Ask, Bucket, Lease, Return
from penstock.limits.rules import STEP_MS

Costs = tuple[int, int, int, int, int]
"""What a request takes, by metric: requests, input, output and all tokens, concurrency."""
METRICS = ("requests", "input_tokens", "output_tokens", "tokens", "concurrency")
IDLE_MS = 1_000
"""How long permits, and leases of long sub-windows, are kept that nobody needs."""
FEW = 8
"""A bucket that has less than this, or than a quarter of its limit, is scarce."""
LONG_AGO_MS = -(10**9)
KNOWN = 100_000
"""Shares that are remembered; past it, those that have nothing are forgotten."""


class Allowance:
    """What a worker may use of one bucket without asking anybody.

    Args:
        bucket: Which one.
        metric: Place of its metric in `METRICS`.
    """

    __slots__ = (
        "ahead",
        "ahead_window",
        "bucket",
        "goes_back",
        "had",
        "is_asked",
        "is_asked_ahead",
        "is_away",
        "is_fresh",
        "is_scarce",
        "left",
        "metric",
        "refill_at",
        "remaining",
        "retry_at_ms",
        "sub_window",
        "told_at_ms",
        "used_before",
        "used_when_idle",
    )

    def __init__(self, bucket: Bucket, metric: int) -> None:
        """See the class."""
        self.bucket = bucket
        self.metric = metric
        self.left = 0
        self.had = 0
        """What was leased, used or not, and is not given back."""
        self.sub_window = 0
        """What these are for."""
        self.ahead = 0
        self.ahead_window = 0
        self.used_before = 0
        """What was used in the sub-window before."""
        self.remaining = 0
        """What the bucket held besides when it was last heard of."""
        self.used_when_idle = 0
        """What `used` was when it was last looked for what nobody needs."""
        self.is_scarce = True
        """The bucket had little when it was last heard of."""
        self.goes_back = bucket.is_permits
        """What is not used goes back at once."""
        self.refill_at = 0
        """With less left, it is time to ask for more; >= 0."""
        self.is_fresh = False
        """Something came since it was last looked for what nobody needs."""
        self.is_asked = False
        self.is_asked_ahead = False
        self.told_at_ms = LONG_AGO_MS
        """When it was last heard that the bucket has too little, or that nobody can be asked; long
        ago when something went back since."""
        self.retry_at_ms: int | None = None
        """When it will have enough; of the time in `told_at_ms`."""
        self.is_away = False
        """It was the latter."""

    @property
    def used(self) -> int:
        """What was used in this sub-window; of permits, what requests in flight have."""
        return self.had - self.left


Meters = tuple[Allowance, ...]
"""All that decide about a request."""


class Held(msgspec.Struct):
    """What was taken for one request; to be settled exactly once."""

    meters: Meters
    costs: Costs
    at_ms: int
    """When: says in which sub-window of each."""


class Allowances:
    """All shares of a worker."""

    def __init__(self) -> None:
        """Begin with none."""
        self._now_ms = 0
        """The latest time that was seen."""
        self._turn_at_ms = 0
        self._turned_ms = 0
        """When the last share began another sub-window, or later."""
        self._idle_at_ms = 0
        self._known: dict[str, Allowance] = {}
        self._active: set[Allowance] = set()
        self._returns: list[Return] = []
        self.is_urgent = False
        """Somebody else may wait for what has to go back."""
        self.low: list[Allowance] = []
        """Shares to ask more for before they run dry."""

    def get(self, bucket: Bucket, metric: int) -> Allowance:
        """Return the share of a bucket, an empty one at first."""
        known = self._known.get(bucket.id)
        if known is None or known.bucket.sub_window_ms != bucket.sub_window_ms:
            if len(self._known) >= KNOWN:
                self._known = {each.bucket.id: each for each in self._active}
            known = self._known[bucket.id] = Allowance(bucket, metric)
        elif known.bucket != bucket:
            known.bucket = bucket  # its limit was changed; what was leased stays good
        return known

    def take(
        self,
        meters: Meters,
        costs: Costs,
        now_ms: int,
        exceeded: Collection[Allowance] = (),
    ) -> Held | None:
        """Take what a request costs of each share, or nothing of any.

        Args:
            meters: The shares that decide.
            costs: What the request takes.
            now_ms: The time, as the authority reckons it: a share is not used a moment longer.
            exceeded: Shares that stop nobody; what they lack is used beyond.

        Returns:
            None when a share has too little: `lacking` says of which.
        """
        if now_ms >= self._turn_at_ms:
            self.turn(now_ms)
        self._now_ms = max(self._now_ms, now_ms)
        for meter in meters:
            left = meter.left - costs[meter.metric]
            if left < meter.refill_at:
                break
            meter.left = left
        else:
            return Held(meters, costs, self._now_ms)
        for taken in meters:
            if taken is meter:
                break
            taken.left += costs[taken.metric]
        return self._take_last(meters, costs, exceeded)

    def _take_last(
        self, meters: Meters, costs: Costs, exceeded: Collection[Allowance]
    ) -> Held | None:
        """Take where a share runs low, or lacks something."""
        for meter in meters:
            if meter.left < costs[meter.metric] and meter not in exceeded:
                return None
        for meter in meters:
            meter.left -= costs[meter.metric]
            if meter.left < 0:
                self._owe(meter)
            elif meter.left < meter.refill_at and not meter.is_asked:
                self.low.append(meter)
        return Held(meters, costs, self._now_ms)

    def count_plenty(self, meters: Meters, costs: Costs, most: int, now_ms: int) -> int:
        """Return for how many requests, `most` at most, shares of buckets with plenty have enough.

        Shares that have too little for `most` are filled up.

        Args:
            meters: The shares that decide.
            costs: What one request takes.
            most: >= 1.
            now_ms: The time, as for `take`.
        """
        if now_ms >= self._turn_at_ms:
            self.turn(now_ms)
        count = most
        for meter in meters:
            if meter.is_scarce:
                return 0
            cost = costs[meter.metric]
            if meter.left < cost * most:
                count = min(count, meter.left // cost)
                if not meter.is_asked:
                    self.low.append(meter)
        return count

    @staticmethod
    def lacking(meters: Meters, costs: Costs) -> Iterator[Allowance]:
        """Yield the shares that have less than a request costs."""
        return (meter for meter in meters if meter.left < costs[meter.metric])

    def settle(self, held: Held, actual: Costs) -> None:
        """Give back what a request did not use, or charge what it used beyond.

        Args:
            held: What `take` returned; not used again.
            actual: What it used. Concurrency: 0.
        """
        costs = held.costs
        has_turned = held.at_ms < self._turned_ms
        for meter in held.meters:
            unused = costs[meter.metric] - actual[meter.metric]
            if unused:
                left = meter.left + unused
                if has_turned or meter.goes_back or left < 0:
                    self._settle_last(meter, unused, held.at_ms)
                else:
                    meter.left = left

    def _settle_last(self, meter: Allowance, unused: int, at_ms: int) -> None:
        """Settle where a share may have turned, owes something, or keeps nothing."""
        bucket = meter.bucket
        sub_window = 0 if bucket.is_permits else at_ms // bucket.sub_window_ms
        if meter.sub_window != sub_window:
            self._returns.append(Return(bucket, sub_window, unused))
            meter.told_at_ms = LONG_AGO_MS
            return
        meter.left += unused
        if meter.left < 0 or meter.goes_back:
            self._return_left(meter, meter.left)
            meter.told_at_ms = LONG_AGO_MS
            self.is_urgent = True

    def granted(self, allowance: Allowance, lease: Lease, *, now_ms: int) -> None:
        """Take in a lease. One whose sub-window is over goes back at once."""
        bucket = allowance.bucket
        allowance.remaining = lease.remaining
        allowance.is_scarce = lease.remaining < max(FEW, bucket.limit // 4)
        allowance.goes_back = allowance.is_scarce and bucket.is_permits
        allowance.refill_at = 0 if allowance.is_scarce else lease.amount // 4
        if not bucket.is_permits:
            now = now_ms // bucket.sub_window_ms
            if lease.sub_window < now:
                self._give_back(bucket, lease.sub_window, lease.amount)
                return
            if allowance.sub_window < now:
                self._turned_ms = max(self._turned_ms, now_ms)
                self._turn(allowance, now)
            if lease.sub_window > now:
                if allowance.ahead_window != lease.sub_window:
                    self._give_back(bucket, allowance.ahead_window, allowance.ahead)
                    allowance.ahead = 0
                allowance.ahead += lease.amount
                allowance.ahead_window = lease.sub_window
                self._active.add(allowance)
                return
        allowance.left += lease.amount
        allowance.had += lease.amount
        allowance.is_fresh = True
        self._active.add(allowance)

    def turn(self, now_ms: int) -> None:
        """End the shares whose sub-window is over, and begin those that were leased ahead.

        Args:
            now_ms: The time. When it goes back, shares stay as they are.
        """
        if now_ms < self._turn_at_ms:
            return
        self._turn_at_ms = now_ms - now_ms % STEP_MS + STEP_MS
        self._turned_ms = max(self._turned_ms, now_ms)
        for allowance in list(self._active):
            bucket = allowance.bucket
            if bucket.is_permits:
                continue
            now = now_ms // bucket.sub_window_ms
            if allowance.sub_window < now:
                self._turn(allowance, now)
        if now_ms >= self._idle_at_ms:
            self._idle_at_ms = now_ms + IDLE_MS
            self._return_idle()

    def list_busy(self, now_ms: int) -> Iterator[Allowance]:
        """Yield the shares to ask ahead for: busy ones whose sub-window ends with this step."""
        for allowance in self._active:
            sub_window_ms = allowance.bucket.sub_window_ms
            if (
                sub_window_ms
                and (now_ms + STEP_MS) // sub_window_ms > allowance.sub_window
                and (allowance.used or sub_window_ms == STEP_MS)
                and allowance.used_before
                and not allowance.is_scarce
                and not allowance.is_asked_ahead
            ):
                yield allowance

    def list_permits(self) -> list[tuple[Bucket, int]]:
        """Return of which buckets it has permits, and how many; none of them is to go back."""
        self._returns = [one for one in self._returns if not one.bucket.is_permits]
        return [
            (each.bucket, each.had) for each in self._active if each.bucket.is_permits and each.had
        ]

    def collect_returns(self) -> list[Return]:
        """Return what has to go back, once."""
        returns, self._returns = sum_of(self._returns), []
        self.is_urgent = False
        return returns

    def keep_returns(self, returns: list[Return]) -> None:
        """Have returns collected later, with others: nobody takes them now."""
        self._returns = returns + self._returns

    def _return_idle(self) -> None:
        """Give back permits and leases of long sub-windows that were not needed lately."""
        for allowance in list(self._active):
            bucket = allowance.bucket
            if not bucket.is_permits and bucket.sub_window_ms <= IDLE_MS:
                continue
            used = allowance.used
            needed = used // 4 if bucket.is_permits else max(0, used - allowance.used_when_idle)
            allowance.used_when_idle = used
            if allowance.left > needed and not allowance.is_fresh:
                self._return_left(allowance, allowance.left - needed)
            allowance.is_fresh = False
            if bucket.is_permits and not allowance.had:
                self._active.discard(allowance)

    def _owe(self, allowance: Allowance) -> None:
        """Charge a bucket with what was used beyond."""
        bucket = allowance.bucket
        if not bucket.is_permits:
            now = self._now_ms // bucket.sub_window_ms
            allowance.sub_window = max(allowance.sub_window, now)
        self._return_left(allowance, allowance.left)
        self._active.add(allowance)

    def _return_left(self, allowance: Allowance, amount: int) -> None:
        """Give back of what is left in this sub-window; a negative amount was used beyond."""
        self._give_back(allowance.bucket, allowance.sub_window, amount)
        allowance.left -= amount
        allowance.had -= amount

    def _turn(self, allowance: Allowance, now: int) -> None:
        bucket = allowance.bucket
        self._give_back(bucket, allowance.sub_window, allowance.left)
        is_next = allowance.sub_window == now - 1
        allowance.used_before = allowance.used if is_next else 0
        allowance.used_when_idle = 0
        allowance.left = allowance.had = 0
        allowance.sub_window = now
        if allowance.ahead_window == now:
            allowance.left = allowance.had = allowance.ahead
        else:
            self._give_back(bucket, allowance.ahead_window, allowance.ahead)
        allowance.ahead = 0
        if not allowance.left and not allowance.used_before:
            self._active.discard(allowance)

    def _give_back(self, bucket: Bucket, sub_window: int, amount: int) -> None:
        if amount:
            self._returns.append(Return(bucket, sub_window, amount))


def refill_of(
    allowance: Allowance, *, least: int = 0, needed: int = 0, is_ahead: bool = False
) -> Ask:
    """Return what to ask for a share.

    As much as it used in the last sub-window and a quarter more: a share that is used a lot is
    filled seldom, and one that is hardly used strands nothing.

    Args:
        allowance: The share.
        least: What a request is waiting for.
        needed: What all that wait lack together.
        is_ahead: For the next sub-window.
    """
    used = max(allowance.used, allowance.used_before)
    have = allowance.ahead if is_ahead else allowance.left
    if allowance.bucket.is_permits:
        have += allowance.used
    want = max(least, needed, used + used // 4 - have)
    return Ask(allowance.bucket, least, want, is_ahead)


def costs_of(
    *, input_tokens: int, output_tokens: int, requests: int = 1, concurrency: int = 1
) -> Costs:
    """Return what a request takes, in the order of `METRICS`."""
    return (requests, input_tokens, output_tokens, input_tokens + output_tokens, concurrency)


def sum_of(returns: Sequence[Return]) -> list[Return]:
    """Return the same with one entry a bucket and sub-window, and none of 0."""
    sums: dict[tuple[str, int], int] = {}
    buckets: dict[str, Bucket] = {}
    for one in returns:
        place = (one.bucket.id, one.sub_window)
        sums[place] = sums.get(place, 0) + one.amount
        buckets[one.bucket.id] = one.bucket
    return [Return(buckets[name], at, amount) for (name, at), amount in sums.items() if amount]
