"""All that an agent has for limits, put together as its settings say."""

from collections.abc import Coroutine, Iterator
from functools import partial
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from penstock.contract.exposition import Family
from penstock.contract.metrics import Metric
from penstock.kit.clock import Clock
from penstock.kit.secrets import SecretUnavailableError, resolve_secret
from penstock.limits.authority import Authority
from penstock.limits.circuit import LiveNodes
from penstock.limits.redis_authority import RedisAuthority
from penstock.limits.shared_authority import SharedAuthority
from penstock.node import log_events, metrics
from penstock.node.calls import ControlCalls
from penstock.node.errors import SETTINGS_INVALID, AgentError
from penstock.node.layout import Layout
from penstock.node.limit_counts import LimitCounts, read_boot
from penstock.node.limit_uses import LimitUses
from penstock.node.limits import Broker
from penstock.node.monitor import LimitsState
from penstock.node.recovery import find_living
from penstock.node.settings import AgentSettings
from penstock.node.use_reports import UseReports

SERVER_TIMEOUT_S = 0.25
"""More than the 50 ms that a request waits: what comes later is there for the next ones. A lost
packet is sent again after 200 ms."""
_CONNECTIONS = 32


class NodeLimits:
    """See the module.

    Args:
        settings: The agent's.
        layout: Where files are.
        calls: Reaches the control plane.
        clock: The machine's.
        node_id: The node's id.

    Raises:
        AgentError: The settings for the shared server are not valid.
    """

    def __init__(
        self,
        settings: AgentSettings,
        layout: Layout,
        calls: ControlCalls,
        clock: Clock,
        *,
        node_id: str,
    ) -> None:
        """See the class."""
        living = partial(find_living, layout.journal)
        client = connect(settings)
        self._client = client
        self._counts = LimitCounts(layout.limits, clock, read_boot(), living())
        self._shared: SharedAuthority | None = None
        authority: Authority = self._counts.authority
        if client is not None:
            authority = self._shared = SharedAuthority(
                self._counts.authority,
                RedisAuthority(client, timeout_s=SERVER_TIMEOUT_S),
                node=node_id,
                nodes=LiveNodes(self._counts.live_nodes),
                clock_ms=self._counts.time.now_ms,
                on_drift=self._follow,
            )
        uses = LimitUses()
        self._uses = uses
        self.broker = Broker(self._counts, authority, uses, living)
        self._reports = UseReports(calls, node_id, uses)

    async def start(self) -> None:
        """Learn of the shared server, if there is one, before anybody asks."""
        if self._shared is not None:
            await self._shared.look()
            if not self._shared.is_up:
                log_events.LIMITS_NOT_SHARED_YET.log()

    def parts(self) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
        """Yield what is to run until cancelled, by name."""
        yield "limits", self.broker.run()
        yield "uses", self._reports.run()
        if self._shared is not None:
            yield "shared limits", self._shared.run()

    @property
    def state(self) -> LimitsState:
        """Who decides about limits at the moment."""
        shared = self._shared
        if shared is None:
            return LimitsState(is_authority_up=True, nodes=1)
        return LimitsState(shared.is_up, self._counts.live_nodes[0])

    def figures(self) -> Iterator[tuple[Metric, float]]:
        """Yield what metrics show of it."""
        broker, shared = self.broker, self._shared
        yield metrics.LIMITS_UP, self.state.is_authority_up
        yield metrics.LIMITS_NODES, self.state.nodes
        yield metrics.LIMITS_SHARES, 0 if shared is None else shared.share_count
        yield metrics.LIMITS_ERRORS, 0 if shared is None else shared.error_count
        yield metrics.LIMITS_WANTS, broker.want_count
        yield metrics.LIMITS_WAIT, broker.wait_s
        yield metrics.LIMITS_UNANSWERED, broker.unavailable_count

    def families(self) -> Iterator[Family]:
        """Yield those that are more than one figure."""
        yield Family(metrics.LIMITS_LEASE, histograms={(): self.broker.lease_sizes.sample()})
        yield Family(metrics.LIMITS_USED, self._uses.fullest())

    async def close(self) -> None:
        """Let go of file and server."""
        await self.broker.close()
        self._counts.close()
        if self._client is not None:
            await self._client.aclose(close_connection_pool=True)

    def _follow(self, drift_ms: int) -> None:
        if self._counts.time.follow(drift_ms):
            self.broker.tell_time()


def connect(settings: AgentSettings) -> "Redis | None":
    """Return a client of the server that limits are shared by; None when there is none.

    It connects when it is used, and tries nothing twice.

    Raises:
        AgentError: The URL or the reference to the password is not valid.
    """
    if settings.limits_url is None:
        return None
    try:
        password = None
        if settings.limits_password is not None:
            password = resolve_secret(settings.limits_password)
        pool = BlockingConnectionPool.from_url(
            settings.limits_url,
            max_connections=_CONNECTIONS,
            timeout=SERVER_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            **({} if password is None else {"password": password}),
        )
    except (SecretUnavailableError, ValueError) as error:
        raise AgentError(SETTINGS_INVALID, f"bad settings: limits_url: {error}") from None
    if password is None and pool.connection_kwargs.get("password") is not None:
        message = "bad settings: limits_url: a password belongs into limits_password"
        raise AgentError(SETTINGS_INVALID, message)
    return Redis(connection_pool=pool)
