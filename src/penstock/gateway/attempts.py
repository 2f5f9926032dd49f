"""Where one request was tried, and where it may be tried yet."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from penstock.contract.caches import Found
from penstock.contract.usage import Attempt
from penstock.gateway.adapters import loaded_first
from penstock.gateway.admit import Admission
from penstock.gateway.caches import NOTHING
from penstock.gateway.dialects.openai import CHAT, COMPLETIONS
from penstock.gateway.endpoint import AnyEndpoint, Endpoints
from penstock.gateway.errors import (
    CONNECT_FAILED,
    CONNECT_TIMEOUT,
    OVERLOADED,
    UNAVAILABLE,
    UPSTREAM_SATURATED,
)
from penstock.gateway.forms import form_of
from penstock.gateway.limits import ATTEMPTS, PREFIX_MOST_BYTES
from penstock.gateway.offer import Target
from penstock.gateway.prefix import Prefix
from penstock.gateway.prefixes import Keeper
from penstock.gateway.select import cooling_last, prefer, rank, select
from penstock.kit.errors import Refusal

if TYPE_CHECKING:
    from penstock.gateway.worker import Worker

_LOOKED_UP: Final = (CHAT, COMPLETIONS)
"""What is asked in a form of which it is known how engines make tokens of it."""
_NOTHING_ELSE: Final[Iterator[Target]] = iter(())
_NOBODY_THERE: Final = (CONNECT_FAILED, CONNECT_TIMEOUT, UNAVAILABLE, UPSTREAM_SATURATED)


class Attempts:
    """The endpoints of one request: no endpoint is tried twice, and no more than `ATTEMPTS` are.

    Args:
        worker: Who has the connections to them.
        started_ns: When the request was admitted, nanoseconds since the Unix epoch.
    """

    __slots__ = (
        "_keeper",
        "_known",
        "_last_ns",
        "_overloaded",
        "_ranked",
        "_tried",
        "_worker",
        "count",
        "earlier",
        "endpoints",
    )

    def __init__(self, worker: "Worker", started_ns: int) -> None:
        """See the class."""
        self._worker = worker
        self._last_ns = started_ns
        """When the last one ended."""
        self._ranked = _NOTHING_ELSE
        """Targets that may be tried yet, where there is a choice."""
        self._tried: tuple[AnyEndpoint, ...] = ()
        self._overloaded: Refusal | None = None
        self._keeper: Keeper | None = None
        """That the endpoint that is tried will have the prompt."""
        self._known = NOTHING
        """What engines told of the prompt, of those of the target."""
        self.count = 0
        self.earlier: tuple[Attempt, ...] = ()
        """What was given up for another endpoint."""
        self.endpoints: tuple[str, ...] = ()
        """All that were tried, in order."""

    def choose(self, admission: Admission) -> Admission:
        """Return the request as it goes to the first of its targets that does not cool down."""
        worker = self._worker
        tiers = admission.offer.tiers
        if admission.offer.has_adapter:
            tiers = tuple(loaded_first(tier, self._pools_of) for tier in tiers)
        ranked = rank(tiers, admission.turn)
        self._ranked = cooling_last(ranked, worker.pools_of, worker.now_s)
        return self.next_target(admission) or admission

    def select(self, target: Target) -> AnyEndpoint | None:
        """Return the endpoint of a target to try next; None when all of them were.

        Of an adapter, only those that have it count.
        """
        worker = self._worker
        pools = worker.pools_of(target.upstream)
        if target.is_adapter:
            return worker.adapters.select(target, pools, self._tried)
        return select(pools, self._tried, worker.now_s(), worker.endpoint_turn)

    def ask(self, admission: Admission, then: Callable[[], None]) -> bool:
        """Have it looked up what engines told of a prompt.

        Returns:
            Whether `then` will be called, within milliseconds; else there is nothing to wait for.
        """
        prefix, target = admission.prefix, admission.target
        if prefix is None or len(admission.body) > PREFIX_MOST_BYTES:
            return False
        if admission.operation not in _LOOKED_UP:
            return False
        pools = self._pools_of(target)
        if len(pools) == 1:
            return False

        def told(found: Found) -> None:
            self._known = found
            then()

        sent = self._worker.prefixes.find(prefix, target, pools)
        return self._worker.caches.ask(target, admission.body, [pool.url for pool in sent], told)

    def place(self, admission: Admission) -> AnyEndpoint | None:
        """Return the endpoint that is tried next; None when all of the target's were."""
        if admission.prefix is None:
            return self.select(admission.target)
        return self._place_by(admission.prefix, admission.target)

    def _place_by(self, prefix: Prefix, target: Target) -> AnyEndpoint | None:
        """Return the endpoint that had a prompt's beginning, or another; it has it from now on."""
        worker, tried = self._worker, self._tried
        pools: Sequence[AnyEndpoint] = worker.pools_of(target.upstream)
        if len(pools) == 1:
            return self.select(target)
        if self._known is NOTHING:
            keepers = worker.prefixes.find(prefix, target, pools)
        else:
            keepers = self._keepers(prefix, target)
        if target.is_adapter:
            pools = worker.adapters.list_pools(target, pools)
            keepers = [pool for pool in keepers if pool in pools]
            if not pools:
                return None
        now_s, turn = worker.now_s(), worker.endpoint_turn
        pool = prefer(pools, tried, now_s, keepers=keepers, home=prefix.home, turn=turn)
        if pool is None:
            pool = self.select(target)
        elif target.is_adapter:
            worker.adapters.note_use(target, pool)
        if pool is not None:
            choice = "new" if not keepers else "known" if pool in keepers else "passed"
            worker.stats.placed(target.upstream.name, choice)
            self._keeper = worker.prefixes.book(prefix, target, pool)
        return pool

    def _keepers(self, prefix: Prefix, target: Target) -> list[AnyEndpoint]:
        """Return the endpoints that have most of a prompt, as far as engines tell what they have.

        Those that were sent all of it just now will have it: they have not told of it yet.
        """
        prefixes, known, pools = self._worker.prefixes, self._known, self._pools_of(target)
        found = prefixes.find_sent(prefix, target, pools)
        if found:
            return found
        if known.endpoints:
            most = max(tokens for _, tokens in known.endpoints)
            return pools.find(url for url, tokens in known.endpoints if tokens == most)
        found = prefixes.find(prefix, target, pools)
        return [pool for pool in found if pool.url not in known.heard]

    def answered(self) -> None:
        """Take note that the endpoint that is tried has the prompt: it answers."""
        if self._keeper is not None:
            self._worker.prefixes.confirm(self._keeper)

    def can_come(self, target: Target) -> bool:
        """Return whether a target is an adapter that no endpoint has, and that would be loaded."""
        return target.is_adapter and self._worker.adapters.can_come(target, self._pools_of(target))

    def _pools_of(self, target: Target) -> Endpoints:
        return self._worker.pools_of(target.upstream)

    def next_target(self, admission: Admission) -> Admission | None:
        """Return the request as it goes to the next target that has an endpoint to try."""
        self._known = NOTHING
        for target in self._ranked:
            if self.select(target) is None and not self.can_come(target):
                continue
            if target is admission.target:
                return admission
            readdressed = form_of(admission).readdress(admission, target)
            if readdressed is not None:
                return readdressed
        return None

    def begun(self, pool: AnyEndpoint) -> None:
        """Take note that an endpoint is tried."""
        self.count += 1
        self.endpoints = (*self.endpoints, pool.place)

    def failed(self, pool: AnyEndpoint, refusal: Refusal) -> bool:
        """Take note that an endpoint was tried in vain; return whether another one may be."""
        self._tried = (*self._tried, pool)
        if self._keeper is not None:
            self._keeper.until_s = 0.0
            self._keeper = None
        if self._overloaded is None and refusal.error is OVERLOADED:
            self._overloaded = refusal
        return self.count < ATTEMPTS

    def go_on(self, pool: AnyEndpoint, refusal: Refusal) -> None:
        """Record what was given up for another endpoint."""
        began_ns, self._last_ns = self._last_ns, self._worker.wall_ns()
        reason = refusal.error.code.rpartition(":")[2]
        attempt = Attempt(pool.upstream.name, reason, began_ns, self._last_ns)
        self._worker.stats.retried(pool.upstream.name, reason)
        self.earlier = (*self.earlier, attempt)

    def verdict(self, refusal: Refusal) -> Refusal:
        """Return what the caller is told of the last one: where another is only busy, that."""
        if self._overloaded is not None and refusal.error in _NOBODY_THERE:
            return self._overloaded
        return refusal
