"""Which endpoints had prompts that begin alike: their engines may have kept what they computed.

A worker knows what it sent itself, and of what engines forgot only that they forgot all: it is a
hint, and never more (ADR 49).
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from penstock.gateway.limits import (
    PREFIX_BOOKED_S,
    PREFIX_KEEPERS,
    PREFIX_KEPT_S,
    PREFIX_TOLD_S,
)
from penstock.gateway.prefix import Prefix

if TYPE_CHECKING:
    from weakref import ReferenceType

    from penstock.gateway.endpoint import AnyEndpoint
    from penstock.gateway.offer import Target

KEEPER_BYTES: Final = 256
"""What a beginning takes for each endpoint that is remembered for it, at most."""


class Keeper:
    """One prompt that an endpoint was sent: all of its beginnings are there, or none is."""

    __slots__ = ("emptied_count", "endpoint", "new_until_s", "until_s")

    def __init__(self, pool: "AnyEndpoint", now_s: float) -> None:
        """See the class."""
        self.endpoint: ReferenceType[AnyEndpoint] = pool.ref
        self.emptied_count = pool.emptied_count
        """It is over when the endpoint's has become another: it has no prompt of before."""
        self.new_until_s = now_s + PREFIX_TOLD_S
        """Until when its engine may not have told of it."""
        self.until_s = now_s + PREFIX_BOOKED_S
        """Until when it is believed to be there."""


class Prefixes:
    """The beginnings of the prompts that a worker sent, those used longest ago forgotten first.

    Args:
        most_bytes: What it may take, about.
        now_s: Returns the loop's time.
    """

    def __init__(self, most_bytes: int, now_s: Callable[[], float]) -> None:
        """See the class."""
        self._most = most_bytes // KEEPER_BYTES
        self._now_s = now_s
        self._keepers: OrderedDict[int, tuple[Keeper, ...]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        """Return how many are remembered, of each beginning each endpoint."""
        return self._count

    def find(
        self, prefix: Prefix, target: "Target", pools: "Sequence[AnyEndpoint]"
    ) -> "list[AnyEndpoint]":
        """Return the endpoints that had the longest beginning that one of them had.

        Args:
            prefix: The beginnings.
            target: What they are sent to: an adapter's are not its base model's.
            pools: All endpoints of its upstream as the request knows it: others are none of its.
        """
        now_s, seed = self._now_s(), _seed(target)
        for number in prefix.longest_first:
            keepers = self._keepers.get(number ^ seed)
            if keepers is None:
                continue
            found = [pool for each in keepers if (pool := _pool_of(each, pools, now_s)) is not None]
            if found:
                self._keepers.move_to_end(number ^ seed)
                return found
        return []

    def find_sent(
        self, prefix: Prefix, target: "Target", pools: "Sequence[AnyEndpoint]"
    ) -> "list[AnyEndpoint]":
        """Return the endpoints that were sent all of a prompt in the last seconds; as `find`."""
        now_s = self._now_s()
        keepers = self._keepers.get(prefix.longest_first[0] ^ _seed(target), ())
        return [
            pool
            for each in keepers
            if each.new_until_s > now_s and (pool := _pool_of(each, pools, now_s)) is not None
        ]

    def book(self, prefix: Prefix, target: "Target", pool: "AnyEndpoint") -> Keeper:
        """Take note that an endpoint is sent a prompt.

        Returns:
            What holds for a short time, until it is confirmed or is over.
        """
        now_s, seed = self._now_s(), _seed(target)
        keeper = Keeper(pool, now_s)
        for number in prefix.kept:
            before = self._keepers.get(number ^ seed, ())
            others = [
                each for each in before if each.until_s > now_s and each.endpoint is not pool.ref
            ]
            now = (keeper, *others[: PREFIX_KEEPERS - 1])
            self._keepers[number ^ seed] = now
            self._keepers.move_to_end(number ^ seed)
            self._count += len(now) - len(before)
        while self._count > self._most:
            self._count -= len(self._keepers.popitem(last=False)[1])
        return keeper

    def confirm(self, keeper: Keeper) -> None:
        """Take note that an endpoint answers a prompt: it read it."""
        keeper.until_s = self._now_s() + PREFIX_KEPT_S


def _pool_of(keeper: Keeper, pools: "Sequence[AnyEndpoint]", now_s: float) -> "AnyEndpoint | None":
    """Return the endpoint of a keeper, if it is one of these and still has what it was sent."""
    pool = keeper.endpoint() if keeper.until_s > now_s else None
    if pool is None or keeper.emptied_count != pool.emptied_count:
        return None
    at = pool.position
    return pool if at < len(pools) and pools[at] is pool else None


def _seed(target: "Target") -> int:
    return hash((target.deployment.upstream, target.deployment.model))
