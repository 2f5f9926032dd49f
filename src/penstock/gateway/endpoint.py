"""What a worker knows of one endpoint, in whatever protocol it is spoken to."""

import asyncio
import errno
import socket
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import cached_property
from typing import Any, Generic, TypeVar

from penstock.contract.snapshot import Endpoint
from penstock.gateway.engine_load import WHOLE, EngineLoad
from penstock.gateway.health import Health
from penstock.gateway.limits import ENDPOINT_COOL_DOWN_S, ENDPOINT_RESTS_S
from penstock.gateway.offer import ServedUpstream
from penstock.gateway.retries import RetryBudget

_KEEP_ALIVE_IDLE_S, _KEEP_ALIVE_INTERVAL_S, _KEEP_ALIVE_PROBES = 15, 5, 3
_UNHEARD_MS = 30_000
"""A vanished peer is noticed within 30 s."""

_PLACE_CHARACTERS = 128
_OUR_LACKS = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL})

_Sender = TypeVar("_Sender")


class EndpointState(ABC, Generic[_Sender]):
    """What decides whether an endpoint is asked, and how somebody comes to be connected to it.

    Args:
        endpoint: Where it is.
        upstream: Whose endpoint it is.
        loop: The running loop.
        retries: What all endpoints of the upstream share.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        upstream: ServedUpstream,
        loop: asyncio.AbstractEventLoop,
        retries: RetryBudget,
    ) -> None:
        """See the class."""
        self.endpoint = endpoint
        self.upstream = upstream
        self.place = f"{endpoint.host}:{endpoint.port}"[:_PLACE_CHARACTERS]
        """What it is called in records."""
        self.url = endpoint.url
        self.retries = retries
        self._loop = loop
        self.weight = endpoint.weight * WHOLE
        """In hundredths; less while its engine says that it is strained."""
        self.load = EngineLoad(reports=False)
        self.in_flight = 0
        """Requests between `acquire` and their end."""
        self.reading = 0
        """How many requests more it is as busy as with, for prompts that it has yet to read."""
        self.cool_until_s = 0.0
        """It refused a connection lately, or asked to be left alone: others go first until then."""
        self.health = Health(loop.time)
        self.adapters: frozenset[str] | None = None
        """LoRA adapters that it has; None when nobody knows."""
        self.emptied_count = 0
        """How often its engine said that it has no prompts any more."""
        self.position = 0
        """Which of its upstream's endpoints it is."""
        self.ref = weakref.ref(self)
        """For whoever remembers it, and must not keep it."""

    def take(self, reading: int) -> None:
        """Count a request in, and what there is to read of it."""
        self.in_flight += 1
        self.reading += reading

    def free(self, reading: int) -> None:
        """Count a request out, and what is still to be read of it."""
        self.in_flight -= 1
        self.reading -= reading

    def rest(self, seconds: int) -> None:
        """Be passed over for a while, as the endpoint asked for."""
        until_s = self._loop.time() + min(seconds, ENDPOINT_RESTS_S)
        self.cool_until_s = max(self.cool_until_s, until_s)

    def cool(self) -> None:
        """Be passed over for a while: no connection came about."""
        self.cool_until_s = self._loop.time() + ENDPOINT_COOL_DOWN_S
        self.health.failed()

    def not_connected(self, error: Exception) -> None:
        """Be passed over for a while, unless it is this process that has no file or port left."""
        if not isinstance(error, OSError) or error.errno not in _OUR_LACKS:
            self.cool()

    @property
    @abstractmethod
    def connection_count(self) -> int:
        """How many connections there are."""

    @property
    @abstractmethod
    def waiting_count(self) -> int:
        """How many senders wait for a connection."""

    @abstractmethod
    def acquire(self, sender: _Sender) -> None:
        """Connect `sender`: now, when a connection is made, or when one has room."""

    @abstractmethod
    def give_up(self, sender: _Sender) -> None:
        """Have a sender wait no more."""

    @abstractmethod
    def too_slow(self, sender: _Sender) -> None:
        """Have it wait no more since a connection took too long."""

    @abstractmethod
    def sweep(self, now_s: float) -> None:
        """Close connections that were idle for long."""

    @abstractmethod
    def close(self) -> None:
        """Close what is idle; what is in use ends with its requests."""


AnyEndpoint = EndpointState[Any]
"""In whatever protocol."""


class Endpoints(tuple[AnyEndpoint, ...]):  # noqa: SLOT001 - it keeps who is where
    """Those of an upstream, in its order."""

    def find(self, urls: Iterable[str]) -> list[AnyEndpoint]:
        """Return those with these URLs: of very many it looks at no others."""
        return [found for url in urls for found in self._by_url.get(url, ())]

    @cached_property
    def _by_url(self) -> dict[str, list[AnyEndpoint]]:
        by_url: dict[str, list[AnyEndpoint]] = {}
        for each in self:
            by_url.setdefault(each.url, []).append(each)
        return by_url


def watch_peer(transport: asyncio.Transport, *, is_shared: bool = False) -> None:
    """Have the kernel probe a silent connection, so that a vanished engine is noticed.

    Args:
        transport: The connection.
        is_shared: Requests go on to be sent on it while others wait: then it is never silent, and
            ends when nothing of what is sent arrives. Alone, a request has its own deadlines, and
            an engine may take its time to read a large one.
    """
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEP_ALIVE_IDLE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEP_ALIVE_INTERVAL_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEP_ALIVE_PROBES)
    if is_shared:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNHEARD_MS)
