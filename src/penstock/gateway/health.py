"""Whether an endpoint can be asked: what the agent was told, and what its last requests met.

Nobody is left without an endpoint by it: see `select`.
"""

from collections.abc import Callable

from penstock.contract.node import NotReady
from penstock.contract.snapshot import Endpoint
from penstock.gateway.limits import EJECT_AFTER, EJECTED_S


class Health:
    """What is known of one endpoint.

    Args:
        now_s: Returns the loop's time.
    """

    __slots__ = ("_ejected_until_s", "_failures", "_not_ready_until_s", "_now_s", "out_until_s")

    def __init__(self, now_s: Callable[[], float]) -> None:
        """See the class."""
        self._now_s = now_s
        self._failures = 0
        self._ejected_until_s = self._not_ready_until_s = self.out_until_s = 0.0
        """Until when others are asked instead."""

    def told(self, not_ready_until_s: float) -> None:
        """Take what the agent says: until when the endpoint cannot be asked, 0 when it can."""
        self._not_ready_until_s = not_ready_until_s
        self._decide()

    def succeeded(self) -> None:
        """Note a whole answer."""
        if self._failures:
            self._failures = 0
            self._ejected_until_s = 0.0
            self._decide()

    def failed(self) -> None:
        """Note a connection that was not made, an answer that broke off or a broken engine's."""
        self._failures += 1
        self._eject()

    def asked(self) -> None:
        """Note that a request is sent: after an ejection it is the one that tries it out."""
        if self._failures:
            self._eject()

    def _eject(self) -> None:
        if self._failures >= EJECT_AFTER:
            self._ejected_until_s = self._now_s() + EJECTED_S
            self._decide()

    def _decide(self) -> None:
        self.out_until_s = max(self._ejected_until_s, self._not_ready_until_s)


class Told:
    """What the agent said last, for endpoints that come later.

    Args:
        now_s: Returns the loop's time.
    """

    def __init__(self, now_s: Callable[[], float]) -> None:
        """See the class."""
        self._now_s = now_s
        self._until_s = 0.0
        self._endpoints: frozenset[tuple[str, str]] = frozenset()

    def take(self, message: NotReady) -> None:
        """Believe the agent from now on."""
        self._until_s = self._now_s() + message.believed_s
        self._endpoints = frozenset(message.endpoints)

    def until_s(self, upstream: str, endpoint: Endpoint) -> float:
        """Return until when an endpoint cannot be asked; 0 when it can, or nobody knows."""
        if not self._endpoints:
            return 0.0
        return self._until_s if (upstream, endpoint.url) in self._endpoints else 0.0
