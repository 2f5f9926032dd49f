"""Which endpoints have which LoRA adapters, and requests that wait for one to be loaded.

The agent knows and says it. Nothing here is met by requests for models that are no adapters.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from penstock.contract.node import LoadedAdapters, UsedAdapters, WantAdapter, WorkerMessage
from penstock.contract.snapshot import Endpoint
from penstock.gateway.endpoint import AnyEndpoint
from penstock.gateway.limits import ADAPTER_ASKED_S, ADAPTER_WAITING
from penstock.gateway.offer import Target
from penstock.gateway.select import select


class Waiter(Protocol):
    """A request that waits."""

    is_settled: bool

    def opened(self) -> None:
        """Look again whether it can be sent."""


class Adapters:
    """What this worker was told of adapters.

    Args:
        now_s: Returns the loop's time.
        send: Tells the agent something; False when it is away.
    """

    def __init__(self, now_s: Callable[[], float], send: Callable[[WorkerMessage], bool]) -> None:
        """See the class."""
        self._now_s = now_s
        self._send = send
        self._loaded: dict[tuple[str, str], frozenset[str]] = {}
        self._failing: frozenset[tuple[str, str]] = frozenset()
        self._asked_s: dict[tuple[str, str], float] = {}
        self._used: set[tuple[str, str, str]] = set()
        self._waiting: list[Waiter] = []

    def take(self, message: LoadedAdapters) -> None:
        """Believe the agent from now on."""
        self._loaded = {(name, url): frozenset(there) for name, url, there in message.endpoints}
        self._failing = frozenset(message.failing)

    def find_loaded(self, upstream: str, endpoint: Endpoint) -> frozenset[str] | None:
        """Return the adapters that an endpoint has; None when nobody knows."""
        return self._loaded.get((upstream, endpoint.url)) if self._loaded else None

    def select(
        self, target: Target, pools: Sequence[AnyEndpoint], tried: Sequence[AnyEndpoint]
    ) -> AnyEndpoint | None:
        """Return the endpoint to try next of those that have a target's adapter.

        What nobody will load may be where nobody has looked: the engine will say so.
        """
        pool = select(self.list_pools(target, pools), tried, self._now_s())
        if pool is not None:
            self.note_use(target, pool)
        return pool

    def list_pools(self, target: Target, pools: Sequence[AnyEndpoint]) -> list[AnyEndpoint]:
        """Return the endpoints that may be asked for a target's adapter."""
        deployment = target.deployment
        found = _having(deployment.model, pools)
        if not found and deployment.adapter_path is None:
            found = [pool for pool in pools if pool.adapters is None]
        return found

    def note_use(self, target: Target, pool: AnyEndpoint) -> None:
        """Take note that an endpoint is asked for a target's adapter."""
        deployment = target.deployment
        self._used.add((deployment.upstream, pool.endpoint.url, deployment.model))

    def can_come(self, target: Target, pools: Sequence[AnyEndpoint]) -> bool:
        """Return whether a target's adapter is nowhere and would be loaded."""
        deployment = target.deployment
        return (
            deployment.adapter_path is not None
            and (deployment.upstream, deployment.model) not in self._failing
            and not _having(deployment.model, pools)
        )

    def wait(self, waiter: Waiter, target: Target) -> bool:
        """Have an adapter loaded, and a request look again at news; False when it is of no use."""
        if len(self._waiting) >= ADAPTER_WAITING:
            self._waiting = [each for each in self._waiting if not each.is_settled]
            if len(self._waiting) >= ADAPTER_WAITING:
                return False
        name = target.deployment.upstream, target.deployment.model
        if self._now_s() - self._asked_s.get(name, float("-inf")) >= ADAPTER_ASKED_S:
            if not self._send(WantAdapter(*name)):
                return False
            self._asked_s[name] = self._now_s()
        self._waiting.append(waiter)
        return True

    def wake(self) -> None:
        """Have all that wait look again."""
        self._asked_s.clear()
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.is_settled:
                waiter.opened()

    def report(self) -> UsedAdapters | None:
        """Return what was used since the last report."""
        if not self._used:
            return None
        used, self._used = self._used, set()
        return UsedAdapters(tuple(sorted(used)))


def _having(adapter: str, pools: Sequence[AnyEndpoint]) -> list[AnyEndpoint]:
    return [pool for pool in pools if pool.adapters is not None and adapter in pool.adapters]


def loaded_first(
    tier: tuple[Target, ...], pools_of: Callable[[Target], Sequence[AnyEndpoint]]
) -> tuple[Target, ...]:
    """Return the targets of a tier without adapters that are nowhere, unless all of them are."""
    found = tuple(
        target
        for target in tier
        if not target.is_adapter or _having(target.deployment.model, pools_of(target))
    )
    return found or tier
